"""Address pools: what `--pool` says, and which address of a pool comes next."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final, Literal

import msgspec

from fakecloud.errors import StartError
from fakecloud.model import Family

QUARANTINE_S: Final = 60
MAX_INTERFACE: Final = 15  # characters, the kernel's IFNAMSIZ
AUTO: Final = "auto"
"""As a CIDR of an `interface` pool: a free part of the interface's networks, one of each family."""
_POOL = re.compile(
    r"(?P<name>[a-z][a-z0-9-]{0,31})=(?P<kind>[a-z]+):(?P<cidr>[^@]+)(?:@(?P<interface>[\w.-]{1,63}))?"
)
_FORM = "NAME=KIND:CIDR[@INTERFACE or NETWORK], for example default=loopback:127.77.0.0/16"


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """A range of addresses.

    An `interface` pool puts its addresses on that network interface; a `docker` pool gives each
    load balancer a container on the engine's network `docker_network`.
    """

    name: str
    kind: Literal["loopback", "interface", "docker"]
    network: IPv4Network | IPv6Network
    interface: str | None = None
    docker_network: str | None = None

    @property
    def family(self) -> Family:
        """Return the pool's address family."""
        return "ipv4" if self.network.version == 4 else "ipv6"


def automatic(text: str) -> tuple[str, str] | None:
    """Return name and interface of a pool that finds its range itself, None of any other."""
    match = _POOL.fullmatch(text)
    if match is None or (match["kind"], match["cidr"]) != ("interface", AUTO):
        return None
    if match["interface"] is None:
        raise StartError(f"--pool {match['name']}: say the interface, for example {AUTO}@eth0")
    return match["name"], match["interface"]


def parse_pool(text: str) -> Pool:
    """Return the pool that `text` names. Raises: StartError, naming the part that is wrong."""
    match = _POOL.fullmatch(text)
    if match is None:
        raise StartError(f"--pool {text!r} is not of the form {_FORM}")
    name, kind, cidr, interface = match["name"], match["kind"], match["cidr"], match["interface"]
    try:
        network = ip_network(cidr)
    except ValueError as error:
        raise StartError(f"--pool {name}: {cidr!r} is not a network: {error}") from None
    problem = _mismatch(kind, network, interface)
    if problem:
        raise StartError(f"--pool {name}: {problem}")
    return Pool(
        name=name,
        kind="interface" if kind == "interface" else "docker" if kind == "docker" else "loopback",
        network=network,
        interface=interface if kind == "interface" else None,
        docker_network=interface if kind == "docker" else None,
    )


def _mismatch(kind: str, network: IPv4Network | IPv6Network, where: str | None) -> str | None:
    """Return what is wrong with the parts taken together, None when they fit."""
    if network.num_addresses < 4:
        return f"{network} is too small; give at least four addresses"
    if kind == "docker":
        return None if where else f"say the container network, for example {network}@kind"
    if kind == "interface":
        if where is None:
            return f"say the interface, for example {network}@eth0"
        return f"no interface has a name like {where!r}" if len(where) > MAX_INTERFACE else None
    return _loopback_mismatch(kind, network, where)


def _loopback_mismatch(
    kind: str, network: IPv4Network | IPv6Network, where: str | None
) -> str | None:
    if kind != "loopback":
        return f"kind {kind!r} is not one of loopback, interface, docker"
    if where is not None:
        return f"a loopback pool takes no @{where}"
    if network.version == 4 and not network.is_loopback:
        return f"{network} is not inside 127.0.0.0/8; use kind interface"
    return None


def gives(pool: Pool, ip: str) -> bool:
    """Say whether `ip` is one of the pool's addresses; its first and last never are given."""
    network, address = pool.network, ip_address(ip)
    return address in network and address not in (network[0], network[-1])


def after(pool: Pool, last: str | None) -> Iterator[str]:
    """Yield the addresses of `pool` after `last`, going around once; at most 65536 of a large one.

    The first and the last address of the range are never given (network and broadcast).
    last: the address given most recently, so that a released one is reused as late as possible.
    """
    size = pool.network.num_addresses - 2
    start = 0
    if last is not None and ip_address(last) in pool.network:
        start = int(ip_address(last)) - int(pool.network.network_address)
    for step in range(min(size, 1 << 16)):
        yield str(pool.network[1 + (start + step) % size])
