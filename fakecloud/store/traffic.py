"""What load balancers carried: the latest totals of each listener, and sums by hour."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Integer, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from fakecloud.domain.traffic import HourPart, Totals
from fakecloud.model import Counters
from fakecloud.tables.cloud import load_balancer
from fakecloud.tables.traffic import runtime_view
from fakecloud.tables.traffic import usage_counter as counter
from fakecloud.tables.traffic import usage_hour as hour
from fakecloud.tables.traffic import usage_mark as mark

Key = tuple[str, str, str]
"""Load balancer, listener, epoch."""

_SUMS: Final = ("connections", "bytes_in", "bytes_out", "requests", "connection_us")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Which load balancer it is, and where it is meant to run."""

    id: str
    project: str
    name: str
    host: str | None
    deleted_at: datetime | None


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What the host that runs a load balancer saw of it last; `at` is wall time."""

    load_balancer_id: str
    host: str
    at: datetime
    counters: tuple[Counters, ...]
    configuration: str
    log: tuple[str, ...]


def places(connection: Connection, ids: Collection[str]) -> dict[str, Place]:
    """Return which of these load balancers there are, deleted ones too."""
    names = Place.__struct_fields__
    rows = connection.execute(
        select(*(load_balancer.c[name] for name in names)).where(load_balancer.c.id.in_(ids))
    )
    found = (Place(**dict(zip(names, row, strict=True))) for row in rows)
    return {place.id: place for place in found}


def totals(connection: Connection, ids: Collection[str]) -> dict[Key, Totals]:
    """Return the latest totals of these load balancers."""
    names = Totals.__struct_fields__
    rows = connection.execute(
        select(
            counter.c.load_balancer_id,
            counter.c.listener,
            counter.c.epoch,
            *(counter.c[name] for name in names),
        ).where(counter.c.load_balancer_id.in_(ids))
    )
    return {tuple(row[:3]): Totals(**dict(zip(names, row[3:], strict=True))) for row in rows}


def save_totals(connection: Connection, news: Iterable[tuple[Key, Totals]]) -> None:
    """Replace the latest totals."""
    names = Totals.__struct_fields__
    values = [
        {
            "load_balancer_id": key[0],
            "listener": key[1],
            "epoch": key[2],
            **{name: getattr(one, name) for name in names},
        }
        for key, one in news
    ]
    if not values:
        return
    statement = _insert(connection, counter)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[counter.c.load_balancer_id, counter.c.listener, counter.c.epoch],
            set_={name: statement.excluded[name] for name in names},
        ),
        values,
    )


def add_hours(connection: Connection, carried: Collection[tuple[str, Key, HourPart]]) -> None:
    """Add what hours of projects' load balancers carried, and mark the hours."""
    values = [
        {
            "load_balancer_id": key[0],
            "listener": key[1],
            "project": project,
            **msgspec.structs.asdict(part),
        }
        for project, key, part in carried
    ]
    if not values:
        return
    statement = _insert(connection, hour)
    sums: dict[str, Any] = {name: hour.c[name] + statement.excluded[name] for name in _SUMS}
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[hour.c.load_balancer_id, hour.c.listener, hour.c.hour],
            set_=sums | {"estimated": or_(hour.c.estimated, statement.excluded.estimated)},
        ),
        values,
    )
    marked = _insert(connection, mark)
    connection.execute(
        marked.on_conflict_do_update(
            index_elements=[mark.c.project, mark.c.hour], set_={"marks": mark.c.marks + 1}
        ),
        [
            {"project": project, "hour": at, "marks": 1}
            for project, at in sorted({(project, part.hour) for project, _, part in carried})
        ],
    )


def marks(connection: Connection, project: str, start: datetime, end: datetime) -> int:
    """Return a number that grows with everything that is added to hours in [start, end)."""
    total = select(func.coalesce(func.sum(mark.c.marks), 0)).where(
        mark.c.project == project, mark.c.hour >= start, mark.c.hour < end
    )
    return int(connection.execute(total).scalar_one())


def hours(connection: Connection, load_balancer_id: str) -> list[tuple[str, HourPart]]:
    """Return what each listener of a load balancer carried, hour by hour."""
    names = HourPart.__struct_fields__
    rows = connection.execute(
        select(hour.c.listener, *(hour.c[name] for name in names))
        .where(hour.c.load_balancer_id == load_balancer_id)
        .order_by(hour.c.hour, hour.c.listener)
    )
    return [(row[0], HourPart(**dict(zip(names, row[1:], strict=True)))) for row in rows]


