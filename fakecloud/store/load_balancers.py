"""Rows of load balancers. Every saved change takes a resource version and leaves an event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from fakecloud.domain import documents
from fakecloud.model import LoadBalancer, Operation, PoolKey, State
from fakecloud.store import events, listings, operations, quotas
from fakecloud.tables.cloud import address
from fakecloud.tables.cloud import load_balancer as table

_COLUMNS = tuple(getattr(table.c, name) for name in LoadBalancer.__struct_fields__)

# Made once, values come as parameters: making them costs several times what they do.
# In no order: to keep one, SQLite is given every row by a statement of its own.
_INSERT = insert(table).returning(table.c.id, table.c.pk)
_UPDATE = update(table).where(table.c.pk == bindparam("key"))
_FIND = select(*_COLUMNS).where(table.c.project == bindparam("of"), table.c.deleted_at.is_(None))
_FINDS = {
    (by_id, locked): statement.with_for_update() if locked else statement
    for by_id, statement in (
        (False, _FIND.where(table.c.name == bindparam("called"))),
        (True, _FIND.where(table.c.id == bindparam("called"))),
    )
    for locked in (False, True)
}
_BY_NAMES = _FIND.where(table.c.name.in_(bindparam("called", expanding=True)))
_GET = select(*_COLUMNS).where(table.c.pk == bindparam("key")).with_for_update()
_HELD = tuple_(table.c.pk, table.c.lease_epoch).in_(bindparam("leases", expanding=True))
_RELEASE = (
    update(table).where(_HELD).values(lease_owner=None, lease_until=None).returning(*_COLUMNS)
)


def _key(pools: Collection[PoolKey] | None) -> tuple[PoolKey, ...] | None:
    return None if pools is None else tuple(sorted(pools))


@cache
def _due(pools: tuple[PoolKey, ...] | None) -> Select[Any]:
    """Return the query for the load balancers due longest of those that a host may claim."""
    nobodys: ColumnElement[bool] = table.c.host.is_(None)
    if pools is not None:
        place = tuple_(address.c.pool, address.c.family)
        elsewhere = select(address.c.ip).where(
            address.c.load_balancer_id == table.c.id, place.not_in(pools)
        )
        nobodys = and_(nobodys, ~elsewhere.exists())
    return (
        select(*_COLUMNS)
        .where(
            or_(nobodys, table.c.host == bindparam("to")),
            table.c.due_at <= bindparam("at"),
            # One that is leased is due when its lease ends: its worker may have died.
            or_(table.c.lease_until.is_(None), table.c.lease_until < bindparam("at")),
        )
        .order_by(table.c.due_at)
        .limit(bindparam("most"))
    )


@cache
def _claimable(pools: tuple[PoolKey, ...] | None) -> Select[Any]:
    return _due(pools).with_for_update(skip_locked=True)


@cache
def _is_due(pools: tuple[PoolKey, ...] | None) -> Select[tuple[int]]:
    return _due(pools).with_only_columns(table.c.pk)


def _value(row: Row[Any]) -> LoadBalancer:
    return msgspec.convert(
        dict(zip(LoadBalancer.__struct_fields__, row, strict=True)), LoadBalancer
    )


def _values(lb: LoadBalancer) -> dict[str, Any]:
    return {name: getattr(lb, name) for name in lb.__struct_fields__}


def create(
    connection: Connection, made: Sequence[tuple[LoadBalancer, Operation]]
) -> list[LoadBalancer]:
    """Insert load balancers, each with the operation that creates it and the events of both.

    Returns them with `pk` and `resource_version` set.
    """
    balancers, started = [], []
    for lb, operation in made:
        new = msgspec.structs.replace(lb, resource_version=events.next_version(connection))
        _record(connection, new, "ADDED")
        balancers.append(new)
        started.append(operations.announce(connection, operation))
    rows = [_values(lb) for lb in balancers]
    for row in rows:
        del row["pk"]
    pks = {row.id: row.pk for row in connection.execute(_INSERT, rows)}
    operations.insert_all(connection, started)
    return [msgspec.structs.replace(lb, pk=pks[lb.id]) for lb in balancers]


def save(connection: Connection, lb: LoadBalancer, now: datetime) -> LoadBalancer:
    """Write one load balancer, as `save_all` does."""
    return save_all(connection, [lb], now)[0]


def save_all(
    connection: Connection, changed: Sequence[LoadBalancer], now: datetime
) -> list[LoadBalancer]:
    """Write each with its event; return them with the new `resource_version` and `updated_at`.

    The event is DELETED when the state is, else MODIFIED; the quota then gets it back. The caller
    read them in the same transaction (`for_update`), so nothing is overwritten.
    """
    if not changed:
        return []
    saved = []
    for one in changed:
        version = events.next_version(connection)
        lb = msgspec.structs.replace(one, resource_version=version, updated_at=now)
        _record(connection, lb, "DELETED" if lb.state is State.DELETED else "MODIFIED")
        saved.append(lb)
    rows = [_values(lb) for lb in saved]
    for row in rows:
        row["key"] = row.pop("pk")
    connection.execute(_UPDATE, rows)
    gone = Counter(lb.project for lb in saved if lb.state is State.DELETED)
    for project, count in gone.items():
        quotas.give_back(connection, project, "load_balancers", count)
    return saved


def begin(connection: Connection, lb: LoadBalancer, type: str, now: datetime) -> LoadBalancer:
    """Save `lb` with a new operation of that type, under way."""
    operation = operations.new(lb.project, type, lb.name, lb.id, lb.generation, now)
    saved = save(connection, msgspec.structs.replace(lb, operation=operation.id), now)
    operations.start(connection, operation)
    return saved


def _record(connection: Connection, lb: LoadBalancer, type: str) -> None:
    events.append(
        connection,
        resource_version=lb.resource_version,
        project=lb.project,
        type=type,
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
    return None if row is None else _value(row)


def get(connection: Connection, pk: int) -> LoadBalancer | None:
    """Return the load balancer with that key, locked until the transaction ends."""
    row = connection.execute(_GET, {"key": pk}).first()
    return None if row is None else _value(row)


def by_id(connection: Connection, id: str) -> LoadBalancer | None:
    """Return the load balancer with that id, locked until the transaction ends."""
    row = connection.execute(select(*_COLUMNS).where(table.c.id == id).with_for_update()).first()
    return None if row is None else _value(row)


def page(connection: Connection, project: str, *, after: int, limit: int) -> list[LoadBalancer]:
    """Return up to `limit` living load balancers of a project with a key above `after`."""
    rows = connection.execute(
        select(*_COLUMNS)
        .where(table.c.project == project, table.c.deleted_at.is_(None), table.c.pk > after)
        .order_by(table.c.pk)
        .limit(limit)
    )
    return [_value(row) for row in rows]


def listing(
    connection: Connection, project: str, page: listings.Page
) -> list[tuple[listings.Key, LoadBalancer]]:
    """Return a page of living load balancers of a project with their keys."""
    found = listings.find(connection, table, project, page, LoadBalancer.__struct_fields__)
    return [(key, _value(row)) for key, row in found]


def by_names(connection: Connection, project: str, names: list[str]) -> list[LoadBalancer]:
    """Return the living load balancers of these names; those that aren't there are left out."""
    rows = connection.execute(_BY_NAMES, {"of": project, "called": names})
    return [_value(row) for row in rows]


