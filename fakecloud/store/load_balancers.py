"""Rows of load balancers. Every saved change takes a resource version and leaves an event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Row,
    Select,
    Text,
    bindparam,
    cast,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.sql.selectable import TableValuedAlias

from fakecloud.domain import documents
from fakecloud.model import LoadBalancer, Operation, State
from fakecloud.store import bulk, events, listings, operations, quotas
from fakecloud.tables.cloud import load_balancer as table

COLUMNS = tuple(getattr(table.c, name) for name in LoadBalancer.__struct_fields__)

# Made once, values come as parameters: making them costs several times what they do.
_KEYS = select(table.c.id, table.c.pk).where(table.c.id.in_(bindparam("ids", expanding=True)))
_UPDATE = update(table).where(table.c.pk == bindparam("key"))
_FIND = select(*COLUMNS).where(table.c.project == bindparam("of"), table.c.deleted_at.is_(None))
_FINDS = {
    (by_id, locked): statement.with_for_update() if locked else statement
    for by_id, statement in (
        (False, _FIND.where(table.c.name == bindparam("called"))),
        (True, _FIND.where(table.c.id == bindparam("called"))),
    )
    for locked in (False, True)
}
_BY_NAMES = _FIND.where(table.c.name.in_(bindparam("called", expanding=True)))
_BY_NAMES_LOCKED = _BY_NAMES.with_for_update()


def _taken(given: TableValuedAlias) -> Select[tuple[str]]:
    """Return the query for those `given` names that a living load balancer has.

    A look into the index for each. A plain IN lets PostgreSQL read all of a project instead, as
    long as it doesn't know how large the table has become.
    """
    found = select(table.c.pk).where(
        table.c.project == bindparam("of"),
        table.c.name == given.c.value,
        table.c.deleted_at.is_(None),
    )
    return select(given.c.value).where(found.scalar_subquery().is_not(None))


_NAMES = cast(bindparam("names", type_=Text), JSON)
_TAKEN = {
    "sqlite": _taken(func.json_each(bindparam("names", type_=Text)).table_valued("value")),
    "postgresql": _taken(func.json_array_elements_text(_NAMES).table_valued("value")),
}
_GET = select(*COLUMNS).where(table.c.pk == bindparam("key")).with_for_update()


def value(row: Row[Any]) -> LoadBalancer:
    """Return the load balancer of a row of `COLUMNS`."""
    return msgspec.convert(
        dict(zip(LoadBalancer.__struct_fields__, row, strict=True)), LoadBalancer
    )


def _values(lb: LoadBalancer) -> dict[str, Any]:
    return {name: getattr(lb, name) for name in lb.__struct_fields__}


def create(
    connection: Connection, made: Sequence[tuple[LoadBalancer, Operation | None]]
) -> list[LoadBalancer]:
    """Insert load balancers, each with the operation that begins, if one does, and their events.

    Returns them with `pk` and `resource_version` set.
    """
    if not made:
        return []
    balancers, started = _announce(connection, made)
    rows = [_values(lb) for lb in balancers]
    for row in rows:
        del row["pk"]
    bulk.insert_all(connection, {table: rows} | operations.insertion(started))
    ids = [lb.id for lb in balancers]
    pks = {row.id: row.pk for row in connection.execute(_KEYS, {"ids": ids})}
    return [msgspec.structs.replace(lb, pk=pks[lb.id]) for lb in balancers]


def save(connection: Connection, lb: LoadBalancer, now: datetime) -> LoadBalancer:
    """Write one load balancer, as `save_all` does."""
    return save_all(connection, [lb], now)[0]


def save_all(
    connection: Connection, changed: Sequence[LoadBalancer], now: datetime
) -> list[LoadBalancer]:
    """Write each with its event, as `change_all` does; no operation begins."""
    return change_all(connection, [(lb, None) for lb in changed], now)


def change_all(
    connection: Connection, changed: Sequence[tuple[LoadBalancer, Operation | None]], now: datetime
) -> list[LoadBalancer]:
    """Write each with its event, and with the operation that begins, if one does, and its event.

    Returns them with the new `resource_version` and `updated_at`. The event is DELETED when the
    state is, else MODIFIED; the quota then gets it back. The caller read them in the same
    transaction (`for_update`), so nothing is overwritten.
    """
    if not changed:
        return []
    updated = [(msgspec.structs.replace(lb, updated_at=now), began) for lb, began in changed]
    saved, started = _announce(connection, updated)
    rows = [_values(lb) for lb in saved]
    for row in rows:
        row["key"] = row.pop("pk")
    connection.execute(_UPDATE, rows)
    bulk.insert_all(connection, operations.insertion(started))
    gone = Counter(lb.project for lb in saved if lb.state is State.DELETED)
    for project, count in gone.items():
        quotas.give_back(connection, project, "load_balancers", count)
    return saved


def begin(connection: Connection, lb: LoadBalancer, type: str, now: datetime) -> LoadBalancer:
    """Save `lb` with a new operation of that type, under way."""
    operation = operations.new(lb.project, type, lb.name, lb.id, lb.generation, now)
    begun = msgspec.structs.replace(lb, operation=operation.id)
    return change_all(connection, [(begun, operation)], now)[0]


def _announce(
    connection: Connection, changes: Sequence[tuple[LoadBalancer, Operation | None]]
) -> tuple[list[LoadBalancer], list[Operation]]:
    """Record an event of each load balancer, and after it one of the operation that begins.

    Returns both with the resource versions of their events.
    """
    balancers, started = [], []
    for one, operation in changes:
        lb = msgspec.structs.replace(one, resource_version=events.next_version(connection))
        _record(connection, lb)
        balancers.append(lb)
        if operation is not None:
            started.append(operations.announce(connection, operation))
    return balancers, started


def _record(connection: Connection, lb: LoadBalancer) -> None:
    kept = "DELETED" if lb.state is State.DELETED else "MODIFIED"
    events.append(
        connection,
        resource_version=lb.resource_version,
        project=lb.project,
        type=kept if lb.pk else "ADDED",
        kind="load_balancer",
        object_id=lb.id,
        document=documents.load_balancer(lb),
        at=lb.updated_at,
    )


def find(
    connection: Connection, project: str, name: str, *, for_update: bool = False
) -> LoadBalancer | None:
    """Return the living load balancer of that name or id, None if there is none.

    Every id has a "_" and no name has: asking for either would read all rows of the project.
    """
    statement = _FINDS["_" in name, for_update]
    row = connection.execute(statement, {"of": project, "called": name}).first()
    return None if row is None else value(row)


def get(connection: Connection, pk: int) -> LoadBalancer | None:
    """Return the load balancer with that key, locked until the transaction ends."""
    row = connection.execute(_GET, {"key": pk}).first()
    return None if row is None else value(row)


def by_id(connection: Connection, id: str) -> LoadBalancer | None:
    """Return the load balancer with that id, locked until the transaction ends."""
    row = connection.execute(select(*COLUMNS).where(table.c.id == id).with_for_update()).first()
    return None if row is None else value(row)


def listing(
    connection: Connection, project: str, page: listings.Page
) -> list[tuple[listings.Key, LoadBalancer]]:
    """Return a page of living load balancers of a project with their keys."""
    found = listings.find(connection, table, project, page, LoadBalancer.__struct_fields__)
    return [(key, value(row)) for key, row in found]


def taken(connection: Connection, project: str, names: Sequence[str]) -> frozenset[str]:
    """Return which of these names living load balancers of a project have."""
    values = {"of": project, "names": msgspec.json.encode(names).decode()}
    found = connection.execute(_TAKEN[connection.dialect.name], values)
    return frozenset(row.value for row in found)


def by_names(
    connection: Connection, project: str, names: Collection[str], *, for_update: bool = False
) -> list[LoadBalancer]:
    """Return the living load balancers of these names; those that aren't there are left out."""
    statement = _BY_NAMES_LOCKED if for_update else _BY_NAMES
    rows = connection.execute(statement, {"of": project, "called": sorted(names)})
    return [value(row) for row in rows]


