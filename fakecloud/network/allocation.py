"""Which addresses a load balancer or a customer gets: free ones of a pool, or the one asked for.

A reserved address is only used when it is asked for by ip, and only in its own project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from ipaddress import ip_address
from itertools import islice

from fakecloud.domain import addresses
from fakecloud.domain.addresses import Pool
from fakecloud.errors import AddressInUse, FieldError, NoCapacity, ValidationFailed
from fakecloud.model import Address, AddressRequest, Family, LoadBalancer, Spec
from fakecloud.store import addresses as address_rows
from fakecloud.store import reservations
from fakecloud.store.database import Connection


class Allocator:
    """Chooses addresses of the pools. Used inside the transaction that gives them."""

    def __init__(self, pools: list[Pool]) -> None:
        """Choose from `pools`."""
        self.pools = {(pool.name, pool.family): pool for pool in pools}

    def pool(self, name: str, family: Family, pointer: str) -> Pool:
        """Return a pool. Raises: ValidationFailed at `pointer`."""
        found = self.pools.get((name, family))
        if found is None:
            known = ", ".join(sorted(f"{name} ({family})" for name, family in self.pools))
            raise _invalid(pointer, f"no {family} pool {name!r}; there are: {known}")
        return found

    def free(
        self, connection: Connection, pool: Pool, now: datetime, expected: int = 1
    ) -> Iterator[str]:
        """Yield the free addresses of `pool`, each once, those first that are free for longest.

        So many as are `expected` to be taken cost two queries together, all others one more.
        Raises: NoCapacity after the last.
        """
        rested_since = now - timedelta(seconds=addresses.QUARANTINE_S)
        taken = partial(address_rows.taken, connection, pool.name, pool.family, rested_since)
        order = addresses.after(pool, address_rows.last_given(connection, pool.name, pool.family))
        first = list(islice(order, expected))
        busy = taken(first)
        yield from (ip for ip in first if ip not in busy)
        busy = taken()
        yield from (ip for ip in order if ip not in busy)
        raise NoCapacity(f"pool {pool.name!r} ({pool.network}) has no free address")

    def asked(self, pool: Pool, ip: str, pointer: str) -> str:
        """Return an address that was asked for, as it is written here. Raises: ValidationFailed."""
        ip = str(ip_address(ip))
        if not addresses.gives(pool, ip):
            raise _invalid(pointer, f"{ip} is not in pool {pool.name!r} ({pool.network})")
        return ip

    def choose(
        self,
        connection: Connection,
        wishes: Sequence[tuple[str, Spec, tuple[Address, ...]]],
        now: datetime,
    ) -> list[tuple[Address, ...]]:
        """Return for each project and spec an address for each request, no address twice.

        Third of each is what a load balancer has that is there already; it keeps those that still
        fit. Raises: ValidationFailed, AddressInUse, NoCapacity.
        """
        all_held = [address.ip for _, _, held in wishes for address in held]
        reserved = reservations.among(connection, all_held) if all_held else frozenset()
        free: dict[Pool, Iterator[str]] = {}

        def next_free(pool: Pool) -> str:
            if pool not in free:
                free[pool] = self.free(connection, pool, now, len(wishes))
            return next(free[pool])

        return [
            self._choose(connection, project, spec, held, reserved, next_free)
            for project, spec, held in wishes
        ]

    def _choose(
        self,
        connection: Connection,
        project: str,
        spec: Spec,
        held: tuple[Address, ...],
        reserved: frozenset[str],
        next_free: Callable[[Pool], str],
    ) -> tuple[Address, ...]:
        """Those asked for by ip come first, so that none of them is given to another request."""
        self._refuse_contained(spec)
        left = list(held)
        chosen: dict[int, Address] = {}
        for index, request in sorted(enumerate(spec.addresses), key=lambda pair: not pair[1].ip):
            kept = next((a for a in left if _fits(a, request, a.ip in reserved)), None)
            if kept is not None:
                left.remove(kept)
                chosen[index] = kept
                continue
            pointer = f"/spec/addresses/{index}"
            pool = self.pool(request.pool, request.family, f"{pointer}/pool")
            if request.ip is None:
                ip = next_free(pool)
                while any(a.ip == ip for a in chosen.values()):
                    ip = next_free(pool)
            else:
                ip = self.asked(pool, request.ip, f"{pointer}/ip")
                _refuse_foreign(connection, project, ip, f"{pointer}/ip")
            chosen[index] = Address(family=pool.family, ip=ip, pool=pool.name)
        return tuple(chosen[index] for index in range(len(chosen)))

    def _refuse_contained(self, spec: Spec) -> None:
        """Refuse what no container can do: addresses elsewhere, too, and datagrams."""
        pools = [self.pools.get((one.pool, one.family)) for one in spec.addresses]
        inside = [pool is not None and pool.docker_network is not None for pool in pools]
        if not any(inside):
            return
        if not all(inside):
            pointer = f"/spec/addresses/{inside.index(False)}/pool"
            raise _invalid(pointer, "addresses of a docker pool don't go with those of others")
        for index, listener in enumerate(spec.listeners):
            if listener.protocol == "udp":
                pointer = f"/spec/listeners/{index}/protocol"
                raise _invalid(pointer, "a docker pool has no UDP; take addresses of another pool")


def give(
    connection: Connection,
    balancers: Sequence[tuple[LoadBalancer, tuple[Address, ...]]],
    now: datetime,
) -> None:
    """Record that load balancers have their addresses; second of each is what it had before.

    Raises: AddressInUse.
    """
    gone = [(a.ip, lb.id) for lb, before in balancers for a in before if a not in lb.addresses]
    if gone:
        address_rows.take_back(connection, gone, now)
    new = [(a, lb.id) for lb, before in balancers for a in lb.addresses if a not in before]
    if new and not address_rows.give(connection, new, now):
        ips = ", ".join(address.ip for address, _ in new)
        raise AddressInUse(f"{ips}: given to another load balancer just now")


def _refuse_foreign(connection: Connection, project: str, ip: str, pointer: str) -> None:
    if address_rows.owner(connection, ip) is not None:
        raise AddressInUse(f"{pointer}: {ip} belongs to another load balancer")
    if reservations.owner(connection, ip) not in (None, project):
        raise AddressInUse(f"{pointer}: {ip} is reserved by somebody else")


def _fits(address: Address, request: AddressRequest, reserved: bool) -> bool:
    same_pool = (address.family, address.pool) == (request.family, request.pool)
    if request.ip is None:
        return same_pool and not reserved
    return same_pool and str(ip_address(request.ip)) == address.ip


def _invalid(pointer: str, message: str) -> ValidationFailed:
    return ValidationFailed(
        f"{pointer}: {message}", errors=(FieldError(pointer, "invalid_reference", message),)
    )