def living(connection: Connection, project: str | None = None) -> list[LoadBalancer]:
    """Return every load balancer that isn't deleted, of one project or of all."""
    statement = select(*_COLUMNS).where(table.c.deleted_at.is_(None)).order_by(table.c.pk)
    if project is not None:
        statement = statement.where(table.c.project == project)
    return [_value(row) for row in connection.execute(statement)]


def mentioning(connection: Connection, text: str) -> list[LoadBalancer]:
    """Return every living load balancer with a label or annotation that has `text` in it."""
    texts = (cast(table.c.labels, Text), cast(table.c.annotations, Text))
    found = connection.execute(
        select(*_COLUMNS).where(
            table.c.deleted_at.is_(None),
            or_(*(one.contains(text, autoescape=True) for one in texts)),
        )
    )
    return [_value(row) for row in found]


def each_living(connection: Connection) -> Iterator[LoadBalancer]:
    """Yield every load balancer that isn't deleted; some at a time are in memory."""
    statement = select(*_COLUMNS).where(table.c.deleted_at.is_(None)).order_by(table.c.pk)
    for row in connection.execute(statement, execution_options={"yield_per": 500}):
        yield _value(row)


def claim(
    connection: Connection,
    host: str,
    owner: str,
    now: datetime,
    lease_s: float,
    pools: Collection[PoolKey] | None = None,
    *,
    most: int,
) -> list[LoadBalancer]:
    """Lease up to `most` load balancers, those due longest, each with a new epoch.

    They are of `host`, or of none with addresses all of `pools` (None: of any), and `host`'s from
    then on. On PostgreSQL rows that another worker is just claiming are skipped.
    """
    found = connection.execute(_claimable(_key(pools)), {"to": host, "at": now, "most": most})
    claimed = [
        msgspec.structs.replace(lb, host=host, lease_epoch=lb.lease_epoch + 1)
        for lb in map(_value, found)
    ]
    if claimed:
        lease = {
            "host": host,
            "lease_owner": owner,
            "lease_until": now + timedelta(seconds=lease_s),
        }
        rows = [{"key": lb.pk, "lease_epoch": lb.lease_epoch, **lease} for lb in claimed]
        connection.execute(_UPDATE, rows)
    return claimed


