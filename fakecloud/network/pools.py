"""Addresses of `interface` pools on this host: put there before a load balancer, taken off after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from threading import Lock
from typing import Final, Protocol

import structlog

from fakecloud.clock import Clock
from fakecloud.domain.addresses import Pool
from fakecloud.errors import AddressElsewhere, Permanent, Transient
from fakecloud.model import Address

log = structlog.get_logger()

RESTORERS: Final = 32
ANNOUNCE_S: Final = 3.0
"""A new address is announced again at every beat for so long: a peer that learnt the former
owner within the last second ignores the first time."""


class Interface(Protocol):
    """The addresses that this cloud put on one network interface. Raises: Transient, Permanent."""

    def present(self) -> set[str]:
        """Return ours, also those of a predecessor that crashed."""

    def in_use_elsewhere(self, ip: str) -> bool:
        """Say whether somebody else answers for `ip`."""

    def add(self, ip: str, lifetime_s: int | None = None) -> None:
        """Put it on the interface, for so long unless renewed; None: for ever."""

    def renew(self, ips: Iterable[str], lifetime_s: int | None) -> None:
        """Let these live for so long from now on."""

    def remove(self, ip: str) -> None:
        """Take it off the interface."""

    def announce(self, ip: str) -> None:
        """Tell the neighbours where it lives now."""


class PooledAddresses:
    """Makes this host answer for the addresses of its load balancers. Thread-safe.

    Where another host could take them over, addresses have a lifetime that every heartbeat
    renews: one that is cut off, frozen or killed stops to answer by itself, as the kernel takes
    its addresses off.
    """

    def __init__(
        self, pools: Iterable[Pool], interfaces: Mapping[str, Interface], clock: Clock
    ) -> None:
        """Use `interfaces` by name; pools without one (loopback) need nothing done."""
        self._doors = {
            (pool.name, pool.family): (pool, interfaces[pool.interface])
            for pool in pools
            if pool.interface is not None
        }
        self._clock = clock
        self._held: dict[str, set[Address]] = {}
        self._going: set[Address] = set()  # being taken off: not to be renewed
        self._lost: set[Address] = set()  # should be here, and another machine has it
        self._lifetime_s: int | None = None
        self._kept_until = float("inf")
        self._announce_until: dict[Address, float] = {}
        self._lock = Lock()

    def ensure(self, lb_id: str, addresses: tuple[Address, ...]) -> None:
        """Make this host answer for these addresses. Raises: Transient, Permanent."""
        for address in addresses:
            if (address.pool, address.family) not in self._doors:
                continue
            with self._lock:
                if address in self._held.get(lb_id, set()) - self._going - self._lost:
                    continue
            self._put(address)
            with self._lock:
                self._held.setdefault(lb_id, set()).add(address)
                self._going.discard(address)
                self._lost.discard(address)
                # Again: a beat may have passed since, or a predecessor's end of life stands.
                self._door(address).renew([address.ip], self._left_s())

    def prune(self, lb_id: str, addresses: tuple[Address, ...]) -> None:
        """Stop answering for all addresses of the load balancer but these."""
        with self._lock:
            gone = self._held.get(lb_id, set()) - set(addresses)
            self._going |= gone
        for address in gone:
            self._door(address).remove(address.ip)
            with self._lock:
                self._held[lb_id].discard(address)
                for known in (self._going, self._lost):
                    known.discard(address)
                self._announce_until.pop(address, None)
        with self._lock:
            if not self._held.get(lb_id, True):
                del self._held[lb_id]

    def keep(self, lifetime_s: int | None) -> None:
        """Go on answering for `lifetime_s` from now on, None: for ever; 0: let it run out.

        One that ran out meanwhile comes back unless another machine has it.
        Raises: Transient, Permanent; repeat it.
        """
        if lifetime_s == 0 or not self._doors:
            return
        now = self._clock.monotonic()
        self._bring_back(late=now >= self._kept_until)
        with self._lock:
            if lifetime_s is not None or self._lifetime_s is not None:
                living = set().union(*self._held.values()) - self._going - self._lost
                for door, ips in self._by_door(living).items():
                    door.renew(ips, lifetime_s)
            self._lifetime_s = lifetime_s
            self._kept_until = float("inf") if lifetime_s is None else now + lifetime_s
            again = [address for address, until in self._announce_until.items() if now < until]
            self._announce_until = {a: self._announce_until[a] for a in again}
        for address in again:
            self._door(address).announce(address.ip)

    def _bring_back(self, *, late: bool) -> None:
        """Put back what ran out because we were late, or was another machine's and is free."""
        with self._lock:
            wanted = set().union(*self._held.values()) - self._going
            missing = wanted & self._lost
        for door, ips in self._by_door(wanted).items() if late else ():
            present = door.present()
            missing |= {a for a in wanted if a.ip in ips and a.ip not in present}
        for address in missing:
            try:
                self._put(address)
            except Transient as error:
                log.warning("address_not_kept", ip=address.ip, reason=error.message)
                with self._lock:
                    self._lost.add(address)
            else:
                with self._lock:
                    self._lost.discard(address)

    def _by_door(self, addresses: Iterable[Address]) -> dict[Interface, list[str]]:
        found: dict[Interface, list[str]] = {}
        for address in addresses:
            found.setdefault(self._door(address), []).append(address.ip)
        return found

    def _door(self, address: Address) -> Interface:
        return self._doors[address.pool, address.family][1]

    def restore(self, living: Mapping[str, tuple[Address, ...]]) -> frozenset[str]:
        """At start: put back the addresses of living load balancers, take off all others of ours.

        living: addresses by the load balancer's id.

        Return the ids of those whose addresses can't be put back now, for the provisioner, which
        retries and says why. Raises: Transient when an interface is gone.
        """
        wanted = {address.ip for addresses in living.values() for address in addresses}
        for pool, interface in self._doors.values():
            for ip in interface.present() - wanted:
                if ip_address(ip) in pool.network:
                    log.info("stale_address_removed", ip=ip, interface=pool.interface)
                    interface.remove(ip)
        # A free address takes a probe's whole wait to be seen free: many at a time.
        with ThreadPoolExecutor(RESTORERS) as threads:
            done = list(threads.map(self._restored, living, living.values()))
        return frozenset(
            lb_id for lb_id, restored in zip(living, done, strict=True) if not restored
        )

    def _restored(self, lb_id: str, addresses: tuple[Address, ...]) -> bool:
        try:
            self.ensure(lb_id, addresses)
        except (Transient, Permanent) as error:
            log.warning("address_not_restored", lb_id=lb_id, reason=error.message)
            return False
        return True

    def _put(self, address: Address) -> None:
        interface = self._door(address)
        if address.ip not in interface.present() and interface.in_use_elsewhere(address.ip):
            raise AddressElsewhere(address.ip)
        interface.add(address.ip, self._left_s())
        interface.announce(address.ip)
        with self._lock:
            self._announce_until[address] = self._clock.monotonic() + ANNOUNCE_S

    def _left_s(self) -> int | None:
        """Return how long a new address may live until the next beat renews it."""
        if self._lifetime_s is None:
            return None
        return max(1, int(self._kept_until - self._clock.monotonic()))
