"""The row of the clock, and what business time is waited for by."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from fakecloud.domain.business_time import UNCHANGED, Timeline
from fakecloud.tables.access import token
from fakecloud.tables.cloud import address, load_balancer, operation
from fakecloud.tables.cloud import clock as table

GLOBAL: Final = "global"
_COLUMNS = tuple(getattr(table.c, name) for name in Timeline.__struct_fields__)


def load(connection: Connection) -> Timeline:
    """Return the line that business time follows."""
    row = connection.execute(select(*_COLUMNS).where(table.c.id == GLOBAL)).first()
    if row is None:
        return UNCHANGED
    return msgspec.convert(dict(zip(Timeline.__struct_fields__, row, strict=True)), Timeline)


def save(connection: Connection, timeline: Timeline) -> None:
    """Replace the line; writers take turns, so nothing is overwritten unseen."""
    values = {name: getattr(timeline, name) for name in timeline.__struct_fields__}
    connection.execute(delete(table).where(table.c.id == GLOBAL))
    connection.execute(insert(table).values(values | {"id": GLOBAL}))


def database_wall(connection: Connection) -> datetime:
    """Return PostgreSQL's own clock."""
    moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return moment


def next_expiry(
    connection: Connection, after: datetime, until: datetime, quarantine: timedelta
) -> datetime | None:
    """Return when business time next ends a token or an address' rest, in (after, until]."""
    rested = connection.execute(
        select(func.min(address.c.released_at)).where(
            address.c.released_at > after - quarantine,
            address.c.released_at <= until - quarantine,
            address.c.load_balancer_id.is_(None),
        )
    ).scalar_one()
    expires = connection.execute(
        select(func.min(token.c.expires_at)).where(
            token.c.expires_at > after, token.c.expires_at <= until
        )
    ).scalar_one()
    found = [moment for moment in (rested and rested + quarantine, expires) if moment is not None]
    return min(found, default=None)


def hasten(connection: Connection, wall: datetime, shift: timedelta, shrink: float) -> int:
    """Bring simulated delays nearer: those that end after `wall` by `shift`, the rest by `shrink`.

    shrink: what is left of a second. Return how many load balancers are ready sooner.
    """
    waiting = connection.execute(
        select(load_balancer.c.pk, load_balancer.c.id, load_balancer.c.ready_at)
        .add_columns(load_balancer.c.due_at)
        .where(load_balancer.c.ready_at > wall, load_balancer.c.deleted_at.is_(None))
    ).all()
    for row in waiting:
        sooner = wall + max(row.ready_at - wall - shift, timedelta()) * shrink
        # A row that waits is due when it is ready; one that is still worked on keeps its turn.
        values = {"ready_at": sooner}
        if row.due_at == row.ready_at:
            values["due_at"] = sooner
        connection.execute(update(load_balancer).where(load_balancer.c.pk == row.pk).values(values))
        connection.execute(
            update(operation)
            .where(operation.c.target_id == row.id, operation.c.ready_at == row.ready_at)
            .values(ready_at=sooner)
        )
    return len(waiting)