def release(connection: Connection, leases: Collection[tuple[int, int]]) -> dict[int, LoadBalancer]:
    """End leases, given as (key, epoch); return by key those that were still held.

    Of the others a newer epoch exists. The rows are locked until the transaction ends.
    """
    found = map(_value, connection.execute(_RELEASE, {"leases": list(leases)}))
    return {lb.pk: lb for lb in found}


def leased(connection: Connection, pk: int, now: datetime) -> bool:
    """Say whether a worker holds the load balancer at `now` (wall time)."""
    held = select(table.c.pk).where(table.c.pk == pk, table.c.lease_until > now)
    return connection.execute(held).first() is not None


def put_off(connection: Connection, pk: int, due_at: datetime) -> None:
    """Let the row be due at `due_at` (wall time): no change that anybody would see."""
    connection.execute(update(table).where(table.c.pk == pk).values(due_at=due_at))


def release_all(connection: Connection, owner: str) -> None:
    """End every lease that an earlier life of `owner` held: its work died with it."""
    connection.execute(
        update(table).where(table.c.lease_owner == owner).values(lease_owner=None, lease_until=None)
    )


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
        select(*_COLUMNS)
        .where(table.c.host == host, table.c.deleted_at.is_(None))
        .order_by(table.c.pk)
        .limit(limit)
        .with_for_update()
    )
    return [_value(row) for row in rows]


def free(connection: Connection, pk: int) -> None:
    """Take a load balancer from its host and its worker, whose writes are void from now on."""
    connection.execute(
        update(table)
        .where(table.c.pk == pk)
        .values(host=None, lease_owner=None, lease_until=None, lease_epoch=table.c.lease_epoch + 1)
    )


def renew(
    connection: Connection, leases: Collection[tuple[int, int]], owner: str, until: datetime
) -> int:
    """Lengthen leases, given as (key, epoch), that `owner` still has; return how many."""
    renewed = update(table).where(_HELD, table.c.lease_owner == owner).values(lease_until=until)
    return connection.execute(renewed, {"leases": list(leases)}).rowcount


def count_by_host(connection: Connection) -> dict[str, int]:
    """Return how many living load balancers each host has."""
    rows = connection.execute(
        select(table.c.host, func.count())
        .where(table.c.deleted_at.is_(None), table.c.host.is_not(None))
        .group_by(table.c.host)
    )
    return {row.host: row[1] for row in rows}


def is_due(
    connection: Connection, host: str, now: datetime, pools: Collection[PoolKey] | None = None
) -> bool:
    """Say whether `host` can `claim` a load balancer at `now` (wall time)."""
    values = {"to": host, "at": now, "most": 1}
    return connection.execute(_is_due(_key(pools)), values).first() is not None


def count_by_state(connection: Connection) -> dict[str, int]:
    """Return how many living load balancers are in each state."""
    rows = connection.execute(
        select(table.c.state, func.count())
        .where(table.c.deleted_at.is_(None))
        .group_by(table.c.state)
    )
    return {row.state: row[1] for row in rows}
