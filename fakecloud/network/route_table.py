"""The door to this host's table of routes: ways to networks behind the machines, such as pods.

Our routes carry the protocol number MARK, as `ip route show proto 252` lists them; what others
put there is never touched, and never overlapped: a route to 172.18.0.5/32 would steal the traffic
of a neighbour. They live in the network namespace of the server, where its HAProxy processes and
relays run; load balancers of `docker` pools have namespaces of their own and don't see them.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Final

from fakecloud import errors
from fakecloud.network.netlink import MARK, translated

# linux/rtnetlink.h
_RT_TABLE_MAIN: Final = 254
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # links; addresses and routes of both families
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


class KernelRoutes:
    """The routes that this cloud put into the main table. For one thread.

    Raised by `present`, `put` and `remove`: errors.Permanent, errors.Transient `route_failed`.
    """

    def __init__(self, interfaces: Collection[str]) -> None:
        """Lead to next hops on the links of `interfaces` alone; their pools checked privileges."""
        from pyroute2 import IPRoute, NetlinkError

        self._connect: Any = IPRoute
        self._netlink_error: Any = NetlinkError
        self._interfaces = sorted(set(interfaces))
        self._news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._news.bind((0, _GROUPS))
        self._news.setblocking(False)

    def changed(self) -> bool:
        """Return whether routes, addresses or links changed since the last call, by anybody."""
        heard = False
        while True:
            try:
                self._news.recv(65536)
            except BlockingIOError:
                return heard
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more news than fit is news as well
                    raise
            heard = True

    def present(self) -> Mapping[str, str]:
        """Return ours: destination to next hop."""
        with self._route() as route:
            found = (message for message in _main(route) if message["proto"] == MARK)
            return {_destination(one): str(one.get_attr("RTA_GATEWAY")) for one in found}

    def put(self, destination: str, next_hop: str) -> None:
        """Lead `destination` to `next_hop`; in place of our own route that led elsewhere."""
        wanted = ip_network(destination)
        with self._route() as route:
            ours = False
            for message in _main(route):
                there = ip_network(_destination(message))
                if message["proto"] == MARK:
                    ours = ours or there == wanted
                elif there.prefixlen and there.version == wanted.version and there.overlaps(wanted):
                    raise errors.Permanent(
                        "route_failed",
                        f"{destination} overlaps {there}, which this host reaches otherwise; "
                        "choose another range",
                    )
            route.route(
                "replace" if ours else "add",
                dst=destination,
                gateway=next_hop,
                oif=self._link(route, next_hop),
                proto=MARK,
                table=_RT_TABLE_MAIN,
                family=_FAMILIES[wanted.version],
            )

    def remove(self, destination: str) -> None:
        """Remove our route to `destination`."""
        version = ip_network(destination).version
        with self._route(allowed=errno.ESRCH) as route:
            route.route(
                "del",
                dst=destination,
                proto=MARK,
                table=_RT_TABLE_MAIN,
                family=_FAMILIES[version],
            )

    def close(self) -> None:
        """Hear no more news; the routes stay, as the load balancers do."""
        self._news.close()

    def _link(self, route: Any, next_hop: str) -> int:
        """Return the index of the interface on whose link `next_hop` is. Raises: Permanent."""
        hop = ip_address(next_hop)
        links = []
        for name in self._interfaces:
            for index in route.link_lookup(ifname=name):
                for message in route.get_addr(index=index):
                    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                    own = ip_interface(f"{text}/{message['prefixlen']}")
                    if hop in own.network and hop != own.ip:
                        return int(index)
                    if own.network.num_addresses > 1 and not own.is_link_local:
                        links.append(f"{own.network} on {name}")
        raise errors.Permanent(
            "route_failed",
            f"next hop {next_hop} is on no link of an interface pool: "
            f"{', '.join(links) or 'there is none'}",
        )

    @contextlib.contextmanager
    def _route(self, allowed: int | None = None) -> Iterator[Any]:
        try:
            with self._connect() as route:
                yield route
        except (self._netlink_error, OSError) as error:
            code = error.code if isinstance(error, self._netlink_error) else error.errno
            if code != allowed:
                raise translated("the table of routes", int(code or 0), "route_failed") from error


def _main(route: Any) -> Iterator[Any]:
    for family in _FAMILIES.values():
        for message in route.get_routes(family=family, table=_RT_TABLE_MAIN):
            # A dump has the cached and local ones too, where the kernel doesn't filter.
            table = message.get_attr("RTA_TABLE") or message["table"]
            if table == _RT_TABLE_MAIN:
                yield message


def _destination(message: Any) -> str:
    default = "0.0.0.0" if message["family"] == socket.AF_INET else "::"  # noqa: S104 - a default route
    return str(ip_network(f"{message.get_attr('RTA_DST') or default}/{message['dst_len']}"))
