"""What things cost: reports, forecasts, the same use by other providers' prices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import APIRouter, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.responses import Response

from fakecloud import errors
from fakecloud.api import replies
from fakecloud.api.context import CHECKED, Caller, CloudParts, needs
from fakecloud.billing import books, preview, report
from fakecloud.billing.prices import PriceBook

router = APIRouter(
    tags=["costs"],
    dependencies=[*CHECKED, needs("billing:read")],
    responses=replies.ANY_PROBLEM,
)

MAX_RANGE = timedelta(days=3660)
MAX_HOURS = timedelta(days=35)
USUAL_RANGE = timedelta(days=30)
MAX_BOOKS = 20
_EARLIEST = datetime.min.replace(tzinfo=UTC)


def _dated(value: Any) -> Any:
    """Refuse bare numbers, which would be taken for seconds of Unix time."""
    if isinstance(value, str) and "-" not in value[1:]:
        raise ValueError("is no moment such as 2026-11-01T00:00:00Z")
    return value


_Moment = Annotated[datetime | None, BeforeValidator(_dated)]
From = Annotated[_Moment, Query(alias="from", description="default: this month")]
To = Annotated[_Moment, Query(alias="to", description="default: now")]


@router.get(
    "/cost-report",
    summary="What load balancers cost",
    responses={200: {"content": {"application/json": {}, "text/csv": {}}}},
)
def cost_report(
    cloud: CloudParts,
    caller: Caller,
    start: From = None,
    end: To = None,
    group_by: Annotated[
        str,
        Query(
            description="comma separated: project, cluster, namespace, service, load_balancer, "
            "sku, price_book, day, hour, month, label:NAME"
        ),
    ] = "namespace,load_balancer",
    tz: Annotated[str, Query(description="whose days and months, such as Europe/Berlin")] = "UTC",
    format: Literal["json", "csv"] = "json",
) -> Response:
    """Return the cost of [from, to), grouped, and what goes on costing per month of 730 hours."""
    tokens = tuple(group_by.split(","))
    if len(tokens) > 8 or len(set(tokens)) < len(tokens):
        raise errors.InvalidParameter("group_by has more than 8 names, or one twice")
    start, end = asked_range(cloud, start, end)
    zone = _zone(tz)
    if ("hour" in tokens or zone is not UTC) and end - start > MAX_HOURS:
        raise errors.InvalidParameter(
            f"group_by=hour, and days of another time zone, are for at most {MAX_HOURS.days} days"
        )
    asked = report.Asked(start=start, end=end, group_by=tokens, zone=zone)
    for token in tokens:
        report.reader(token)
    made = cloud.costs.report(caller.project, asked)
    if format == "csv":
        return Response(report.to_csv(made, tokens), media_type="text/csv; charset=utf-8")
    return replies.json(made)


@router.get("/costs/forecast", summary="What this month will cost")
def forecast(cloud: CloudParts, caller: Caller) -> Response:
    """Return the cost of the whole month: time exactly, traffic as in the last 24 hours."""
    return replies.json(cloud.costs.forecast(caller.project))


@router.get("/costs/compare", summary="The same use by other prices")
def compare(
    cloud: CloudParts,
    caller: Caller,
    books: Annotated[str, Query(description="comma separated; see /v1/prices")],
    start: From = None,
    end: To = None,
) -> Response:
    """Return what the recorded use of [from, to) would have cost elsewhere, and what is unpriced."""
    names = books.split(",")
    if len(names) > MAX_BOOKS:
        raise errors.InvalidParameter(f"books: {len(names)} are more than {MAX_BOOKS}")
    return replies.json(cloud.costs.compare(caller.project, names, *asked_range(cloud, start, end)))


@router.get("/costs/anomalies", summary="Days that cost something unusual")
def anomalies(cloud: CloudParts, caller: Caller, start: From = None, end: To = None) -> Response:
    """Return which days of [from, to) stand out in a namespace, and what the difference is made of.

    Whole days that are rated only; by default those of the last 30 days.
    """
    last = _utc(end, "to") or cloud.clock.now()
    if start is None:
        start = max(last, _EARLIEST + USUAL_RANGE) - USUAL_RANGE
    return replies.json(cloud.costs.anomalies(caller.project, *asked_range(cloud, start, last)))


class PreviewBody(BaseModel):
    """Manifests as they would be applied; those that aren't Services cost nothing."""

    model_config = ConfigDict(extra="forbid", strict=True)

    manifests: list[dict[str, Any] | None] = Field(max_length=preview.MOST_MANIFESTS)
    whole: bool = Field(
        default=False, description="they are everything: Services that aren't in them go"
    )


