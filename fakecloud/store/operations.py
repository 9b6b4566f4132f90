"""Operations: the progress of asynchronous work, kept after it ended."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select, update

from fakecloud import documents
from fakecloud.model import ErrorNote, Operation, OperationStatus
from fakecloud.store import events
from fakecloud.tables import operation as table

_COLUMNS = tuple(getattr(table.c, name) for name in Operation.__struct_fields__)


def _value(row: Row[Any]) -> Operation:
    return msgspec.convert(dict(zip(Operation.__struct_fields__, row, strict=True)), Operation)


def start(connection: Connection, operation: Operation) -> Operation:
    """Insert a running operation with its event."""
    operation = msgspec.structs.replace(operation, resource_version=events.next_version(connection))
    values = {name: getattr(operation, name) for name in operation.__struct_fields__}
    connection.execute(insert(table).values(values | {"error": None}))
    _record(connection, operation, "ADDED")
    return operation


def end(
    connection: Connection,
    target_id: str,
    *,
    up_to_generation: int,
    status: OperationStatus,
    now: datetime,
    error: ErrorNote | None = None,
) -> None:
    """End every running operation of a load balancer up to a generation, each with its event.

    One that wanted an older generation than the one that succeeded ends as SUPERSEDED.
    """
    rows = connection.execute(
        select(*_COLUMNS).where(
            table.c.target_id == target_id,
            table.c.status == OperationStatus.RUNNING,
            table.c.target_generation <= up_to_generation,
        )
    ).all()
    for row in rows:
        operation = _value(row)
        older = operation.target_generation < up_to_generation
        superseded = older and status is OperationStatus.SUCCEEDED
        ended = msgspec.structs.replace(
            operation,
            status=OperationStatus.SUPERSEDED if superseded else status,
            error=None if superseded else error,
            updated_at=now,
            resource_version=events.next_version(connection),
        )
        connection.execute(
            update(table)
            .where(table.c.id == ended.id)
            .values(
                status=ended.status,
                error=msgspec.to_builtins(ended.error),
                updated_at=now,
                resource_version=ended.resource_version,
            )
        )
        _record(connection, ended, "MODIFIED")


def _record(connection: Connection, operation: Operation, type: str) -> None:
    events.append(
        connection,
        resource_version=operation.resource_version,
        project=operation.project,
        type=type,
        kind="operation",
        object_id=operation.id,
        document=documents.operation(operation),
        at=operation.updated_at,
    )


def find(connection: Connection, project: str, id: str) -> Operation | None:
    """Return the operation with that id, None if the project has none."""
    row = connection.execute(
        select(*_COLUMNS).where(table.c.project == project, table.c.id == id)
    ).first()
    return None if row is None else _value(row)


def running(connection: Connection, project: str) -> list[Operation]:
    """Return the operations of a project that haven't ended."""
    rows = connection.execute(
        select(*_COLUMNS)
        .where(table.c.project == project, table.c.status == OperationStatus.RUNNING)
        .order_by(table.c.id)
    )
    return [_value(row) for row in rows]


def page(connection: Connection, project: str, *, after: str, limit: int) -> list[Operation]:
    """Return up to `limit` operations with an id above `after`; ids ascend with time."""
    rows = connection.execute(
        select(*_COLUMNS)
        .where(table.c.project == project, table.c.id > after)
        .order_by(table.c.id)
        .limit(limit)
    )
    return [_value(row) for row in rows]


def forget(connection: Connection, before: datetime) -> int:
    """Delete operations that ended before `before`; return how many."""
    return connection.execute(
        delete(table).where(table.c.status != OperationStatus.RUNNING, table.c.updated_at < before)
    ).rowcount
