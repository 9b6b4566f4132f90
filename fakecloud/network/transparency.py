"""What this host needs so that load balancers may connect from their clients' addresses.

Answers to such a connection are addressed to the client, and somebody sends them here (on a
cluster's nodes, the controller's `ccm.returning`). The kernel must take them for its own: a rule
sends TCP packets that come in by the pool's interface to a table in which every address is local.
A rule for TCP alone leaves ARP in peace, which asks the same tables whether to answer. Whatever
else arrives by the interface for somebody else is answered with a reset: so it has to be a network
namespace that forwards nothing.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Final

from fakecloud import errors

OLDEST_HAPROXY: Final = (2, 9)
"""From here on it can stop being root and keep one capability (`setcap`)."""
TABLE: Final = 0xFC
PRIORITY: Final = 0xFC
"""After the kernel's own table of local addresses, before all others."""
_CAP_NET_RAW: Final = 13
# linux/fib_rules.h, linux/rtnetlink.h
_TO_TABLE: Final = 1
_LOCAL: Final = 2
_SCOPE_HOST: Final = 254


def check(interfaces: Collection[str], haproxy: tuple[int, int], *, changes_user: bool) -> None:
    """Raises: StartError when connections from other addresses can't be made here."""
    needs = "--transparent needs "
    if not interfaces:
        raise errors.StartError(
            f"{needs}an interface pool, in a network namespace (a container) of its own"
        )
    if changes_user and haproxy < OLDEST_HAPROXY:
        found = ".".join(map(str, haproxy))
        raise errors.StartError(f"{needs}HAProxy 2.9 or later, this is {found}")
    if not _holds_net_raw():
        raise errors.StartError(
            f"{needs}the capability CAP_NET_RAW: give the container --cap-add NET_RAW"
        )


def take_answers(interface: str) -> None:
    """Take TCP packets that come in by `interface` for ours. Repeating is harmless.

    Raises: StartError when the kernel refuses.
    """
    from pyroute2 import (
        IPRoute,
        NetlinkError,
    )  # as in `netlink`: not for servers that don't need it

    with IPRoute() as route:
        lo = route.link_lookup(ifname="lo")[0]
        for family, everything in ((socket.AF_INET, "0.0.0.0/0"), (socket.AF_INET6, "::/0")):
            try:
                route.route("replace", family=family, dst=everything, type=_LOCAL,
                            scope=_SCOPE_HOST, oif=lo, table=TABLE)  # fmt: skip
                route.rule("add", family=family, iifname=interface, ip_proto=socket.IPPROTO_TCP,
                           table=TABLE, priority=PRIORITY, action=_TO_TABLE)  # fmt: skip
            except NetlinkError as error:
                if error.code == errno.EEXIST:
                    continue
                if family == socket.AF_INET6 and error.code in (errno.EAFNOSUPPORT, errno.EACCES):
                    continue  # a namespace without IPv6
                raise errors.StartError(
                    f"--transparent: the kernel refuses a rule for {interface}: {error}"
                ) from None


def _holds_net_raw() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_NET_RAW & 1)
    return False
