"""Which addresses of a container network the load balancers may have. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any

LARGEST_PREFIX = 28  # 14 addresses
USUAL_PREFIX = 24  # 254 addresses


class NoRange(Exception):
    """The network has no free range; says why and what to do."""


def taken_of(network: dict[str, Any]) -> list[str]:
    """Return what is in use of a network as `docker network inspect` shows it.

    These are addresses of containers and gateways, reserved ones, and the range from which the
    engine gives addresses to containers, if it was limited to one.
    """
    containers = (network.get("Containers") or {}).values()
    taken = [c["IPv4Address"].partition("/")[0] for c in containers if c.get("IPv4Address")]
    for config in network["IPAM"]["Config"] or []:
        taken += [config[key] for key in ("Gateway", "IPRange") if config.get(key)]
        taken += (config.get("AuxiliaryAddresses") or {}).values()
    return taken


def subnet_of(network: dict[str, Any]) -> IPv4Network:
    """Return the network's IPv4 subnet. Raises: NoRange."""
    for config in network["IPAM"]["Config"] or []:
        subnet = ip_network(config["Subnet"], strict=False)
        if isinstance(subnet, IPv4Network):
            return subnet
    raise NoRange(f"the docker network {network['Name']} has no IPv4 subnet")


def choose(subnet: IPv4Network, taken: Iterable[str]) -> IPv4Network:
    """Return the highest block of `subnet` that holds nothing of `taken`.

    Engines give addresses to containers from the lowest upwards, so the top stays free longest.
    taken: addresses, and networks in CIDR form.
    Raises: NoRange.
    """
    prefix = min(max(subnet.prefixlen + 2, USUAL_PREFIX), LARGEST_PREFIX)
    used = [ip_network(text, strict=False) for text in taken if _version(text) == 4]
    if prefix > subnet.prefixlen:
        size = 1 << (32 - prefix)
        for index in range(subnet.num_addresses // size - 1, 0, -1):
            block = IPv4Network((int(subnet.network_address) + index * size, prefix))
            if not any(block.overlaps(network) for network in used):
                return block
    raise NoRange(f"{subnet} has no free block of /{prefix}; set FAKECLOUD_POOL_RANGE to one")


def _version(text: str) -> int:
    return ip_address(text.partition("/")[0]).version
