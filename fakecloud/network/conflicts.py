"""What becomes of a load balancer whose address another machine on the link has."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

import msgspec

from fakecloud.clock import Clock
from fakecloud.domain import lifecycle
from fakecloud.errors import (
    AddressElsewhere,
    CloudError,
    DataPlaneError,
    Permanent,
    Transient,
)
from fakecloud.model import LoadBalancer
from fakecloud.network import allocation
from fakecloud.network.allocation import Allocator
from fakecloud.store.database import Connection

ASKED_RETRY_S: Final = 30.0


def settle(
    connection: Connection,
    allocator: Allocator | None,
    claimed: LoadBalancer,
    lb: LoadBalancer,
    error: DataPlaneError,
    clock: Clock,
) -> tuple[LoadBalancer, DataPlaneError]:
    """Return the load balancer, perhaps with another address, and what is told of the attempt.

    claimed: what the attempt was made with; if `lb` changed meanwhile, another one follows anyway.
    One that the customer asked for is never replaced: they are told. One that has served before
    is kept as long as tries are left, since after a failover its former host lets go of it soon.
    Any other is replaced by the next free one of its pool; it rests like a released one.
    """
    same = (claimed.generation, claimed.state) == (lb.generation, lb.state)
    if allocator is None or not same or not isinstance(error, AddressElsewhere):
        return lb, error
    now, wall = clock.now(), clock.wall()
    asked = {str(ip_address(one.ip)) for one in lb.spec.addresses if one.ip is not None}
    age_s = (wall - lb.asked_at).total_seconds()
    if lb.was_active and not lifecycle.gives_up(lb.attempts + 1, age_s):
        return lb, error
    if error.ip in asked:
        remedy = "free it there, or ask for another one"
        message = f"{error.ip} was asked for, and another machine on the link has it: {remedy}"
        return lb, Permanent(error.code, message, retry_s=ASKED_RETRY_S)
    held = tuple(address for address in lb.addresses if address.ip != error.ip)
    try:
        (addresses,) = allocator.choose(connection, [(lb.project, lb.spec, held)], now)
    except CloudError:
        return lb, error  # no other is free
    moved = msgspec.structs.replace(lb, addresses=addresses)
    if lb.was_active:
        moved = msgspec.structs.replace(moved, attempts=0, asked_at=wall)
    allocation.give(connection, [(moved, lb.addresses)], now)
    new = ", ".join(address.ip for address in addresses if address not in held)
    message = f"another machine on the link has {error.ip}: {new} takes its place"
    return moved, Transient(error.code, message)
