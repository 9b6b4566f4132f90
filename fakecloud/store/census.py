"""Everything at one moment, for the check of all promises."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy import BigInteger, Connection, func, select, type_coerce

from fakecloud.domain.invariants import (
    Backwards,
    LastEvent,
    Lease,
    OwnedAddress,
    Promise,
    QuotaUse,
    Rows,
)
from fakecloud.store import (
    billing_events,
    events,
    load_balancers,
    operations,
    proof,
    reservations,
)
from fakecloud.tables.access import idempotency_key, quota, token
from fakecloud.tables.cloud import (
    UtcDateTime,
    address,
    certificate,
    clock,
    event,
    fault,
    instance,
    load_balancer,
    network,
    reserved_address,
    route,
)

TOLERANCE: Final = timedelta(seconds=1)


class _State(msgspec.Struct):
    state: str


class _Id(msgspec.Struct):
    id: str


class _Created(msgspec.Struct):
    status: _Id


class _Document(msgspec.Struct):
    status: _State


def take(connection: Connection, wall: datetime) -> Rows:
    """Return all rows that promises are about, as of `wall`."""
    table = load_balancer.c
    ids = select(table.id).where(table.deleted_at.is_not(None))
    leases = select(
        table.id, table.lease_owner, table.lease_until, table.lease_epoch, table.due_at
    ).where(table.deleted_at.is_(None))
    owned = select(address.c.ip, address.c.load_balancer_id).where(
        address.c.load_balancer_id.is_not(None)
    )
    newest = connection.execute(select(func.max(event.c.resource_version))).scalar_one()
    return Rows(
        load_balancers=tuple(load_balancers.living(connection)),
        deleted=frozenset(connection.execute(ids).scalars()),
        leases=tuple(
            Lease(
                load_balancer_id=row.id,
                owner=row.lease_owner,
                until=row.lease_until,
                epoch=row.lease_epoch,
                due=row.due_at is not None,
            )
            for row in connection.execute(leases)
        ),
        addresses=tuple(
            OwnedAddress(ip=row[0], load_balancer_id=row[1]) for row in connection.execute(owned)
        ),
        reserved=tuple(reservations.everyones(connection)),
        billed=billing_events.open(connection),
        discrepancies=tuple(
            problem
            for account, _ in billing_events.accounts(connection)
            for problem in proof.problems(connection, account)
        ),
        running=tuple(operations.all_running(connection)),
        last_events=tuple(_last_events(connection)),
        version=events.current_version(connection),
        newest_event=newest or 0,
        quotas=tuple(_quotas(connection)),
        promises=tuple(_promises(connection)),
        backwards=tuple(_backwards(connection)),
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
        "certificates": select(certificate.c.project, func.count()).group_by(certificate.c.project),
        "instances": select(instance.c.project, func.count()).group_by(instance.c.project),
        "networks": select(network.c.project, func.count()).group_by(network.c.project),
        "routes": select(route.c.project, func.count()).group_by(route.c.project),
        "addresses": select(reserved_address.c.project, func.count()).group_by(
            reserved_address.c.project
        ),
        "tokens": select(token.c.project, func.count())
        .where(token.c.revoked_at.is_(None))
        .group_by(token.c.project),
        "faults": select(fault.c.project, func.count()).group_by(fault.c.project),
    }
    living = {
        metric: {row[0]: row[1] for row in connection.execute(statement)}
        for metric, statement in counted.items()
    }
    used: dict[str, dict[str, int]] = {metric: {} for metric in living}
    for row in connection.execute(select(quota.c.project, quota.c.metric, quota.c.used)):
        if row.metric in used:
            used[row.metric][row.project] = row.used
    for metric, there in living.items():
        for project in sorted(there.keys() | used[metric].keys()):
            yield QuotaUse(
                project=project,
                metric=metric,
                used=used[metric].get(project, 0),
                living=there.get(project, 0),
            )


def _promises(connection: Connection) -> Iterator[Promise]:
    """Yield what kept answers say to have created, of load balancers."""
    kept = idempotency_key.c
    rows = connection.execute(
        select(kept.project, kept.key, kept.body, kept.headers).where(kept.status == 201)
    )
    for row in rows:
        if row.headers.get("location", "").startswith("/v1/load-balancers/"):
            made = msgspec.json.decode(row.body, type=_Created)
            key = f"{row.project}/{row.key}"
            yield Promise(key=key, load_balancer_id=made.status.id)


def _backwards(connection: Connection) -> Iterator[Backwards]:
    """Yield where business time goes back: between two events, or in an advance of the clock.

    Servers agree about the time to within TOLERANCE.
    """
    before = (
        func.lag(event.c.at, type_=UtcDateTime())
        .over(order_by=event.c.resource_version)
        .label("before")
    )
    pairs = select(event.c.resource_version, event.c.at, before).subquery()
    late = type_coerce(pairs.c.before, BigInteger) - type_coerce(pairs.c.at, BigInteger)
    for row in connection.execute(
        select(pairs).where(late > TOLERANCE // timedelta(microseconds=1))
    ):
        yield Backwards(what=f"event {row.resource_version}", by=row.before - row.at)
    for row in connection.execute(select(clock).where(clock.c.target < clock.c.anchor_sim)):
        if row.status == "ADVANCING":
            yield Backwards(what=f"clock {row.id}", by=row.anchor_sim - row.target)