def living(connection: Connection, project: str | None = None) -> list[LoadBalancer]:
    """Return every load balancer that isn't deleted, of one project or of all."""
    statement = select(*COLUMNS).where(table.c.deleted_at.is_(None)).order_by(table.c.pk)
    if project is not None:
        statement = statement.where(table.c.project == project)
    return [value(row) for row in connection.execute(statement)]


def mentioning(connection: Connection, text: str) -> list[LoadBalancer]:
    """Return every living load balancer with a label or annotation that has `text` in it."""
    texts = (cast(table.c.labels, Text), cast(table.c.annotations, Text))
    found = connection.execute(
        select(*COLUMNS).where(
            table.c.deleted_at.is_(None),
            or_(*(one.contains(text, autoescape=True) for one in texts)),
        )
    )
    return [value(row) for row in found]


def each_living(connection: Connection) -> Iterator[LoadBalancer]:
    """Yield every load balancer that isn't deleted; some at a time are in memory."""
    statement = select(*COLUMNS).where(table.c.deleted_at.is_(None)).order_by(table.c.pk)
    for row in connection.execute(statement, execution_options={"yield_per": 500}):
        yield value(row)


def moved(connection: Connection, host: str, ids: Collection[str]) -> dict[str, int]:
    """Return which of these load balancers another host has, or had last, with their epochs."""
    return _epochs(connection, ids, table.c.host != host)


def deleted_among(connection: Connection, ids: Collection[str]) -> dict[str, int]:
    """Return which of these load balancers are deleted, with their epochs."""
    return _epochs(connection, ids, table.c.deleted_at.is_not(None))


def _epochs(
    connection: Connection, ids: Collection[str], condition: ColumnElement[bool]
) -> dict[str, int]:
    found: dict[str, int] = {}
    wanted = list(ids)
    for start in range(0, len(wanted), 500):
        some = wanted[start : start + 500]
        rows = connection.execute(
            select(table.c.id, table.c.lease_epoch).where(table.c.id.in_(some), condition)
        )
        found |= {row.id: row.lease_epoch for row in rows}
    return found


def place(connection: Connection, before: str | None, host: str) -> None:
    """Say that what `before` ran, or nobody, is run by `host`."""
    is_before = table.c.host.is_(None) if before is None else table.c.host == before
    connection.execute(update(table).where(is_before, table.c.was_active).values(host=host))


def of_host(connection: Connection, host: str, limit: int) -> list[LoadBalancer]:
    """Return up to `limit` living load balancers placed on a host."""
    rows = connection.execute(
        select(*COLUMNS)
        .where(table.c.host == host, table.c.deleted_at.is_(None))
        .order_by(table.c.pk)
        .limit(limit)
        .with_for_update()
    )
    return [value(row) for row in rows]


def count_by_host(connection: Connection) -> dict[str, int]:
    """Return how many living load balancers each host has."""
    rows = connection.execute(
        select(table.c.host, func.count())
        .where(table.c.deleted_at.is_(None), table.c.host.is_not(None))
        .group_by(table.c.host)
    )
    return {row.host: row[1] for row in rows}


def count_by_state(connection: Connection) -> dict[str, int]:
    """Return how many living load balancers are in each state."""
    rows = connection.execute(
        select(table.c.state, func.count())
        .where(table.c.deleted_at.is_(None))
        .group_by(table.c.state)
    )
    return {row.state: row[1] for row in rows}
