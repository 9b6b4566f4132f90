"""How many of each kind a project has, and may have: counters changed by conditional updates."""

from __future__ import annotations

import msgspec
from sqlalchemy import BigInteger, Connection, bindparam, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.sql import func, or_

from fakecloud.tables.access import quota as table

_LIMIT = func.coalesce(table.c.most, bindparam("standard", type_=BigInteger))
_TAKE = (
    update(table)
    .where(
        table.c.project == bindparam("of"),
        table.c.metric == bindparam("which"),
        or_(_LIMIT.is_(None), table.c.used + bindparam("count") <= _LIMIT),
    )
    .values(used=table.c.used + bindparam("count"))
)


class Counter(msgspec.Struct, frozen=True, kw_only=True):
    """`most` is the limit that somebody set for this project, None if nobody did."""

    metric: str
    most: int | None
    used: int


def take(connection: Connection, project: str, metric: str, count: int, most: int | None) -> bool:
    """Count `count` more if that stays within the limit; False if not.

    `most` is the limit where none was set for the project; None: unlimited.
    """
    values = {"of": project, "which": metric, "count": count, "standard": most}
    if connection.execute(_TAKE, values).rowcount:
        return True
    if find(connection, project, metric) is not None:
        return False
    _ensure(connection, project, metric)
    return bool(connection.execute(_TAKE, values).rowcount)


def give_back(connection: Connection, project: str, metric: str, count: int = 1) -> None:
    """Count `count` less; never below nothing."""
    connection.execute(
        update(table)
        .where(table.c.project == project, table.c.metric == metric, table.c.used >= count)
        .values(used=table.c.used - count)
    )


def find(connection: Connection, project: str, metric: str) -> Counter | None:
    """Return a counter, None if it was never used."""
    row = connection.execute(
        select(table.c.metric, table.c.most, table.c.used).where(
            table.c.project == project, table.c.metric == metric
        )
    ).first()
    return None if row is None else Counter(metric=row.metric, most=row.most, used=row.used)


def of_project(connection: Connection, project: str) -> dict[str, Counter]:
    """Return the counters of a project by metric."""
    rows = connection.execute(
        select(table.c.metric, table.c.most, table.c.used).where(table.c.project == project)
    )
    return {row.metric: Counter(metric=row.metric, most=row.most, used=row.used) for row in rows}


def set_most(connection: Connection, project: str, metric: str, most: int | None) -> None:
    """Set the limit of a project; None: as if nobody had set one."""
    _ensure(connection, project, metric)
    connection.execute(
        update(table).where(table.c.project == project, table.c.metric == metric).values(most=most)
    )


def _ensure(connection: Connection, project: str, metric: str) -> None:
    insert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    connection.execute(
        insert(table)
        .values(project=project, metric=metric, most=None, used=0)
        .on_conflict_do_nothing()
    )