@router.post("/costs/preview", summary="What manifests would cost")
def preview_manifests(cloud: CloudParts, caller: Caller, body: PreviewBody) -> Response:
    """Return what the manifests would change of the bill of a month of 730 hours; nothing is kept."""
    return replies.json(cloud.costs.preview(caller.project, body.manifests, whole=body.whole))


@router.get("/costs/recommendations", summary="What could cost less")
def recommendations(cloud: CloudParts, caller: Caller) -> Response:
    """Return which load balancers could share one Gateway, what that saves, and who can't."""
    return replies.json(cloud.costs.recommendations(caller.project))


@router.get("/load-balancers/{name}/statement", summary="Why it costs what it costs")
def statement(
    cloud: CloudParts, caller: Caller, name: str, start: From = None, end: To = None
) -> Response:
    """Return a load balancer's events and charges of [from, to); also of a deleted one."""
    return replies.json(
        cloud.costs.statement(caller.project, name, *asked_range(cloud, start, end))
    )


@router.get("/prices", summary="The price books")
def prices(cloud: CloudParts, caller: Caller) -> Response:
    """Return every version of every price book, without its SKUs."""
    found = [_summary(book) for name in books.names() for book in books.versions(name)]
    return replies.json({"items": found})


@router.get("/prices/{book}", summary="A price book with its sources")
def price_book(cloud: CloudParts, caller: Caller, book: str) -> Response:
    """Return a book, the newest of its name or NAME@VERSION, with where each figure is from."""
    found = books.load(book)
    return replies.json({**_summary(found), "skus": found.skus, "plans": found.plans})


def _summary(book: PriceBook) -> dict[str, Any]:
    return {
        "id": book.id,
        "name": book.name,
        "version": book.version,
        "provider": book.provider,
        "currency": book.currency,
        "effective_from": book.effective_from,
        "applies_to": book.applies_to,
        "topology": book.topology,
        "illustrative": book.illustrative,
        "note": book.note,
        "sha256": book.digest,
        "oldest_source": book.oldest_source,
        "unpriced": sorted({sku.id for sku in book.skus if not sku.priced}),
    }


def asked_range(
    cloud: CloudParts, start: datetime | None, end: datetime | None
) -> tuple[datetime, datetime]:
    """Return [from, to), this month up to now by default. Raises: InvalidParameter."""
    now = cloud.clock.now()
    first = _utc(start, "from") or now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    last = _utc(end, "to") or now
    if not timedelta() < last - first <= MAX_RANGE:
        raise errors.InvalidParameter(
            f"from {first.isoformat()} to {last.isoformat()} is not a range of more than nothing "
            f"and at most {MAX_RANGE.days} days"
        )
    return first, last


def _zone(name: str) -> tzinfo:
    if name.upper() in ("UTC", "Z"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise errors.InvalidParameter(
            f"tz={name!r} is no time zone; one is called, for example, Europe/Berlin"
        ) from None


def _utc(moment: datetime | None, name: str) -> datetime | None:
    if moment is not None and moment.tzinfo is None:
        raise errors.InvalidParameter(f"{name}: say the time zone, for example a Z at the end")
    try:
        return None if moment is None else moment.astimezone(UTC)
    except OverflowError:
        raise errors.InvalidParameter(f"{name}: {moment} is out of range") from None
