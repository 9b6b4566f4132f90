"""The door to netlink: a load balancer's address is put on, and taken off, a network interface.

Everything here works with CAP_NET_ADMIN alone. Probing and announcing usually craft ARP and ND
packets, which needs CAP_NET_RAW; here the kernel is made to send them:
a probe is a neighbour entry in use, which the kernel resolves; an announcement is a datagram from
the new address, before which the kernel must ask "who has …, tell NEW ADDRESS" on the whole link.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
)
from pathlib import Path
from threading import Event
from typing import Any, Final

from fakecloud import errors
from fakecloud.clock import Clock

# Our mark on an address: the protocol number that `ip address` shows as `proto` (Linux >= 5.18;
# 1 to 3 are the kernel's, others are free), and for IPv4 also the label `eth0:fc`.
MARK: Final = 0xFC
LABEL: Final = "fc"

_CAP_NET_ADMIN: Final = 12
_REMEDY: Final = (
    "give the container --cap-add NET_ADMIN, run the server as root, or use a loopback pool"
)
# linux/neighbour.h: an entry of these states has, or had a moment ago, an owner on the link.
_NUD_INCOMPLETE: Final = 0x01
_NUD_OWNED: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x80  # reachable, stale, delay, probe, permanent
_NTF_USE: Final = 0x01
# linux/if_addr.h
_IFA_F_NODAD: Final = 0x02
_IFA_F_DEPRECATED: Final = 0x20
_IFA_F_TENTATIVE: Final = 0x40
_OURS_V6: Final = _IFA_F_NODAD | _IFA_F_DEPRECATED
# linux/rtnetlink.h, linux/netlink.h, linux/if_addr.h
_RTM_NEWADDR: Final = 20
_REQUEST_REPLACE: Final = 0x001 | 0x100
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL, _IFA_CACHEINFO, _IFA_FLAGS, _IFA_PROTO = 1, 2, 3, 6, 8, 11
_FOR_EVER: Final = 0xFFFFFFFF
_BATCH: Final = 200  # messages of one system call
_IP_PKTINFO: Final = 8  # linux/in.h; absent from the socket module before Python 3.14
_NOBODY: Final = "192.0.2.1"  # TEST-NET-1 (RFC 5737): no owner on any link
_DISCARD_PORT: Final = 9
_DAD_S: Final = 3.0  # a fresh link-local address becomes usable within 1 to 2 s

Address = IPv4Address | IPv6Address


class InterfaceAddresses:
    """The addresses that this cloud put on one interface. Safe from several threads.

    Every method may be repeated. Raised by all but `present` and `__init__`:
    errors.Permanent `bind_failed` (capability missing), `address_in_use` (the interface's own);
    errors.Transient `bind_failed` (interface gone, kernel refused; the errno is named).
    """

    def __init__(self, interface: str, clock: Clock, *, probe_wait_s: float = 0.2) -> None:
        """Check that addresses of `interface` can be changed.

        probe_wait_s: how long nobody must answer until an address counts as free; an owner on a
        container network answers within 1 ms (measured).
        Raises: errors.StartError without such an interface or without CAP_NET_ADMIN.
        """
        if not _holds_net_admin():
            raise errors.StartError(
                f"an interface pool on {interface} needs the capability CAP_NET_ADMIN: {_REMEDY}"
            )
        # 0.2 s and 27 MB: paid only by a server that has an interface pool.
        from pyroute2 import IPRoute, NetlinkError

        self._connect: Any = IPRoute
        self._netlink_error: Any = NetlinkError
        self._clock = clock
        self._probe_wait_s = probe_wait_s
        self.interface = interface
        with self._connect() as route:
            if not route.link_lookup(ifname=interface):
                names = ", ".join(
                    sorted(link.get_attr("IFLA_IFNAME") for link in route.get_links())
                )
                raise errors.StartError(f"no interface {interface!r} here; there are: {names}")

    def present(self) -> set[str]:
        """Return the addresses that this cloud, or a predecessor that crashed, put there.

        Pools that share the interface see each other's: intersect with the pool's network.
        Raises: errors.Transient when the interface is gone.
        """
        with self._route() as (route, index):
            return {_text(m) for m in route.get_addr(index=index) if is_ours(m)}

    def networks(self) -> list[IPv4Interface | IPv6Interface]:
        """Return the interface's own addresses with their networks, not those that are only local.

        Raises: errors.Transient when the interface is gone.
        """
        with self._route() as (route, index):
            found = [
                ip_interface(f"{_text(m)}/{m['prefixlen']}")
                for m in route.get_addr(index=index)
                if not is_ours(m)
            ]
        return [one for one in found if one.network.num_addresses > 1 and not one.is_link_local]

    def anybody_in(self, network: IPv4Network | IPv6Network) -> bool:
        """Return whether somebody else on the link answers for an address of `network`.

        At most 256 addresses; all are asked at once, and waited for as long as for one.
        """
        ips = {str(ip) for ip in network}
        family = socket.AF_INET if network.version == 4 else socket.AF_INET6
        with self._route() as (route, index):
            if network.version == 6:
                self._await_source(route, index)
            ips -= {_text(message) for message in route.get_addr(index=index)}
            for ip in ips:
                self._forget(route, index, ip)
                self._ask(route, index, ip_address(ip))
            # Beyond their queue's length the kernel asks a little later: twice the wait of one.
            self._clock.wait(Event(), 2 * self._probe_wait_s)
            neighbours = route.get_neighbours(family=family, ifindex=index)
            owners = [
                n.get_attr("NDA_DST")
                for n in neighbours
                if n["state"] & _NUD_OWNED and n.get_attr("NDA_DST") in ips
            ]
            for ip in ips:
                self._forget(route, index, ip)
        return bool(owners)

    def in_use_elsewhere(self, ip: str) -> bool:
        """Return whether somebody else on the link answers for `ip`, or the interface itself does.

        Takes up to `probe_wait_s` when nobody does. Ours already: False, without a probe.
        """
        address = ip_address(ip)
        with self._route() as (route, index):
            for message in route.get_addr(index=index):
                if _text(message) == str(address):
                    return not is_ours(message)
            if address.version == 6:
                self._await_source(route, index)
            return self._answered(route, index, address)

    def add(self, ip: str, lifetime_s: int | None = None) -> None:
        """Put `ip` on the interface: IPv4 as /32; IPv6 as /128, usable at once, never a source.

        lifetime_s: the kernel takes it off by itself after so long without `renew`, also when
        this process is dead or stopped (2.03 s for 2 s, measured); None: never.
        """
        address = ip_address(ip)
        with self._route() as (route, index):
            held = [m for m in route.get_addr(index=index) if _text(m) == str(address)]
            if any(is_ours(message) for message in held):
                return
            if held:
                raise errors.Permanent(
                    "address_in_use",
                    f"{address} is the own address of {self.interface}: "
                    "choose a pool range without it",
                )
            route.addr("add", index=index, proto=MARK, **self._wanted(address, lifetime_s))

    def renew(self, ips: Iterable[str], lifetime_s: int | None) -> None:
        """Let these addresses live for `lifetime_s` from now on. One system call for all of them.

        One that is not there any more would be put back, unprobed: renew in time.
        """
        try:
            index = socket.if_nametoindex(self.interface)
            messages = [self._renewal(ip_address(ip), index, lifetime_s) for ip in ips]
            # pyroute2 needs 1 ms for each (measured), and this is done again and again.
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
                for start in range(0, len(messages), _BATCH):
                    kernel.send(b"".join(messages[start : start + _BATCH]))
        except OSError as error:
            raise translated(self.interface, error.errno or 0) from error

    def _renewal(self, address: Address, index: int, lifetime_s: int | None) -> bytes:
        """Return an RTM_NEWADDR message that replaces the lifetimes (rtnetlink(7))."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        valid = _FOR_EVER if lifetime_s is None else lifetime_s
        preferred = valid if address.version == 4 else 0
        body = struct.pack("=BBBBi", family, address.max_prefixlen, 0, 0, index)
        body += _attribute(_IFA_LOCAL, address.packed) + _attribute(_IFA_ADDRESS, address.packed)
        if address.version == 4:
            body += _attribute(_IFA_LABEL, label(self.interface).encode() + b"\0")
        else:
            body += _attribute(_IFA_FLAGS, struct.pack("=I", _IFA_F_NODAD))
        body += _attribute(_IFA_CACHEINFO, struct.pack("=IIII", preferred, valid, 0, 0))
        body += _attribute(_IFA_PROTO, bytes([MARK]))
        header = struct.pack("=IHHII", 16 + len(body), _RTM_NEWADDR, _REQUEST_REPLACE, 0, 0)
        return header + body

    def remove(self, ip: str) -> None:
        """Take `ip` off the interface if this cloud put it there."""
        address = ip_address(ip)
        if str(address) not in self.present():
            return
        with self._route(allowed=errno.EADDRNOTAVAIL) as (route, index):
            route.addr("del", index=index, address=str(address), prefixlen=address.max_prefixlen)

    def announce(self, ip: str) -> None:
        """Tell the link that `ip` lives here now, so that nobody sends to a former owner's MAC.

        Without it, peers that knew a former owner were cut off for more than 20 s (measured on a
        container network), with it for none. A peer that learnt the former owner within the last
        second may ignore it (`locktime`): announce again after a second when an address moved.
        IPv6: only where `net.ipv6.conf.{all,INTERFACE}.ndisc_notify` is 1, else nothing is sent.
        """
        address = ip_address(ip)
        with self._route() as (route, index):
            if address.version == 4:
                _ask_from(address, index)
                self._forget(route, index, _NOBODY)
            elif self._notifies():
                # The kernel re-announces every IPv6 address when the MAC is set, even to itself.
                link = next(iter(route.get_links(index)))
                route.link("set", index=index, address=link.get_attr("IFLA_ADDRESS"))

    def _wanted(self, address: Address, lifetime_s: int | None) -> dict[str, object]:
        """Return the address's attributes beside its interface and mark."""
        wanted: dict[str, object] = {"address": str(address), "prefixlen": address.max_prefixlen}
        valid = _FOR_EVER if lifetime_s is None else lifetime_s
        if address.version == 4:
            named = wanted | {"label": label(self.interface)}
            return named if lifetime_s is None else named | {"valid": valid, "preferred": valid}
        # preferred 0: answers come from it, connections of this host never do.
        return wanted | {"flags": _IFA_F_NODAD, "preferred": 0, "valid": valid}

    def _answered(self, route: Any, index: int, address: Address) -> bool:
        """Return whether a neighbour entry for `address` gets a MAC within the wait."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self._forget(route, index, str(address))  # an old entry would vouch for a former owner
        self._ask(route, index, address)
        deadline, pause, never = self._clock.monotonic() + self._probe_wait_s, 0.002, Event()
        state = _NUD_INCOMPLETE
        while state == _NUD_INCOMPLETE and self._clock.monotonic() < deadline:
            self._clock.wait(never, pause)
            pause = min(2 * pause, 0.04)
            neighbours = route.get_neighbours(family=family, ifindex=index)
            found = [n["state"] for n in neighbours if n.get_attr("NDA_DST") == str(address)]
            state = found[0] if found else 0
        self._forget(route, index, str(address))
        return bool(state & _NUD_OWNED)

    def _ask(self, route: Any, index: int, address: Address) -> None:
        """Make the kernel ask the link for `address`."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        entry = {"dst": str(address), "ifindex": index, "family": family}
        route.neigh("replace", state=0, flags=_NTF_USE, **entry)

    def _await_source(self, route: Any, index: int) -> None:
        """Wait, bounded, until the interface's own addresses can ask: tentative ones can't."""
        deadline, never = self._clock.monotonic() + _DAD_S, Event()
        while self._clock.monotonic() < deadline:
            flags = [_flags(m) for m in route.get_addr(index=index, family=socket.AF_INET6)]
            if not any(flag & _IFA_F_TENTATIVE for flag in flags):
                return
            self._clock.wait(never, 0.05)

    def _forget(self, route: Any, index: int, ip: str) -> None:
        """Drop the neighbour entry of `ip`, if there is one."""
        family = socket.AF_INET if ip_address(ip).version == 4 else socket.AF_INET6
        try:
            route.neigh("del", dst=ip, ifindex=index, family=family)
        except self._netlink_error as error:
            if error.code != errno.ENOENT:
                raise

    def _notifies(self) -> bool:
        """Return whether the kernel announces IPv6 addresses of the interface."""
        conf = Path("/proc/sys/net/ipv6/conf")
        files = [conf / scope / "ndisc_notify" for scope in ("all", self.interface)]
        return any(file.is_file() and file.read_text().strip() == "1" for file in files)

    @contextlib.contextmanager
    def _route(self, allowed: int | None = None) -> Iterator[tuple[Any, int]]:
        """Open a netlink socket of this call's own (1 ms); `allowed` is an errno that is no error."""
        try:
            with self._connect() as route:
                found = route.link_lookup(ifname=self.interface)
                if not found:
                    raise errors.Transient("bind_failed", f"interface {self.interface} is gone")
                yield route, found[0]
        except (self._netlink_error, OSError) as error:
            code = error.code if isinstance(error, self._netlink_error) else error.errno
            if code == allowed:
                return
            raise translated(self.interface, int(code or 0)) from error


def _attribute(kind: int, value: bytes) -> bytes:
    """Return a netlink attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def label(interface: str) -> str:
    """Return the label of our IPv4 addresses on `interface`; the kernel allows 15 characters."""
    return f"{interface[:12]}:{LABEL}"


def is_ours(message: Any) -> bool:
    """Return whether an RTM_NEWADDR message is of an address that this cloud made.

    Kernels before 5.18 forget the mark; there IPv4 is told by the label, and IPv6 by a
    combination that nothing else uses: deprecated and `nodad` with a /128.
    """
    if message.get_attr("IFA_PROTO") == MARK:
        return True
    if message["family"] == socket.AF_INET:
        return str(message.get_attr("IFA_LABEL") or "").endswith(f":{LABEL}")
    return message["prefixlen"] == 128 and _flags(message) & _OURS_V6 == _OURS_V6


def _flags(message: Any) -> int:
    """Return all flags; the header has room for the first eight only."""
    return int(message.get_attr("IFA_FLAGS") or message["flags"])


def _text(message: Any) -> str:
    """Return the address of an RTM_NEWADDR message in its canonical form."""
    return str(ip_address(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")))


def _ask_from(address: Address, index: int) -> None:
    """Make the kernel broadcast one ARP request whose sender is `address`."""
    pktinfo = struct.pack("=i4s4s", index, address.packed, bytes(4))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        sender.sendmsg(
            [b""],
            [(socket.IPPROTO_IP, _IP_PKTINFO, pktinfo)],
            socket.MSG_DONTROUTE,
            (_NOBODY, _DISCARD_PORT),
        )


def _holds_net_admin() -> bool:
    """Return whether this process has CAP_NET_ADMIN in effect."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return False


def translated(what: str, number: int, code: str = "bind_failed") -> errors.DataPlaneError:
    """Return the error of the cloud's tree for a kernel's errno; `what` was to be changed."""
    name = errno.errorcode.get(number, str(number))
    if number in (errno.EPERM, errno.EACCES):
        return errors.Permanent(code, f"changing {what} needs CAP_NET_ADMIN: {_REMEDY}")
    return errors.Transient(code, f"{what}: the kernel answered {name}")
