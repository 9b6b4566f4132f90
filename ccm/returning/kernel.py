"""The door to a node's kernel: names, neighbours, routes by mark, nftables. Needs CAP_NET_ADMIN."""

from __future__ import annotations

import errno
import socket
import subprocess
from ipaddress import ip_address
from typing import Any, Final

from pyroute2 import IPRoute, NetlinkError

from ccm import errors
from ccm.returning import rules

PRIORITY: Final = 0xFC
NFT_S: Final = 10
_DISCARD_PORT: Final = 9
_TO_TABLE: Final = 1  # linux/fib_rules.h
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


class Kernel:
    """The kernel of the network namespace that this process is in. Every method may be repeated."""

    def __init__(self, interface: str) -> None:
        """Look at neighbours on `interface`. Raises: ConfigError if there is none of that name."""
        try:
            self._index = socket.if_nametoindex(interface)
        except OSError:
            raise errors.ConfigError(f"--interface {interface}: there is none here") from None

    def addresses(self, host: str) -> tuple[str, ...]:
        """Return the first address of each family of `host`; none while its name isn't known."""
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            return ()
        ips = {family: str(place[0]) for family, _, _, _, place in reversed(found)}
        return tuple(ips[family] for family in sorted(ips))

    def mac(self, ip: str) -> str | None:
        """Return who answers for `ip` on the link, None if nobody did yet."""
        family = _FAMILIES[ip_address(ip).version]
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asking:
            try:
                asking.sendto(b"", (ip, _DISCARD_PORT))  # the kernel asks the link before
            except OSError:
                return None
        with IPRoute() as route:
            for one in route.get_neighbours(family=family, ifindex=self._index):
                if one.get_attr("NDA_DST") == ip:
                    found = one.get_attr("NDA_LLADDR")
                    return None if found is None else str(found)
        return None

    def tell(self, ruleset: str) -> None:
        """Put a text for nft into effect, as a whole or not at all. Raises: ConfigError."""
        try:
            subprocess.run(
                ["nft", "-f", "-"],  # noqa: S607 - the image's own
                input=ruleset,
                text=True,
                capture_output=True,
                timeout=NFT_S,
                check=True,
            )
        except FileNotFoundError:
            raise errors.ConfigError("nft is not there: install nftables") from None
        except subprocess.TimeoutExpired:
            raise errors.ConfigError(f"nft gave no answer within {NFT_S} s") from None
        except subprocess.CalledProcessError as error:
            raise errors.ConfigError(f"nft refused: {error.stderr.strip()[:300]}") from None

    def route(self, index: int, ip: str) -> None:
        """Send packets with the mark of gateway `index` to `ip`. Raises: ConfigError."""
        family, table = _FAMILIES[ip_address(ip).version], rules.routes(index)
        with IPRoute() as route:
            try:
                route.route("replace", family=family, dst="default", gateway=ip, oif=self._index,
                            table=table)  # fmt: skip
                route.rule("add", family=family, **_rule(index))
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise errors.ConfigError(f"no route by {ip}: {error}") from None

    def remove(self, index: int) -> None:
        """Leave nothing of the routes of gateway `index`. Raises: ConfigError."""
        with IPRoute() as route:
            for family in _FAMILIES.values():
                try:
                    route.rule("del", family=family, **_rule(index))
                    route.flush_routes(family=family, table=rules.routes(index))
                except NetlinkError as error:
                    if error.code not in (errno.ENOENT, errno.ESRCH, errno.EAFNOSUPPORT):
                        raise errors.ConfigError(f"routes were not removed: {error}") from None


def _rule(index: int) -> dict[str, Any]:
    return {
        "fwmark": rules.mark(index),
        "fwmask": rules.MASK,
        "table": rules.routes(index),
        "priority": PRIORITY,
        "action": _TO_TABLE,
    }
