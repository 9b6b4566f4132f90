"""Invoices, the proof of what was billed, and its export."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from fakecloud import errors
from fakecloud.api import replies
from fakecloud.api.context import CHECKED, Caller, CloudParts, needs
from fakecloud.api.costs import From, To, asked_range
from fakecloud.api.mutations import Change
from fakecloud.billing import focus, focus_invoices

_CSV: Final = "text/csv; charset=utf-8"
_COLUMNS: Final = {
    "BillingPeriod": focus_invoices.BILLING_PERIOD,
    "InvoiceDetail": focus_invoices.INVOICE_DETAIL,
}
router = APIRouter(tags=["billing"], dependencies=[*CHECKED], responses=replies.ANY_PROBLEM)


@router.get("/invoices", summary="Invoices", dependencies=[needs("billing:read")])
def invoices(cloud: CloudParts, caller: Caller) -> Response:
    """Return every month's invoice, the newest first; open ones are provisional."""
    return replies.json({"items": cloud.invoices.list(caller.project)})


@router.get("/invoices/{id}", summary="An invoice", dependencies=[needs("billing:read")])
def invoice(cloud: CloudParts, caller: Caller, id: str) -> Response:
    """Return a month's invoice, such as 2026-11."""
    return replies.json(cloud.invoices.find(caller.project, _period(caller.project, id)))


@router.post("/invoices/{id}:close", summary="Close a month", dependencies=[needs("billing:admin")])
def close(cloud: CloudParts, caller: Caller, change: Change, id: str) -> Response:
    """Close a month that is over: its lines stay as they are for ever."""
    period = _period(caller.project, id)
    return change.run(lambda: replies.json(cloud.invoices.close(caller.project, period)))


class RerateBody(BaseModel):
    """From when on."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    start: AwareDatetime = Field(alias="from")


@router.post(
    "/billing:rerate",
    status_code=202,
    summary="Rate closed days again",
    dependencies=[needs("billing:admin")],
)
def rerate(cloud: CloudParts, caller: Caller, change: Change, body: RerateBody) -> Response:
    """Rate closed days again, soon; what differs becomes lines beside those that are there."""
    start = body.start.astimezone(UTC)
    return change.run(lambda: replies.json(cloud.invoices.rerate(caller.project, start), 202))


@router.get(
    "/billing/verify", summary="Whether the books are right", dependencies=[needs("billing:read")]
)
def verify(cloud: CloudParts, caller: Caller) -> Response:
    """Return whether events, lines, daily sums and closed invoices agree, or what doesn't."""
    return replies.json(cloud.invoices.verify(caller.project))


@router.get(
    "/billing/export",
    summary="Every charge as a row",
    dependencies=[needs("billing:read")],
    responses={200: {"content": {"text/csv": {}, "application/json": {}}}},
)
def export(
    cloud: CloudParts,
    caller: Caller,
    format: Annotated[
        Literal["focus", "focus-metadata"],
        Query(description="CSV, or as JSON what its columns are"),
    ] = "focus",
    dataset: Annotated[
        Literal["CostAndUsage", "BillingPeriod", "InvoiceDetail"],
        Query(description="the last two are of all months, and of no time or columns"),
    ] = "CostAndUsage",
    start: From = None,
    end: To = None,
    columns: Annotated[
        str | None, Query(description="comma separated; default: all of FOCUS 1.4 and our own")
    ] = None,
) -> Response:
    """Return a dataset of FOCUS 1.4 as CSV; CostAndUsage is written as it is read."""
    chosen = tuple(columns.split(",")) if columns else focus.COLUMNS
    for name in chosen:
        if name not in focus.COLUMNS:
            raise errors.InvalidParameter(
                f"columns: {name!r} is no column of FOCUS {focus.VERSION}"
            )
    if dataset != "CostAndUsage" and (start or end or columns):
        raise errors.InvalidParameter(f"dataset={dataset} is whole: leave out from, to and columns")
    if format == "focus-metadata":
        return replies.json(focus_invoices.metadata(dataset, _COLUMNS.get(dataset, chosen)))
    if dataset == "BillingPeriod":
        return Response(cloud.invoices.billing_periods(caller.project), media_type=_CSV)
    if dataset == "InvoiceDetail":
        return Response(cloud.invoices.invoice_details(caller.project), media_type=_CSV)
    first, last = asked_range(cloud, start, end)
    some = cloud.invoices.export(caller.project, first, last, chosen)
    return StreamingResponse(some, media_type=_CSV)


def _period(project: str, id: str) -> str:
    return id.removeprefix(f"{project}-")
