"""The audit record: every change that was asked, done or refused."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from fakecloud.api import replies
from fakecloud.api.context import CHECKED, Caller, CloudParts, needs
from fakecloud.clock import rfc3339
from fakecloud.store import audit, events

router = APIRouter(
    prefix="/audit",
    tags=["audit"],
    dependencies=[*CHECKED, needs("audit:read")],
    responses=replies.ANY_PROBLEM,
)


class Record(BaseModel):
    """A change that was asked; `code` when it was refused. `hash` covers `previous` and the rest.

    `body_sha256` is of what was sent, `diff_sha256` of the events that it made.
    """

    seq: int
    at: str
    project: str
    token_id: str
    client: str
    method: str
    path: str
    status: int
    code: str | None
    request_id: str
    body_sha256: str
    diff_sha256: str | None
    fault_id: str | None
    previous: str
    hash: str


class RecordList(BaseModel):
    """One page of the audit record."""

    items: list[Record]
    next_page_token: str | None
    resource_version: str


def _document(record: audit.Record) -> dict[str, Any]:
    shown = {name: getattr(record, name) for name in Record.model_fields}
    return shown | {"at": rfc3339(record.at)}


@router.get("", summary="Read the audit record", response_model=RecordList)
def list_all(
    cloud: CloudParts,
    caller: Caller,
    page_size: replies.PageSize = 100,
    page_token: replies.PageToken = None,
) -> Response:
    """Return the project's records in the order of their commits, a page at a time."""
    after = replies.decode_token(page_token, 0)
    with cloud.database.read() as connection:
        version = events.current_version(connection)
        found = audit.page(connection, caller.project, after=after, limit=page_size + 1)
    more = found[page_size - 1].seq if len(found) > page_size else None
    return replies.page([_document(one) for one in found[:page_size]], more, version)
