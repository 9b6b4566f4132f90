"""Which part of a network an interface pool takes when it is told `auto`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import Final

from fakecloud.errors import StartError

Network = IPv4Network | IPv6Network
Interface = IPv4Interface | IPv6Interface

USUAL_BITS: Final = 8  # 254 addresses
LEAST_BITS: Final = 4  # 14 addresses
MOST_BLOCKS: Final = 256
"""So many blocks are looked at: the whole of a network of 16 bits."""


def blocks(network: Network) -> Iterator[Network]:
    """Yield blocks of a network from the top downwards, without the lowest.

    Container engines give addresses from the lowest upwards, so the top stays free longest.
    Nothing of a network that is too small for a block beside its hosts.
    """
    host_bits = network.max_prefixlen - network.prefixlen
    bits = max(min(host_bits - 2, USUAL_BITS), LEAST_BITS)
    if bits >= host_bits:
        return
    number = 1 << (host_bits - bits)
    for index in range(number - 1, max(0, number - 1 - MOST_BLOCKS), -1):
        first = network[0] + (index << bits)
        yield type(network)((int(first), network.max_prefixlen - bits))


def choose(
    own: Interface, is_used: Callable[[Network], bool], remembered: Network | None
) -> Network:
    """Return the block for the interface whose own address is `own`.

    remembered: the block of an earlier start; it stays while it is part of the network.
    is_used: whether anybody answers for an address of a block. Raises: StartError.
    """
    network = own.network
    if remembered is not None and remembered.version == network.version:
        inside = remembered.network_address in network and remembered.prefixlen > network.prefixlen
        if inside and own.ip not in remembered:
            return remembered
    for block in blocks(network):
        if own.ip not in block and not is_used(block):
            return block
    raise StartError(
        f"{network} has no free block for load balancers: somebody answers in each of them; "
        "give the range that is free, such as --pool default=interface:CIDR@eth0"
    )
