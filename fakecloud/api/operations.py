"""Operations: the progress of asynchronous work."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from fakecloud import errors
from fakecloud.api import lists, replies, resource_schemas, schemas, waiting
from fakecloud.api.context import CHECKED, Caller, Cloud, CloudParts, needs
from fakecloud.api.mutations import Change
from fakecloud.domain import documents
from fakecloud.model import Operation, OperationStatus
from fakecloud.store import events, listings, operations

router = APIRouter(
    prefix="/operations", tags=["operations"], dependencies=CHECKED, responses=replies.ANY_PROBLEM
)

MAX_WAIT_S: Final = 60.0

_PLAIN = ("id", "type", "target", "target_id", "target_generation", "status", "phase")
KIND: Final = lists.Kind(
    table="operation",
    fields=lists.fields_of(_PLAIN),
    roots=(
        *_PLAIN,
        *("done", "error", "progress", "phases", "eta", "resource_version"),
        *("created_at", "updated_at"),
    ),
    columns={(name,): name for name in ("id", "type", "target", "target_id", "status")},
)
Id = Annotated[str, Path(pattern=r"^[a-z0-9_]{1,63}$")]
ListAsked = Annotated[lists.Asked, Depends(lists.asking(KIND))]
Wait = Annotated[
    str | None,
    Query(description="wait for its end, e.g. 25s; at most 60s", json_schema_extra=replies.TIME),
]


@router.get(
    "",
    summary="List operations",
    response_model=schemas.OperationList | schemas.PartialList,
    dependencies=[needs("op:read")],
)
def list_all(cloud: CloudParts, caller: Caller, asked: ListAsked) -> Response:
    """Return a page of operations; for one load balancer `filter=target="web"`."""
    with cloud.database.read() as connection:
        version = events.current_version(connection)

        def fetch(page: listings.Page) -> lists.Found:
            found = operations.listing(connection, caller.project, page)
            return [(key, documents.operation(one)) for key, one in found]

        items, last = asked.collect(fetch)
    return asked.answer(items, last, version)


@router.post(
    ":batchGet",
    summary="Read many operations by id",
    response_model=resource_schemas.OperationBatch,
    dependencies=[needs("op:read")],
)
def batch_get(body: resource_schemas.Ids, cloud: CloudParts, caller: Caller) -> Response:
    """Return those of up to 500 operations that exist, and the ids of those that don't."""
    with cloud.database.read() as connection:
        version = events.current_version(connection)
        found = operations.by_ids(connection, caller.project, body.ids)
    return replies.batch(body.ids, {op.id: documents.operation(op) for op in found}, version)


@router.get(
    "/{id}",
    summary="Read an operation, or wait for its end",
    response_model=schemas.Operation,
    dependencies=[needs("op:read")],
)
async def get(id: Id, cloud: CloudParts, caller: Caller, wait: Wait = None) -> Response:
    """Return one operation; with `wait` when it has ended, or as it is after that time.

    While it runs, `Retry-After` says when it is worth asking again.
    """
    wait_s = replies.seconds(wait, "wait", MAX_WAIT_S)

    def look() -> Operation:
        with cloud.database.read() as connection:
            operation = operations.find(connection, caller.project, id)
        if operation is None:
            raise errors.NotFound(f"there is no operation {id!r}")
        return operation

    if wait_s:
        operation = await waiting.until(cloud, id, look, _has_ended, wait_s)
    else:
        operation = await run_in_threadpool(look)
    headers = {} if _has_ended(operation) else {"retry-after": str(_retry_after(cloud, operation))}
    return replies.json(documents.operation(operation), headers=headers)


@router.post(
    "/{id}:cancel",
    summary="Stop trying",
    response_model=schemas.Operation,
    dependencies=[needs("lb:write")],
)
def cancel(id: Id, cloud: CloudParts, caller: Caller, change: Change) -> Response:
    """End an operation that no worker is busy with just now; its load balancer waits in ERROR.

    409 not_cancellable when it has ended, deletes, or is being worked on.
    """
    return change.run(lambda: replies.operation(cloud.actions.cancel(caller.project, id)))


def _has_ended(operation: Operation) -> bool:
    return operation.status is not OperationStatus.RUNNING


def _retry_after(cloud: Cloud, operation: Operation) -> int:
    """Return half of the time that is left, in whole seconds from 1 to 15."""
    if operation.ready_at is None:
        return 1
    left: timedelta = operation.ready_at - cloud.clock.wall()
    return max(1, min(int(left.total_seconds() / 2), replies.LONGEST_RETRY_S))
