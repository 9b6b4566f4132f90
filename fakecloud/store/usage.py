"""Recorded active intervals: the ground of every bill. Times are when the state changed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, or_, select, update

from fakecloud.model import LoadBalancer
from fakecloud.tables import usage_interval as table

_INSERT = insert(table)


def open(connection: Connection, lb: LoadBalancer, now: datetime) -> None:
    """Begin to count `lb`. The unique index refuses a second open interval."""
    connection.execute(
        _INSERT,
        {
            "load_balancer_id": lb.id,
            "project": lb.project,
            "name": lb.name,
            "labels": lb.labels,
            "type": lb.spec.type,
            "started_at": now,
        },
    )


def close(connection: Connection, load_balancer_id: str, now: datetime) -> None:
    """Stop counting a load balancer; nothing happens if it wasn't counted."""
    connection.execute(
        update(table)
        .where(table.c.load_balancer_id == load_balancer_id, table.c.ended_at.is_(None))
        .values(ended_at=now)
    )


def histories(
    connection: Connection, project: str, start: datetime, end: datetime
) -> list[Row[Any]]:
    """Return every interval before `end` of the load balancers active in [start, end).

    Their whole history, since charges are cumulative.
    """
    active = select(table.c.load_balancer_id).where(
        table.c.project == project,
        table.c.started_at < end,
        or_(table.c.ended_at.is_(None), table.c.ended_at > start),
    )
    return list(
        connection.execute(
            select(table)
            .where(table.c.load_balancer_id.in_(active), table.c.started_at < end)
            .order_by(table.c.pk)
        )
    )
