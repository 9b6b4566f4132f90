"""Operations: the progress of asynchronous work, kept after it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, Table, bindparam, delete, select, update

from fakecloud.domain import documents
from fakecloud.ids import new_id
from fakecloud.model import ErrorNote, Operation, OperationStatus, Phase
from fakecloud.store import bulk, events, listings
from fakecloud.tables.cloud import operation as table

MAX_PHASES: Final = 20
_COLUMNS = tuple(getattr(table.c, name) for name in Operation.__struct_fields__)
_UPDATE = update(table).where(table.c.id == bindparam("key"))
_MOVING: Final = (
    "status",
    "resource_version",
    "error",
    "updated_at",
    "phase",
    "phases",
    "progress",
    "eta",
    "ready_at",
)
"""What changes while work goes on."""
_replace: Final = msgspec.structs.replace
_RUNNING = (
    select(*_COLUMNS)
    .where(
        table.c.target_id.in_(bindparam("of", expanding=True)),
        table.c.status == OperationStatus.RUNNING,
    )
    .order_by(table.c.id)
)

_PROGRESS: Final = {"allocate": 0, "apply": 10, "wait": 50}
"""Percent at the beginning of each phase; what is true of time is in `eta`."""


def new(
    project: str,
    type: str,
    target: str,
    target_id: str,
    generation: int,
    now: datetime,
    *,
    eta: datetime | None = None,
    ready_at: datetime | None = None,
) -> Operation:
    """Return a running operation that isn't stored yet."""
    return Operation(
        id=new_id("op", now),
        project=project,
        type=type,
        target=target,
        target_id=target_id,
        target_generation=generation,
        status=OperationStatus.RUNNING,
        resource_version=0,
        error=None,
        created_at=now,
        updated_at=now,
        phase="allocate",
        phases=(Phase(name="allocate", started_at=now),),
        eta=eta,
        ready_at=ready_at,
    )


def _value(row: Row[Any]) -> Operation:
    return msgspec.convert(dict(zip(Operation.__struct_fields__, row, strict=True)), Operation)


def start(connection: Connection, operation: Operation) -> Operation:
    """Insert a running operation with its event."""
    operation = announce(connection, operation)
    bulk.insert_all(connection, insertion([operation]))
    return operation


def announce(connection: Connection, operation: Operation) -> Operation:
    """Record the event of a new operation, which `insertion` then inserts."""
    operation = msgspec.structs.replace(operation, resource_version=events.next_version(connection))
    _record(connection, operation, "ADDED")
    return operation


def insertion(announced: Sequence[Operation]) -> dict[Table, list[dict[str, Any]]]:
    """Return what `bulk.insert_all` takes to insert running operations that were announced."""
    return {table: [_new_row(one) for one in announced]}


def _new_row(operation: Operation) -> dict[str, Any]:
    values = {name: getattr(operation, name) for name in operation.__struct_fields__}
    phases = msgspec.to_builtins(operation.phases)
    version = operation.resource_version
    return values | {"error": None, "phases": phases, "created_version": version}


def enter(
    connection: Connection, generations: Mapping[str, int], phase: str, now: datetime
) -> None:
    """Begin a phase of every running operation of targets, by id, up to a generation of each.

    One that has passed the phase, and only does the work again, keeps its own.
    """
    begun = []
    for operation in _running(connection, generations):
        if _PROGRESS[phase] > _PROGRESS.get(operation.phase or "", 0):
            phases = (*_closed(operation, now), Phase(name=phase, started_at=now))[-MAX_PHASES:]
            progress = max(operation.progress, _PROGRESS[phase])
            changed = _replace(operation, phase=phase, phases=phases, progress=progress)
            begun.append(changed)
    save_all(connection, begun, now)


def note(
    connection: Connection,
    target_id: str,
    error: ErrorNote,
    now: datetime,
    *,
    up_to_generation: int,
) -> None:
    """Say why the running operations of a load balancer up to a generation haven't ended yet."""
    noted = []
    for operation in _running(connection, {target_id: up_to_generation}):
        known = operation.error
        if known is None or (known.code, known.message) != (error.code, error.message):
            noted.append(_replace(operation, error=error))
    save_all(connection, noted, now)


