"""Everything at one moment, for the check of all promises."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec
from sqlalchemy import Connection, func, select

from fakecloud.invariants import Interval, LastEvent, Lease, OwnedAddress, QuotaUse, Rows
from fakecloud.store import events, load_balancers, operations
from fakecloud.tables import address, event, instance, load_balancer, quota, usage_interval


class _State(msgspec.Struct):
    state: str


class _Document(msgspec.Struct):
    status: _State


def take(connection: Connection, wall: datetime) -> Rows:
    """Return all rows that promises are about, as of `wall`."""
    table = load_balancer.c
    ids = select(table.id).where(table.deleted_at.is_not(None))
    leases = select(table.id, table.lease_owner, table.lease_until).where(
        table.deleted_at.is_(None)
    )
    owned = select(address.c.ip, address.c.load_balancer_id).where(
        address.c.load_balancer_id.is_not(None)
    )
    usage = usage_interval.c
    intervals = select(usage.load_balancer_id, usage.started_at, usage.ended_at)
    newest = connection.execute(select(func.max(event.c.resource_version))).scalar_one()
    return Rows(
        load_balancers=tuple(load_balancers.living(connection)),
        deleted=frozenset(connection.execute(ids).scalars()),
        leases=tuple(
            Lease(load_balancer_id=row[0], owner=row[1], until=row[2])
            for row in connection.execute(leases)
        ),
        addresses=tuple(
            OwnedAddress(ip=row[0], load_balancer_id=row[1]) for row in connection.execute(owned)
        ),
        intervals=tuple(
            Interval(load_balancer_id=row[0], started_at=row[1], ended_at=row[2])
            for row in connection.execute(intervals)
        ),
        running=tuple(operations.all_running(connection)),
        last_events=tuple(_last_events(connection)),
        version=events.current_version(connection),
        newest_event=newest or 0,
        quotas=tuple(_quotas(connection)),
        wall=wall,
    )


def _last_events(connection: Connection) -> Iterator[LastEvent]:
    newest = (
        select(func.max(event.c.resource_version))
        .where(event.c.kind == "load_balancer")
        .group_by(event.c.object_id)
    )
    rows = connection.execute(
        select(event.c.object_id, event.c.resource_version, event.c.type, event.c.object).where(
            event.c.resource_version.in_(newest)
        )
    )
    for id, version, type, document in rows:
        state = msgspec.json.decode(document, type=_Document).status.state
        yield LastEvent(load_balancer_id=id, resource_version=version, type=type, state=state)


def _quotas(connection: Connection) -> Iterator[QuotaUse]:
    counted = {
        "load_balancers": select(load_balancer.c.project, func.count())
        .where(load_balancer.c.deleted_at.is_(None))
        .group_by(load_balancer.c.project),
        "instances": select(instance.c.project, func.count()).group_by(instance.c.project),
    }
    living = {
        metric: {row[0]: row[1] for row in connection.execute(statement)}
        for metric, statement in counted.items()
    }
    for row in connection.execute(select(quota.c.project, quota.c.metric, quota.c.used)):
        if row.metric in living:
            number = living[row.metric].get(row.project, 0)
            yield QuotaUse(project=row.project, metric=row.metric, used=row.used, living=number)
