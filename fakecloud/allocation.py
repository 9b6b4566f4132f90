"""Which addresses a load balancer or a customer gets: free ones of a pool, or the one asked for.

A reserved address is only used when it is asked for by ip, and only in its own project.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from ipaddress import ip_address

from fakecloud import addresses
from fakecloud.addresses import Pool
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

    def next_free(
        self,
        connection: Connection,
        pool: Pool,
        now: datetime,
        besides: Callable[[str], bool] = lambda _ip: False,
    ) -> str:
        """Return the address of `pool` that is free for longest. Raises: NoCapacity."""
        rested_since = now - timedelta(seconds=addresses.QUARANTINE_S)

        def taken(ip: str) -> bool:
            return besides(ip) or address_rows.is_taken(connection, ip, rested_since)

        last = address_rows.last_given(connection, pool.name, pool.family)
        ip = addresses.choose(pool, last, taken)
        if ip is None:
            raise NoCapacity(f"pool {pool.name!r} ({pool.network}) has no free address")
        return ip

    def asked(self, pool: Pool, ip: str, pointer: str) -> str:
        """Return an address that was asked for, as it is written here. Raises: ValidationFailed."""
        ip = str(ip_address(ip))
        if not addresses.gives(pool, ip):
            raise _invalid(pointer, f"{ip} is not in pool {pool.name!r} ({pool.network})")
        return ip

    def choose(
        self,
        connection: Connection,
        project: str,
        spec: Spec,
        held: tuple[Address, ...],
        now: datetime,
    ) -> tuple[Address, ...]:
        """Return an address for each request, keeping those held that still fit.

        Those asked for by ip come first, so that none of them is given to another request.
        Raises: ValidationFailed, AddressInUse, NoCapacity.
        """
        left = list(held)
        reserved = reservations.among(connection, [a.ip for a in held])
        chosen: dict[int, Address] = {}

        def mine(ip: str) -> bool:
            return any(a.ip == ip for a in chosen.values())

        for index, request in sorted(enumerate(spec.addresses), key=lambda pair: not pair[1].ip):
            kept = next((a for a in left if _fits(a, request, a.ip in reserved)), None)
            if kept is not None:
                left.remove(kept)
                chosen[index] = kept
                continue
            pointer = f"/spec/addresses/{index}"
            pool = self.pool(request.pool, request.family, f"{pointer}/pool")
            if request.ip is None:
                ip = self.next_free(connection, pool, now, mine)
            else:
                ip = self.asked(pool, request.ip, f"{pointer}/ip")
                _refuse_foreign(connection, project, ip, f"{pointer}/ip")
            chosen[index] = Address(family=pool.family, ip=ip, pool=pool.name)
        return tuple(chosen[index] for index in range(len(chosen)))


def give(
    connection: Connection, lb: LoadBalancer, before: tuple[Address, ...], now: datetime
) -> None:
    """Record that the load balancer has its addresses, and no more those of `before` it lost.

    Raises: AddressInUse.
    """
    gone = [a.ip for a in before if a not in lb.addresses]
    if gone:
        address_rows.take_back(connection, lb.id, gone, now)
    for address in lb.addresses:
        if address not in before and not address_rows.give(connection, address, lb.id, now):
            raise AddressInUse(f"{address.ip} was given to another load balancer just now")


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
