"""One look: who are the gateways now, and has the kernel been told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from ccm import clock as clocks
from ccm.returning import rules

PAUSE_S: Final = 1.0
AGAIN_S: Final = 60.0
"""The kernel is told again, as somebody else may have removed what it was told."""

_log = structlog.get_logger()


class Kernel(Protocol):
    """What the agent needs of a node's kernel. Raises: ConfigError."""

    def addresses(self, host: str) -> tuple[str, ...]:
        """Return the first address of each family."""

    def mac(self, ip: str) -> str | None:
        """Return who answers for `ip`, None if nobody did yet."""

    def tell(self, ruleset: str) -> None:
        """Put a text for nft into effect."""

    def route(self, index: int, ip: str) -> None:
        """Send packets with the mark of gateway `index` to `ip`."""

    def remove(self, index: int) -> None:
        """Leave nothing of the routes of gateway `index`."""


class Agent:
    """Keeps the way back to `hosts`. ready: whether the kernel knows it for all of them."""

    def __init__(
        self, kernel: Kernel, hosts: Sequence[str], interface: str, clock: clocks.Clock
    ) -> None:
        self._kernel = kernel
        self._hosts = tuple(hosts)
        self._interface = interface
        self._clock = clock
        self._known: dict[str, rules.Gateway] = {}
        self._told: tuple[rules.Gateway, ...] = ()
        self._told_at = 0.0

    @property
    def ready(self) -> bool:
        """Return whether answers to every gateway's clients find their way."""
        return len(self._told) == len(self._hosts)

    def step(self) -> bool:
        """Look once; return whether the kernel was told something. Raises: ConfigError.

        A gateway that can't be seen now is where it was: it may be starting anew.
        """
        for host in self._hosts:
            found = self._look(host)
            if found is not None:
                self._known[host] = found
        wanted = tuple(self._known[host] for host in self._hosts if host in self._known)
        now = self._clock.monotonic()
        if not wanted or (wanted == self._told and now - self._told_at < AGAIN_S):
            return False
        for index, gateway in enumerate(wanted):
            for ip in gateway.ips:
                self._kernel.route(index, ip)
        self._kernel.tell(rules.ruleset(wanted, self._interface))
        if wanted != self._told:
            _log.info("return_routes_set", gateways=[(one.ips, one.mac) for one in wanted])
        self._told, self._told_at = wanted, now
        return True

    def remove(self) -> None:
        """Leave nothing behind on this node. Raises: ConfigError."""
        self._kernel.tell(rules.removal())
        for index in range(rules.MOST):
            self._kernel.remove(index)

    def _look(self, host: str) -> rules.Gateway | None:
        ips = self._kernel.addresses(host)
        macs = {ip: self._kernel.mac(ip) for ip in ips}
        seen = [(ip, mac) for ip, mac in macs.items() if mac is not None]
        if not seen:
            return None
        mac = seen[0][1]
        return rules.Gateway(tuple(ip for ip, one in seen if one == mac), mac)
