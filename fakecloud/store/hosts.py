"""Hosts: who runs load balancers, and who was heard of when."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from fakecloud.tables.cloud import host as table


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A process that runs load balancers. identity: of its state directory; times: wall."""

    name: str
    identity: str
    pools: tuple[str, ...]
    version: str
    started_at: datetime
    heartbeat_at: datetime


_COLUMNS = tuple(getattr(table.c, name) for name in Host.__struct_fields__)


def living_and_dead(connection: Connection) -> list[Host]:
    """Return every host that nobody has buried yet."""
    rows = connection.execute(select(*_COLUMNS).order_by(table.c.name))
    return [
        msgspec.convert(dict(zip(Host.__struct_fields__, row, strict=True)), Host) for row in rows
    ]


def save(connection: Connection, host: Host) -> None:
    """Write a host in place of what had its name."""
    forget(connection, host.name)
    values = {name: getattr(host, name) for name in host.__struct_fields__}
    connection.execute(insert(table).values(values | {"pools": list(host.pools)}))


def beat(connection: Connection, name: str, identity: str, wall: datetime) -> bool:
    """Note that a host is alive; False if it was buried, or its name went to another."""
    result = connection.execute(
        update(table)
        .where(table.c.name == name, table.c.identity == identity)
        .values(heartbeat_at=wall)
    )
    return result.rowcount == 1


def forget(connection: Connection, name: str) -> None:
    """Bury a host."""
    connection.execute(delete(table).where(table.c.name == name))
