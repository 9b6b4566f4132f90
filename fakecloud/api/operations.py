"""Operations: the progress of asynchronous work."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from fakecloud import documents, errors
from fakecloud.api import replies, schemas
from fakecloud.api.context import CHECKED, Caller, CloudParts
from fakecloud.store import events, operations

router = APIRouter(
    prefix="/operations", tags=["operations"], dependencies=CHECKED, responses=replies.ANY_PROBLEM
)


Id = Annotated[str, Path(pattern=r"^[a-z0-9_]{1,63}$")]


@router.get("", response_model=schemas.OperationList)
def list_all(
    cloud: CloudParts,
    caller: Caller,
    page_size: replies.PageSize = 100,
    page_token: replies.PageToken = None,
) -> Response:
    """Return operations in the order of their start, a page at a time."""
    after = replies.decode_token(page_token, "")
    with cloud.database.read() as connection:
        version = events.current_version(connection)
        found = operations.page(connection, caller.project, after=after, limit=page_size + 1)
    items = [documents.operation(one) for one in found[:page_size]]
    more = found[page_size - 1].id if len(found) > page_size else None
    return replies.page(items, more, version)


@router.get("/{id}", response_model=schemas.Operation)
def get(id: Id, cloud: CloudParts, caller: Caller) -> Response:
    """Return one operation."""
    with cloud.database.read() as connection:
        operation = operations.find(connection, caller.project, id)
    if operation is None:
        raise errors.NotFound(f"there is no operation {id!r}")
    return replies.operation(operation)
