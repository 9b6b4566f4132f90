"""Which address belongs to which load balancer; a released one rests before it is given again."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, or_, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from fakecloud.model import Address
from fakecloud.store import reservations
from fakecloud.tables import address as table
from fakecloud.tables import load_balancer


def last_given(connection: Connection, pool: str, family: str) -> str | None:
    """Return the address given most recently from a pool."""
    ip: str | None = connection.execute(
        select(table.c.ip)
        .where(table.c.pool == pool, table.c.family == family)
        .order_by(table.c.given_at.desc())
        .limit(1)
    ).scalar_one_or_none()
    return ip


def is_taken(connection: Connection, ip: str, rested_since: datetime) -> bool:
    """Say whether `ip` belongs to or is kept by somebody, or was released after `rested_since`."""
    row = connection.execute(
        select(table.c.ip).where(
            table.c.ip == ip,
            or_(
                table.c.load_balancer_id.is_not(None),
                table.c.reserved,
                table.c.released_at > rested_since,
            ),
        )
    ).first()
    return row is not None


def owner(connection: Connection, ip: str) -> str | None:
    """Return the id of the load balancer that has `ip`."""
    id: str | None = connection.execute(
        select(table.c.load_balancer_id).where(table.c.ip == ip)
    ).scalar_one_or_none()
    return id


def give(connection: Connection, address: Address, load_balancer_id: str, now: datetime) -> bool:
    """Give a free address to a load balancer; False if somebody else was faster."""
    insert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    values = {"load_balancer_id": load_balancer_id, "given_at": now, "released_at": None}
    row = {"ip": address.ip, "pool": address.pool, "family": address.family, **values}
    result = connection.execute(
        insert(table)
        .values(row)
        .on_conflict_do_update(
            index_elements=[table.c.ip], set_=row, where=table.c.load_balancer_id.is_(None)
        )
        .returning(table.c.reserved)
    )
    given = result.first()
    if given is not None and given.reserved:
        reservations.touched(connection, [address.ip], now)
    return given is not None


def of_deleted(connection: Connection) -> list[tuple[str, str]]:
    """Return (load balancer id, ip) of addresses whose load balancer is deleted."""
    rows = connection.execute(
        select(table.c.load_balancer_id, table.c.ip)
        .join(load_balancer, table.c.load_balancer_id == load_balancer.c.id)
        .where(load_balancer.c.deleted_at.is_not(None))
        .order_by(table.c.ip)
    )
    return [(row.load_balancer_id, row.ip) for row in rows]


def take_back(connection: Connection, load_balancer_id: str, ips: list[str], now: datetime) -> None:
    """Release these addresses of a load balancer."""
    released = connection.execute(
        update(table)
        .where(table.c.load_balancer_id == load_balancer_id, table.c.ip.in_(ips))
        .values(load_balancer_id=None, released_at=now)
        .returning(table.c.ip, table.c.reserved)
    ).all()
    kept = [row.ip for row in released if row.reserved]
    if kept:
        reservations.touched(connection, kept, now)
