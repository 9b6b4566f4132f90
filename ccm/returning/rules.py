"""What the kernel of a node is told: marks, routing tables and the text for nft. Pure.

Tried on kind with kube-proxy in nftables mode and in iptables mode; both use the bits 0x4000 and
0x8000.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

TABLE: Final = "fakecloud_returns"
MOST: Final = 15
"""Gateways that can be told apart by the mark's bits."""
MASK: Final = 0x00F0_0000
_SHIFT: Final = 20
_KEEP: Final = 0xFFFF_FFFF & ~MASK
FIRST_ROUTES: Final = 0xFC00
"""Number of the first routing table; each gateway has one, for both families."""
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}")


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where load balancers are: addresses (at most one per family, canonical) and MAC."""

    ips: tuple[str, ...]
    mac: str

    def __post_init__(self) -> None:
        """Refuse what is no MAC. Raises: ValueError."""
        if not _MAC.fullmatch(self.mac):
            raise ValueError(f"not a MAC: {self.mac!r}")


def mark(index: int) -> int:
    """Return the mark of the connections of the gateway at `index`."""
    return (index + 1) << _SHIFT


def routes(index: int) -> int:
    """Return the number of the routing table of the gateway at `index`."""
    return FIRST_ROUTES + index


def ruleset(gateways: Sequence[Gateway], interface: str) -> str:
    """Return the whole table as a text for nft, which replaces an older one at once.

    interface: where load balancers reach this node. Raises: ValueError.
    """
    if not _INTERFACE.fullmatch(interface):
        raise ValueError(f"not an interface: {interface!r}")
    if len(gateways) > MOST:
        raise ValueError(f"{len(gateways)} gateways, and at most {MOST} can be told apart")
    arriving = [
        f'    iifname "{interface}" ether saddr {one.mac} ct state new '
        f"ct mark set ct mark & {_KEEP:#010x} | {mark(index):#010x}"
        for index, one in enumerate(gateways)
    ]
    answering = [
        f"    ct direction reply ct mark & {MASK:#010x} == {mark(index):#010x} "
        f"meta mark set meta mark & {_KEEP:#010x} | {mark(index):#010x}"
        for index in range(len(gateways))
    ]
    # The first chain is for pods' answers, the second for those of the node's own processes.
    lines = [
        f"table inet {TABLE}",
        f"delete table inet {TABLE}",
        f"table inet {TABLE} {{",
        "  chain prerouting {",
        "    type filter hook prerouting priority mangle; policy accept;",
        *arriving,
        *answering,
        "  }",
        "  chain output {",
        "    type route hook output priority mangle; policy accept;",
        *answering,
        "  }",
        "}",
    ]
    return "\n".join([*lines, ""])


def removal() -> str:
    """Return the text for nft that leaves nothing of the table."""
    return f"table inet {TABLE}\ndelete table inet {TABLE}\n"
