"""Addresses of `interface` pools on this host: put there before a load balancer, taken off after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from threading import Lock
from typing import Final, Protocol

import structlog

from fakecloud.addresses import Pool
from fakecloud.errors import Permanent, Transient
from fakecloud.model import Address, LoadBalancer

log = structlog.get_logger()

RESTORERS: Final = 32


class Interface(Protocol):
    """The addresses that this cloud put on one network interface. Raises: Transient, Permanent."""

    def present(self) -> set[str]:
        """Return ours, also those of a predecessor that crashed."""

    def in_use_elsewhere(self, ip: str) -> bool:
        """Say whether somebody else answers for `ip`."""

    def add(self, ip: str) -> None:
        """Put it on the interface."""

    def remove(self, ip: str) -> None:
        """Take it off the interface."""

    def announce(self, ip: str) -> None:
        """Tell the neighbours where it lives now."""


class PooledAddresses:
    """Makes this host answer for the addresses of its load balancers. Thread-safe."""

    def __init__(self, pools: Iterable[Pool], interfaces: Mapping[str, Interface]) -> None:
        """Use `interfaces` by name; pools without one (loopback) need nothing done."""
        self._doors = {
            (pool.name, pool.family): (pool, interfaces[pool.interface])
            for pool in pools
            if pool.interface is not None
        }
        self._held: dict[str, set[Address]] = {}
        self._lock = Lock()

    def ensure(self, lb_id: str, addresses: tuple[Address, ...]) -> None:
        """Make this host answer for these addresses. Raises: Transient, Permanent."""
        for address in addresses:
            door = self._doors.get((address.pool, address.family))
            if door is None:
                continue
            with self._lock:
                if address in self._held.get(lb_id, ()):
                    continue
            self._put(door[1], address)
            with self._lock:
                self._held.setdefault(lb_id, set()).add(address)

    def prune(self, lb_id: str, addresses: tuple[Address, ...]) -> None:
        """Stop answering for all addresses of the load balancer but these."""
        with self._lock:
            gone = self._held.get(lb_id, set()) - set(addresses)
        for address in gone:
            self._doors[address.pool, address.family][1].remove(address.ip)
            with self._lock:
                self._held[lb_id].discard(address)
        with self._lock:
            if not self._held.get(lb_id, True):
                del self._held[lb_id]

    def restore(self, balancers: Iterable[LoadBalancer]) -> frozenset[str]:
        """At start: put back the addresses of living load balancers, take off all others of ours.

        Return the ids of those whose addresses can't be put back now, for the provisioner, which
        retries and says why. Raises: Transient when an interface is gone.
        """
        balancers = list(balancers)
        wanted = {address.ip for lb in balancers for address in lb.addresses}
        for pool, interface in self._doors.values():
            for ip in interface.present() - wanted:
                if ip_address(ip) in pool.network:
                    log.info("stale_address_removed", ip=ip, interface=pool.interface)
                    interface.remove(ip)
        # A free address takes a probe's whole wait to be seen free: many at a time.
        with ThreadPoolExecutor(RESTORERS) as threads:
            done = list(threads.map(self._restored, balancers))
        return frozenset(
            lb.id for lb, restored in zip(balancers, done, strict=True) if not restored
        )

    def _restored(self, lb: LoadBalancer) -> bool:
        try:
            self.ensure(lb.id, lb.addresses)
        except (Transient, Permanent) as error:
            log.warning("address_not_restored", lb_id=lb.id, reason=error.message)
            return False
        return True

    @staticmethod
    def _put(interface: Interface, address: Address) -> None:
        if address.ip not in interface.present() and interface.in_use_elsewhere(address.ip):
            raise Transient(
                "address_in_use",
                f"{address.ip} is in use by another machine on the link; choose a pool range "
                "that nothing else uses",
            )
        interface.add(address.ip)
        interface.announce(address.ip)