def progress(connection: Connection, target_id: str, percent: int, now: datetime) -> None:
    """Say how far the running operations of something are."""
    running = _running(connection, {target_id: 0})
    further = [_replace(one, progress=percent) for one in running if percent > one.progress]
    save_all(connection, further, now)


def save_all(connection: Connection, changed: Sequence[Operation], now: datetime) -> None:
    """Write how far operations are, each with its event."""
    rows = []
    for one in changed:
        version = events.next_version(connection)
        operation = _replace(one, updated_at=now, resource_version=version)
        _record(connection, operation, "MODIFIED")
        row = {name: getattr(operation, name) for name in _MOVING}
        row |= {name: msgspec.to_builtins(row[name]) for name in ("phases", "error")}
        rows.append(row | {"key": operation.id})
    if rows:
        connection.execute(_UPDATE, rows)


def is_running(connection: Connection, target_id: str, type: str) -> bool:
    """Say whether an operation of that type is under way on a resource."""
    row = connection.execute(
        select(table.c.id).where(
            table.c.target_id == target_id,
            table.c.status == OperationStatus.RUNNING,
            table.c.type == type,
        )
    ).first()
    return row is not None


def _closed(operation: Operation, now: datetime) -> tuple[Phase, ...]:
    return tuple(
        phase if phase.ended_at else msgspec.structs.replace(phase, ended_at=now)
        for phase in operation.phases
    )


def _running(connection: Connection, generations: Mapping[str, int]) -> list[Operation]:
    """Return what runs for these targets, up to a generation of each."""
    if not generations:
        return []
    found = map(_value, connection.execute(_RUNNING, {"of": list(generations)}))
    return [one for one in found if one.target_generation <= generations[one.target_id]]


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How the running operations of a target end, up to a generation of it."""

    up_to_generation: int
    status: OperationStatus
    error: ErrorNote | None = None


def end(connection: Connection, ends: Mapping[str, End], now: datetime) -> None:
    """End the running operations of targets, by id, each with its event.

    One that wanted an older generation than the one that succeeded ends as SUPERSEDED.
    """
    running = _running(connection, {id: one.up_to_generation for id, one in ends.items()})
    save_all(connection, [_ended(one, ends[one.target_id], now) for one in running], now)


def _ended(operation: Operation, how: End, now: datetime) -> Operation:
    succeeded = how.status is OperationStatus.SUCCEEDED
    superseded = succeeded and operation.target_generation < how.up_to_generation
    return _replace(
        operation,
        status=OperationStatus.SUPERSEDED if superseded else how.status,
        error=None if superseded else how.error,
        phase=None,
        phases=_closed(operation, now),
        progress=100 if succeeded else operation.progress,
        eta=None,
        ready_at=None,
    )


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


def all_running(connection: Connection) -> list[Operation]:
    """Return the operations of every project that haven't ended."""
    rows = connection.execute(
        select(*_COLUMNS).where(table.c.status == OperationStatus.RUNNING).order_by(table.c.id)
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


def listing(
    connection: Connection, project: str, page: listings.Page
) -> list[tuple[listings.Key, Operation]]:
    """Return a page of operations of a project with their keys."""
    found = listings.find(connection, table, project, page, Operation.__struct_fields__)
    return [(key, _value(row)) for key, row in found]


def by_ids(connection: Connection, project: str, ids: list[str]) -> list[Operation]:
    """Return the operations with these ids; those that aren't there are left out."""
    rows = connection.execute(
        select(*_COLUMNS).where(table.c.project == project, table.c.id.in_(ids))
    )
    return [_value(row) for row in rows]


def forget(connection: Connection, before: datetime) -> int:
    """Delete operations that ended before `before`; return how many."""
    return connection.execute(
        delete(table).where(table.c.status != OperationStatus.RUNNING, table.c.updated_at < before)
    ).rowcount
