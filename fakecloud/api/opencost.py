"""Costs where OpenCost's own tools look for them: `/allocation`, `/assets`, `/customCost/…`.

As there, an answer is {"code": 200, "data": …}. What this cloud doesn't sell (CPU, memory, disks)
costs nothing; the idle part of a cluster and `step` are not for it to know.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from fakecloud import errors
from fakecloud.api import replies
from fakecloud.api.context import CHECKED, Caller, Cloud, CloudParts, needs
from fakecloud.api.costs import asked_range

router = APIRouter(
    tags=["opencost"],
    dependencies=[*CHECKED, needs("billing:read")],
    responses=replies.ANY_PROBLEM,
)

_DURATION: Final = re.compile(r"^(\d{1,4})([mhdw])$")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
Window = Annotated[
    str,
    Query(description="today, yesterday, week, month, lastweek, lastmonth, such as 7d, or FROM,TO"),
]


@router.get("/allocation", summary="Costs as OpenCost allocates them")
@router.get("/allocation/compute", summary="The same", include_in_schema=False)
def allocation(
    cloud: CloudParts,
    caller: Caller,
    window: Window,
    aggregate: Annotated[
        str, Query(description="comma separated, as group_by of the cost report")
    ] = "cluster,namespace,service",
) -> Response:
    """Return a set of allocations; the load balancers in each add up to its loadBalancerCost."""
    names = tuple(aggregate.split(","))
    found = cloud.spending.opencost.allocation(caller.project, *_window(cloud, window), names)
    return _data([found])


@router.get("/assets", summary="Load balancers and addresses as OpenCost's assets")
def assets(cloud: CloudParts, caller: Caller, window: Window) -> Response:
    """Return what each load balancer and each address comes to, by its id."""
    return _data(cloud.spending.opencost.assets(caller.project, *_window(cloud, window)))


@router.get("/customCost/total", summary="Prices of resources as OpenCost's custom costs")
def custom_cost_total(cloud: CloudParts, caller: Caller, window: Window) -> Response:
    """Return what each price of each resource comes to."""
    return _data(cloud.spending.opencost.custom_costs(caller.project, *_window(cloud, window)))


@router.get("/customCost/timeseries", summary="The same day by day")
def custom_cost_timeseries(cloud: CloudParts, caller: Caller, window: Window) -> Response:
    """Return what each price of each resource comes to on each day of UTC."""
    return _data(cloud.spending.opencost.timeseries(caller.project, *_window(cloud, window)))


def _data(found: Any) -> Response:
    return replies.json({"code": 200, "data": found})


def _window(cloud: Cloud, text: str) -> tuple[datetime, datetime]:
    """Return what OpenCost calls a window. Raises: InvalidParameter."""
    now = cloud.clock.now()
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    week, month = today - timedelta(days=(today.weekday() + 1) % 7), today.replace(day=1)
    last_month = (month - timedelta(days=1)).replace(day=1)
    named = {
        "today": (today, now),
        "yesterday": (today - timedelta(days=1), today),
        "week": (week, now),
        "month": (month, now),
        "lastweek": (week - timedelta(days=7), week),
        "lastmonth": (last_month, month),
    }
    if text in named:
        return asked_range(cloud, *named[text])
    if duration := _DURATION.match(text):
        length = timedelta(**{_UNITS[duration[2]]: int(duration[1])})
        return asked_range(cloud, now - length, now)
    try:
        start, end = (datetime.fromisoformat(part).astimezone(UTC) for part in text.split(","))
    except (ValueError, OverflowError):
        raise errors.InvalidParameter(
            f"window={text!r} is no window such as 7d, month or "
            "2026-11-01T00:00:00Z,2026-12-01T00:00:00Z"
        ) from None
    return asked_range(cloud, start, end)