def save_view(connection: Connection, view: View) -> None:
    """Replace what was seen of a load balancer."""
    values = msgspec.structs.asdict(view) | {
        "counters": msgspec.to_builtins(view.counters),
        "log": list(view.log),
    }
    statement = _insert(connection, runtime_view).values(values)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[runtime_view.c.load_balancer_id], set_=values
        )
    )


def view(connection: Connection, load_balancer_id: str) -> View | None:
    """Return what was seen of a load balancer last."""
    names = View.__struct_fields__
    row = connection.execute(
        select(*(runtime_view.c[name] for name in names)).where(
            runtime_view.c.load_balancer_id == load_balancer_id
        )
    ).first()
    if row is None:
        return None
    return msgspec.convert(dict(zip(names, row, strict=True)), View)


def forget(connection: Connection, *, hours_before: datetime, gone_before: datetime) -> None:
    """Delete old hours, and the rest of what belongs to load balancers deleted long ago."""
    for table in (hour, mark):
        connection.execute(delete(table).where(table.c.hour < hours_before))
    gone = select(load_balancer.c.id).where(load_balancer.c.deleted_at < gone_before)
    for table in (counter, runtime_view):
        connection.execute(delete(table).where(table.c.load_balancer_id.in_(gone)))


def carried_since(connection: Connection, project: str, start: datetime) -> list[Carried]:
    """Return what a project's load balancers carried in hours that begin at `start` or later."""
    rows = connection.execute(
        select(
            hour.c.load_balancer_id,
            hour.c.hour,
            *(func.sum(hour.c[name]).label(name) for name in _SUMS),
            func.max(hour.c.estimated.cast(Integer)).label("estimated"),
        )
        .where(hour.c.project == project, hour.c.hour >= start)
        .group_by(hour.c.load_balancer_id, hour.c.hour)
        .order_by(hour.c.load_balancer_id, hour.c.hour)
    )
    return [_carried(row) for row in rows]


def _insert(connection: Connection, table: Any) -> Any:
    sqlite = connection.dialect.name == "sqlite"
    return sqlite_insert(table) if sqlite else postgresql_insert(table)


class Carried(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What all listeners of a load balancer carried in an hour together."""

    load_balancer_id: str
    hour: datetime
    connections: int
    bytes_in: int
    bytes_out: int
    requests: int
    connection_us: int
    estimated: bool


def carried_in_all(
    connection: Connection, ids: Collection[str], start: datetime, end: datetime
) -> list[Carried]:
    """Return what each carried in all hours that begin in [start, end), as in the first hour."""
    if start >= end:
        return []
    rows = connection.execute(
        select(
            hour.c.load_balancer_id,
            *(func.sum(hour.c[name]).label(name) for name in _SUMS),
            func.max(hour.c.estimated.cast(Integer)).label("estimated"),
        )
        .where(hour.c.load_balancer_id.in_(ids), hour.c.hour >= start, hour.c.hour < end)
        .group_by(hour.c.load_balancer_id)
    )
    return [
        Carried(
            load_balancer_id=row.load_balancer_id,
            hour=start,
            estimated=bool(row.estimated),
            **{name: int(getattr(row, name)) for name in _SUMS},
        )
        for row in rows
    ]


def carried(
    connection: Connection, ids: Collection[str], start: datetime, end: datetime
) -> list[Carried]:
    """Return what these load balancers carried in hours that begin in [start, end), in order."""
    if start >= end:
        return []
    rows = connection.execute(
        select(
            hour.c.load_balancer_id,
            hour.c.hour,
            *(func.sum(hour.c[name]).label(name) for name in _SUMS),
            func.max(hour.c.estimated.cast(Integer)).label("estimated"),
        )
        .where(hour.c.load_balancer_id.in_(ids), hour.c.hour >= start, hour.c.hour < end)
        .group_by(hour.c.load_balancer_id, hour.c.hour)
        .order_by(hour.c.load_balancer_id, hour.c.hour)
    )
    return [_carried(row) for row in rows]


def _carried(row: Any) -> Carried:
    return Carried(
        load_balancer_id=row[0],
        hour=row[1],
        connections=int(row[2]),
        bytes_in=int(row[3]),
        bytes_out=int(row[4]),
        requests=int(row[5]),
        connection_us=int(row[6]),
        estimated=bool(row[7]),
    )
