"""Networks and routes as values: which addresses are behind which machine, and what is refused.

A network is a range of private addresses, such as those of a cluster's pods; a route leads a part
of it to a next hop, the node that has these pods. All load balancers of a host share one table of
routes, so ranges of networks never overlap, whoever's they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final, Literal

import msgspec

Cidr = IPv4Network | IPv6Network

_PRIVATE: Final[tuple[Cidr, ...]] = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
"""RFC 1918, RFC 6598 and RFC 4193: nobody may lead the host's way to the Internet astray."""


class NetworkWish(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer says about a network."""

    ranges: tuple[str, ...]
    labels: dict[str, str] = {}


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A range of addresses, one or more CIDRs, that only its routes lead to."""

    id: str
    project: str
    name: str
    ranges: tuple[str, ...]
    labels: dict[str, str]
    resource_version: int
    created_at: datetime
    updated_at: datetime

    @property
    def wish(self) -> NetworkWish:
        """Return what the customer said."""
        return NetworkWish(ranges=self.ranges, labels=self.labels)


class RouteWish(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer says about a route; network: by name."""

    network: str
    destination: str
    next_hop: str
    labels: dict[str, str] = {}


class RouteError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a host can't have a route."""

    code: str
    message: str
    host: str


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A way to a part of a network. ACTIVE: load balancers use it; ERROR: a host can't have it."""

    id: str
    project: str
    name: str
    network: str
    destination: str
    next_hop: str
    labels: dict[str, str]
    state: Literal["PENDING", "ACTIVE", "ERROR"]
    last_error: RouteError | None
    resource_version: int
    created_at: datetime
    updated_at: datetime

    @property
    def wish(self) -> RouteWish:
        """Return what the customer said."""
        return RouteWish(
            network=self.network,
            destination=self.destination,
            next_hop=self.next_hop,
            labels=self.labels,
        )


def private(text: str) -> str:
    """Return a private network in canonical form. Raises: ValueError that says what it must be."""
    try:
        found = ip_network(text)
    except ValueError:
        raise ValueError(
            "must be a network with a prefix length and no bits behind it, such as 10.244.0.0/16"
        ) from None
    if not any(_contains(one, found) for one in _PRIVATE):
        raise ValueError(f"must be of private addresses: {', '.join(map(str, _PRIVATE))}")
    return str(found)


def check_next_hop(destination: str, next_hop: str) -> None:
    """Refuse a next hop that can't lead there. Raises: ValueError."""
    network, hop = ip_network(destination), ip_address(next_hop)
    if network.version != hop.version:
        raise ValueError(f"next_hop {hop} is not of the family of {network}")
    if hop in network:
        raise ValueError(f"next_hop {hop} is in {network} itself")


def within(destination: str, ranges: Iterable[str]) -> bool:
    """Return whether all of `destination` is in one of `ranges`."""
    return any(_contains(ip_network(one), ip_network(destination)) for one in ranges)


def overlapping(ranges: Iterable[str], others: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two that share an address, None if none do."""
    known = [ip_network(one) for one in others]
    for text in ranges:
        mine = ip_network(text)
        for other in known:
            if mine.version == other.version and mine.overlaps(other):
                return text, str(other)
    return None


def _contains(outer: Cidr, inner: Cidr) -> bool:
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]
