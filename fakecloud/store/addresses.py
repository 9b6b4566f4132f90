"""Which address belongs to which load balancer; a released one rests before it is given again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from fakecloud.model import Address
from fakecloud.store import bulk, reservations
from fakecloud.tables.cloud import address as table
from fakecloud.tables.cloud import load_balancer

_LAST_GIVEN = (
    select(table.c.ip)
    .where(table.c.pool == bindparam("of"), table.c.family == bindparam("kind"))
    .order_by(table.c.given_at.desc())
    .limit(1)
)
_TAKEN = select(table.c.ip).where(
    or_(
        table.c.load_balancer_id.is_not(None),
        table.c.reserved,
        table.c.released_at > bindparam("since"),
    )
)
_IS_TAKEN = _TAKEN.where(table.c.ip == bindparam("which"))
_ALL_TAKEN = _TAKEN.where(table.c.pool == bindparam("of"), table.c.family == bindparam("kind"))

_SOME_TAKEN = _ALL_TAKEN.where(table.c.ip.in_(bindparam("some", expanding=True)))


_GIVEN: Final = ("ip", "pool", "family", "load_balancer_id", "given_at", "released_at")


def _upsert(inserted: sqlite.Insert | postgresql.Insert) -> Any:
    """Return the statement that gives an address which is new or belongs to nobody."""
    return inserted.on_conflict_do_update(
        index_elements=[table.c.ip],
        set_={name: inserted.excluded[name] for name in _GIVEN[1:]},
        where=table.c.load_balancer_id.is_(None),
    ).returning(table.c.ip, table.c.reserved)


_GIVE: Final = {
    "sqlite": _upsert(sqlite.insert(table)),
    "postgresql": _upsert(
        postgresql.insert(table).from_select(_GIVEN, bulk.selection(table, _GIVEN))
    ),
}


_TAKE_BACK: Final = (
    update(table)
    .where(tuple_(table.c.ip, table.c.load_balancer_id).in_(bindparam("held", expanding=True)))
    .values(load_balancer_id=None, released_at=bindparam("at"))
    .returning(table.c.ip, table.c.reserved)
)


def last_given(connection: Connection, pool: str, family: str) -> str | None:
    """Return the address given most recently from a pool."""
    values = {"of": pool, "kind": family}
    ip: str | None = connection.execute(_LAST_GIVEN, values).scalar_one_or_none()
    return ip


def is_taken(connection: Connection, ip: str, rested_since: datetime) -> bool:
    """Say whether `ip` belongs to or is kept by somebody, or was released after `rested_since`."""
    return connection.execute(_IS_TAKEN, {"which": ip, "since": rested_since}).first() is not None


def taken(
    connection: Connection,
    pool: str,
    family: str,
    rested_since: datetime,
    among: Sequence[str] | None = None,
) -> frozenset[str]:
    """Return the addresses of a pool of which `is_taken` is true, all or `among` some."""
    values: dict[str, Any] = {"of": pool, "kind": family, "since": rested_since}
    if among is None:
        return frozenset(connection.execute(_ALL_TAKEN, values).scalars())
    return frozenset(connection.execute(_SOME_TAKEN, values | {"some": among}).scalars())


def owner(connection: Connection, ip: str) -> str | None:
    """Return the id of the load balancer that has `ip`."""
    id: str | None = connection.execute(
        select(table.c.load_balancer_id).where(table.c.ip == ip)
    ).scalar_one_or_none()
    return id


def give(connection: Connection, given: Sequence[tuple[Address, str]], now: datetime) -> bool:
    """Give free addresses to load balancers; False if somebody else was faster with any."""
    rows = [
        dict(zip(_GIVEN, (one.ip, one.pool, one.family, owner, now, None), strict=True))
        for one, owner in given
    ]
    kind = connection.dialect.name
    values: Any = rows if kind == "sqlite" else {bulk.ROWS: bulk.encoded(rows)}
    done = connection.execute(_GIVE[kind], values).all()
    reserved = [row.ip for row in done if row.reserved]
    if reserved:
        reservations.touched(connection, reserved, now)
    return len(done) == len(given)


def of_deleted(connection: Connection) -> list[tuple[str, str]]:
    """Return (load balancer id, ip) of addresses whose load balancer is deleted."""
    rows = connection.execute(
        select(table.c.load_balancer_id, table.c.ip)
        .join(load_balancer, table.c.load_balancer_id == load_balancer.c.id)
        .where(load_balancer.c.deleted_at.is_not(None))
        .order_by(table.c.ip)
    )
    return [(row.load_balancer_id, row.ip) for row in rows]


def take_back(connection: Connection, held: Sequence[tuple[str, str]], now: datetime) -> None:
    """Release addresses, given as (ip, id of the load balancer), which still have that owner."""
    released = connection.execute(_TAKE_BACK, {"held": list(held), "at": now}).all()
    kept = [row.ip for row in released if row.reserved]
    if kept:
        reservations.touched(connection, kept, now)
