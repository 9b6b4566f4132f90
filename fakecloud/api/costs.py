"""The cost report: what load balancers cost, from recorded active intervals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from fakecloud import errors
from fakecloud.api import replies
from fakecloud.api.context import CHECKED, Caller, CloudParts, needs
from fakecloud.billing import rating, report
from fakecloud.store import usage

router = APIRouter(
    tags=["costs"],
    dependencies=[*CHECKED, needs("billing:read")],
    responses=replies.ANY_PROBLEM,
)

MAX_RANGE = timedelta(days=3660)


@router.get(
    "/cost-report",
    summary="What load balancers cost",
    responses={200: {"content": {"application/json": {}, "text/csv": {}}}},
)
def cost_report(
    cloud: CloudParts,
    caller: Caller,
    start: Annotated[
        datetime | None, Query(alias="from", description="default: this month")
    ] = None,
    end: Annotated[datetime | None, Query(alias="to", description="default: now")] = None,
    group_by: Annotated[str, Query(description="comma separated")] = "namespace,load_balancer",
    format: Literal["json", "csv"] = "json",
) -> Response:
    """Return the cost of [from, to), grouped, and what goes on costing per month of 730 hours."""
    now = cloud.clock.now()
    start = _utc(start, "from") or now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = _utc(end, "to") or now
    if not timedelta() < end - start <= MAX_RANGE:
        raise errors.InvalidParameter(
            f"from {start.isoformat()} to {end.isoformat()} is not a range of more than nothing "
            f"and at most {MAX_RANGE.days} days"
        )
    with cloud.database.read() as connection:
        intervals = [
            rating.UsageInterval(
                lb_id=row.load_balancer_id,
                project=row.project,
                name=row.name,
                labels=row.labels,
                type=row.type,
                started_at=row.started_at,
                ended_at=row.ended_at,
            )
            for row in usage.histories(connection, caller.project, start, end)
        ]
    tokens = group_by.split(",")
    made = report.build(intervals, cloud.price_book, start, end, group_by=tokens, now=now)
    if format == "csv":
        return Response(report.to_csv(made, tokens), media_type="text/csv; charset=utf-8")
    return replies.json(made)


def _utc(moment: datetime | None, name: str) -> datetime | None:
    if moment is not None and moment.tzinfo is None:
        raise errors.InvalidParameter(f"{name}: say the time zone, for example a Z at the end")
    try:
        return None if moment is None else moment.astimezone(UTC)
    except OverflowError:
        raise errors.InvalidParameter(f"{name}: {moment} is out of range") from None
