"""Which port of the published range belongs to which listener; kept for one that comes back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, and_, delete, insert, select

from fakecloud.tables.cloud import host_port as table
from fakecloud.tables.cloud import load_balancer


def of(connection: Connection, project: str, name: str) -> dict[tuple[str, int], int]:
    """Return the host ports of a load balancer's listeners, also of former ones, by transport and port."""
    mine = and_(table.c.project == project, table.c.load_balancer == name)
    rows = connection.execute(
        select(table.c.transport, table.c.port, table.c.host_port).where(mine)
    )
    return {(row.transport, row.port): row.host_port for row in rows}


def known(connection: Connection, transport: str) -> dict[int, bool]:
    """Return every port that was ever given, oldest first, and whether its load balancer is there."""
    is_theirs = and_(
        load_balancer.c.project == table.c.project,
        load_balancer.c.name == table.c.load_balancer,
        load_balancer.c.deleted_at.is_(None),
    )
    rows = connection.execute(
        select(table.c.host_port, load_balancer.c.pk)
        .select_from(table.outerjoin(load_balancer, is_theirs))
        .where(table.c.transport == transport)
        .order_by(table.c.given_at, table.c.host_port)
    )
    return {row.host_port: row.pk is not None for row in rows}


def give(
    connection: Connection,
    project: str,
    name: str,
    ports: Iterable[tuple[str, int, int]],
    now: datetime,
) -> None:
    """Give ports to listeners (transport, port, host port), whoever had them before."""
    for transport, port, given in ports:
        connection.execute(
            delete(table).where(table.c.transport == transport, table.c.host_port == given)
        )
        values = {"project": project, "load_balancer": name, "given_at": now}
        connection.execute(
            insert(table).values(transport=transport, port=port, host_port=given, **values)
        )
