"""Finds what deleted load balancers have left behind, and removes it.

A deletion leaves nothing; but a bug, a fault that was asked for (`delete_leaks`) or somebody's
hand may. What belongs to nobody would cost an address or a port until the next start.
"""

from __future__ import annotations

from typing import Protocol

import structlog

from fakecloud.clock import Clock
from fakecloud.errors import DataPlaneError
from fakecloud.model import Address
from fakecloud.store import addresses, load_balancers
from fakecloud.store.database import Database

log = structlog.get_logger()


class Plane(Protocol):
    """What a host runs."""

    def running(self) -> frozenset[str]:
        """Return the ids of the load balancers that this host runs now."""

    def remove(self, lb_id: str, epoch: int) -> None:
        """End the load balancer and leave nothing of it. Raises: DataPlaneError."""


class HostAddresses(Protocol):
    """What a host answers for."""

    def prune(self, lb_id: str, addresses: tuple[Address, ...]) -> None:
        """Stop answering for all addresses of the load balancer but these."""


class Sweeper:
    """Sweeps one host and the address book, a turn per `step()`."""

    def __init__(
        self, database: Database, plane: Plane, host_addresses: HostAddresses, clock: Clock
    ) -> None:
        """Compare `plane` and the address book with the rows of `database`."""
        self._database = database
        self._plane = plane
        self._host_addresses = host_addresses
        self._clock = clock

    def step(self) -> int:
        """Remove what is left of deleted load balancers; return how many things that were."""
        running = self._plane.running()  # before the rows: what began later isn't in it
        with self._database.read() as connection:
            gone = load_balancers.deleted_among(connection, running)
            held = addresses.of_deleted(connection)
        swept = sum(self._end(lb_id, epoch) for lb_id, epoch in gone.items())
        if held:
            with self._database.write() as connection:
                for lb_id, ip in addresses.of_deleted(connection):
                    log.warning("leak_swept", what="ip", lb_id=lb_id, ip=ip)
                    addresses.take_back(connection, [(ip, lb_id)], self._clock.now())
                    swept += 1
        return swept

    def _end(self, lb_id: str, epoch: int) -> bool:
        try:
            self._plane.remove(lb_id, epoch)
        except DataPlaneError as error:
            log.warning("leak_not_swept", what="process", lb_id=lb_id, reason=str(error))
            return False
        self._host_addresses.prune(lb_id, ())
        log.warning("leak_swept", what="process", lb_id=lb_id)
        return True
