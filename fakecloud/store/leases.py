"""Which worker of which host may work on a load balancer, for how long, and fenced by which epoch.

A lease is no change that anybody sees: it takes no resource version and leaves no event.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    or_,
    select,
    tuple_,
    update,
)

from fakecloud.model import LoadBalancer, PoolKey
from fakecloud.store import load_balancers
from fakecloud.tables.cloud import address
from fakecloud.tables.cloud import load_balancer as table

_LEASE = update(table).where(table.c.pk == bindparam("key"))
_HELD = tuple_(table.c.pk, table.c.lease_epoch).in_(bindparam("leases", expanding=True))
_RELEASE = (
    update(table)
    .where(_HELD)
    .values(lease_owner=None, lease_until=None)
    .returning(*load_balancers.COLUMNS)
)


def _key(pools: Collection[PoolKey] | None) -> tuple[PoolKey, ...] | None:
    return None if pools is None else tuple(sorted(pools))


@cache
def _due(pools: tuple[PoolKey, ...] | None) -> Select[Any]:
    """Return the query for the load balancers due longest of those that a host may claim."""
    nobodys: ColumnElement[bool] = table.c.host.is_(None)
    if pools is not None:
        place = tuple_(address.c.pool, address.c.family)
        elsewhere = select(address.c.ip).where(
            address.c.load_balancer_id == table.c.id, place.not_in(pools)
        )
        nobodys = and_(nobodys, ~elsewhere.exists())
    return (
        select(*load_balancers.COLUMNS)
        .where(
            or_(nobodys, table.c.host == bindparam("to")),
            table.c.due_at <= bindparam("at"),
            # One that is leased is due when its lease ends: its worker may have died.
            or_(table.c.lease_until.is_(None), table.c.lease_until < bindparam("at")),
        )
        .order_by(table.c.due_at)
        .limit(bindparam("most"))
    )


@cache
def _claimable(pools: tuple[PoolKey, ...] | None) -> Select[Any]:
    return _due(pools).with_for_update(skip_locked=True)


@cache
def _is_due(pools: tuple[PoolKey, ...] | None) -> Select[tuple[int]]:
    return _due(pools).with_only_columns(table.c.pk)


def is_due(
    connection: Connection, host: str, now: datetime, pools: Collection[PoolKey] | None = None
) -> bool:
    """Say whether `host` can `claim` a load balancer at `now` (wall time)."""
    values = {"to": host, "at": now, "most": 1}
    return connection.execute(_is_due(_key(pools)), values).first() is not None


def claim(
    connection: Connection,
    host: str,
    owner: str,
    now: datetime,
    lease_s: float,
    pools: Collection[PoolKey] | None = None,
    *,
    most: int,
) -> list[LoadBalancer]:
    """Lease up to `most` load balancers, those due longest, each with a new epoch.

    They are of `host`, or of none with addresses all of `pools` (None: of any), and `host`'s from
    then on. On PostgreSQL rows that another worker is just claiming are skipped.
    """
    found = connection.execute(_claimable(_key(pools)), {"to": host, "at": now, "most": most})
    claimed = [
        msgspec.structs.replace(lb, host=host, lease_epoch=lb.lease_epoch + 1)
        for lb in map(load_balancers.value, found)
    ]
    if claimed:
        lease = {
            "host": host,
            "lease_owner": owner,
            "lease_until": now + timedelta(seconds=lease_s),
        }
        rows = [{"key": lb.pk, "lease_epoch": lb.lease_epoch, **lease} for lb in claimed]
        connection.execute(_LEASE, rows)
    return claimed


def release(connection: Connection, leases: Collection[tuple[int, int]]) -> dict[int, LoadBalancer]:
    """End leases, given as (key, epoch); return by key those that were still held.

    Of the others a newer epoch exists. The rows are locked until the transaction ends.
    """
    found = map(load_balancers.value, connection.execute(_RELEASE, {"leases": list(leases)}))
    return {lb.pk: lb for lb in found}


def leased(connection: Connection, pk: int, now: datetime) -> bool:
    """Say whether a worker holds the load balancer at `now` (wall time)."""
    held = select(table.c.pk).where(table.c.pk == pk, table.c.lease_until > now)
    return connection.execute(held).first() is not None


def put_off(connection: Connection, pk: int, due_at: datetime) -> None:
    """Let the row be due at `due_at` (wall time): no change that anybody would see."""
    connection.execute(update(table).where(table.c.pk == pk).values(due_at=due_at))


def release_all(connection: Connection, owner: str) -> None:
    """End every lease that an earlier life of `owner` held: its work died with it."""
    connection.execute(
        update(table).where(table.c.lease_owner == owner).values(lease_owner=None, lease_until=None)
    )


def renew(
    connection: Connection, leases: Collection[tuple[int, int]], owner: str, until: datetime
) -> int:
    """Lengthen leases, given as (key, epoch), that `owner` still has; return how many."""
    renewed = update(table).where(_HELD, table.c.lease_owner == owner).values(lease_until=until)
    return connection.execute(renewed, {"leases": list(leases)}).rowcount


def free(connection: Connection, pk: int) -> None:
    """Take a load balancer from its host and its worker, whose writes are void from now on."""
    connection.execute(
        update(table)
        .where(table.c.pk == pk)
        .values(host=None, lease_owner=None, lease_until=None, lease_epoch=table.c.lease_epoch + 1)
    )
