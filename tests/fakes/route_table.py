"""A table of routes in memory, as the kernel's behaves."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from fakecloud.errors import Permanent


class FakeRoutes:
    """`foreign`: what others routed; `links`: networks that next hops can be on."""

    def __init__(self, *links: str) -> None:
        self.links = [ip_network(one) for one in links]
        self.foreign: list[str] = list(links)
        self.ours: dict[str, str] = {}
        self.calls: list[tuple[str, ...]] = []
        self._news = False

    def changed(self) -> bool:
        """Say whether anything changed since the last call."""
        news, self._news = self._news, False
        return news

    def present(self) -> Mapping[str, str]:
        """Return ours."""
        self.calls.append(("present",))
        return dict(self.ours)

    def put(self, destination: str, next_hop: str) -> None:
        """Lead there."""
        self.calls.append(("put", destination, next_hop))
        wanted = ip_network(destination)
        for other in map(ip_network, self.foreign):
            if other.version == wanted.version and other.overlaps(wanted):
                raise Permanent("route_failed", f"{destination} overlaps {other}")
        if not any(ip_address(next_hop) in link for link in self.links):
            raise Permanent("route_failed", f"next hop {next_hop} is on no link")
        self.ours[destination] = next_hop
        self._news = True

    def remove(self, destination: str) -> None:
        """Lead there no more."""
        self.calls.append(("remove", destination))
        self._news = self.ours.pop(destination, None) is not None or self._news

    def meddle(self, destination: str) -> None:
        """Let somebody else remove a route of ours."""
        del self.ours[destination]
        self._news = True
