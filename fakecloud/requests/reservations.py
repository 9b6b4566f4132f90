"""Addresses that a customer keeps: reserve, list, give up, and how full the pools are.

A reserved address outlives the load balancer that uses it, is never given to anybody by chance,
and can be asked for by `spec.addresses[].ip` within its own project only.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from fakecloud.access import suspension
from fakecloud.access.quotas import Quotas
from fakecloud.billing.events import seconds_us
from fakecloud.clock import Clock
from fakecloud.domain import addresses
from fakecloud.domain.addresses import Pool
from fakecloud.errors import (
    AddressInUse,
    InUse,
    NameInUse,
    NotFound,
)
from fakecloud.ids import new_id
from fakecloud.model import Family
from fakecloud.network.allocation import Allocator
from fakecloud.resources import ReservedAddress
from fakecloud.store import addresses as address_rows
from fakecloud.store import events, listings
from fakecloud.store import reservations as rows
from fakecloud.store.database import Connection, Database


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer wants to keep: an address of a pool, perhaps a certain one."""

    name: str
    family: Family = "ipv4"
    pool: str = "default"
    ip: str | None = None
    labels: dict[str, str] = {}


class PoolUse(msgspec.Struct, frozen=True, kw_only=True):
    """How full a pool is; what is resting comes back `addresses.QUARANTINE_S` after its release."""

    pool: Pool
    capacity: int
    used: int
    reserved: int
    resting: int


class Reservations:
    """The customer's desk for addresses. Every method may raise Unavailable."""

    def __init__(
        self, database: Database, pools: list[Pool], clock: Clock, quotas: Quotas | None = None
    ) -> None:
        """Reserve addresses of `pools`; count them in `quotas`."""
        self._quotas = quotas or Quotas()
        self._database = database
        self._allocator = Allocator(pools)
        self._clock = clock

    def reserve(self, project: str, wanted: Wanted) -> ReservedAddress:
        """Reserve an address; again with the same wish gives the same one.

        Raises: NameInUse, AddressInUse, ValidationFailed, NoCapacity, QuotaExceeded,
        ProjectSuspended.
        """
        with self._database.write() as connection:
            now = self._clock.now()
            current = rows.find(connection, project, wanted.name)
            if current is not None:
                return _same(current, wanted)
            suspension.refuse(connection, project, seconds_us(now))
            self._quotas.take(connection, project, "addresses")
            reserved = ReservedAddress(
                id=new_id("addr", now),
                project=project,
                name=wanted.name,
                labels=wanted.labels,
                ip=self._pick(connection, wanted, now),
                family=wanted.family,
                pool=wanted.pool,
                load_balancer=None,
                resource_version=0,
                created_at=now,
                updated_at=now,
            )
            return rows.add(connection, reserved)

    def find(self, project: str, name: str) -> ReservedAddress:
        """Return the reserved address of that name, id or ip. Raises: NotFound."""
        with self._database.read() as connection:
            return _found(rows.find(connection, project, name), name)

    def page(
        self, project: str, page: listings.Page
    ) -> tuple[int, list[tuple[listings.Key, ReservedAddress]]]:
        """Return a page of reserved addresses and the version of it."""
        with self._database.read() as connection:
            version = events.current_version(connection)
            return version, rows.listing(connection, project, page)

    def give_up(self, project: str, name: str, *, force: bool = False) -> ReservedAddress:
        """End a reservation; the address rests. Raises: NotFound, InUse.

        force: also while a load balancer uses it; the address goes when the load balancer does.
        """
        with self._database.write() as connection:
            found = _found(rows.find(connection, project, name), name)
            if found.load_balancer is not None and not force:
                raise InUse(
                    f"{found.ip} is used by load balancer {found.load_balancer}; release it first"
                )
            rows.remove(connection, found, self._clock.now())
            self._quotas.give_back(connection, project, "addresses")
            return found

    def pools(self) -> list[PoolUse]:
        """Return how full each pool is."""
        with self._database.read() as connection:
            counts = rows.counts(connection, _rested_since(self._clock.now()))
        return [
            PoolUse(
                pool=pool,
                capacity=pool.network.num_addresses - 2,
                used=counts.get(key, {}).get("used", 0),
                reserved=counts.get(key, {}).get("reserved", 0),
                resting=counts.get(key, {}).get("resting", 0),
            )
            for key, pool in sorted(self._allocator.pools.items())
        ]

    def _pick(self, connection: Connection, wanted: Wanted, now: datetime) -> str:
        pool = self._allocator.pool(wanted.pool, wanted.family, "/pool")
        if wanted.ip is None:
            return next(self._allocator.free(connection, pool, now))
        ip = self._allocator.asked(pool, wanted.ip, "/ip")
        if address_rows.is_taken(connection, ip, _rested_since(now)):
            raise AddressInUse(f"/ip: {ip} is used, reserved or resting; ask for another")
        return ip


def _rested_since(now: datetime) -> datetime:
    return now - timedelta(seconds=addresses.QUARANTINE_S)


def _same(current: ReservedAddress, wanted: Wanted) -> ReservedAddress:
    mine = (current.family, current.pool, wanted.ip or current.ip, current.labels)
    theirs = (wanted.family, wanted.pool, current.ip, wanted.labels)
    if mine != theirs:
        raise NameInUse(f"{wanted.name} is reserved already, as {current.ip}")
    return current


def _found(found: ReservedAddress | None, name: str) -> ReservedAddress:
    if found is None:
        raise NotFound(f"there is no reserved address {name!r}")
    return found
