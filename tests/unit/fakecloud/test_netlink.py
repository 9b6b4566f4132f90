"""Addresses on an interface, on real kernel namespaces: two of them joined by a virtual cable."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from threading import Event

import pytest

from fakecloud import clock, errors, settings
from fakecloud.dataplane import premises
from fakecloud.network import netlink

CLONE_NEWNET = 0x40000000
LEFT4, RIGHT4, FREE4 = "10.9.0.1", "10.9.0.2", "10.9.0.77"
LEFT6, RIGHT6, FREE6 = "fd09::1", "fd09::2", "fd09::77"
KEPT4, KEPT6 = "10.9.0.78", "fd09::78"

libc = ctypes.CDLL(None, use_errno=True)


def can_make_namespaces() -> bool:
    caps = next(s for s in Path("/proc/self/status").read_text().splitlines() if "CapEff" in s)
    return bool(int(caps.split()[1], 16) >> 21 & 1)  # CAP_SYS_ADMIN


needs_root = pytest.mark.skipif(
    not can_make_namespaces(), reason="network namespaces need CAP_SYS_ADMIN (run as root)"
)


class Cable:
    """Two network namespaces, `left` and `right`, each with one end named eth0."""

    def __init__(self, *, dad: bool = False) -> None:
        self.dad = dad  # whether link-local addresses are first probed for, 1 to 2 s, as usual
        self.home = self._here()
        self.left = self._fresh()
        self.right = self._fresh()
        with self.inside(self.left):
            self._lay()

    @staticmethod
    def _here() -> int:
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def _fresh(self) -> int:
        assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        made = self._here()
        assert libc.setns(self.home, CLONE_NEWNET) == 0
        return made

    @contextlib.contextmanager
    def inside(self, namespace: int) -> Iterator[None]:
        assert libc.setns(namespace, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(self.home, CLONE_NEWNET) == 0

    def _lay(self) -> None:
        from pyroute2 import IPRoute

        with IPRoute() as route:
            peer = {"ifname": "eth0", "net_ns_fd": self.right}
            route.link("add", ifname="eth0", kind="veth", peer=peer)
            self._raise(route, LEFT4, LEFT6)
        with self.inside(self.right), IPRoute() as route:
            self._raise(route, RIGHT4, RIGHT6)
        libc.setns(self.left, CLONE_NEWNET)

    def _raise(self, route: object, four: str, six: str) -> None:
        index = route.link_lookup(ifname="eth0")[0]
        Path("/proc/sys/net/ipv6/conf/eth0/accept_dad").write_text("1" if self.dad else "0")
        route.link("set", index=index, state="up")
        route.addr("add", index=index, address=four, prefixlen=24)
        route.addr("add", index=index, address=six, prefixlen=64, flags=2)

    def mac(self, namespace: int) -> str:
        from pyroute2 import IPRoute

        with self.inside(namespace), IPRoute() as route:
            index = route.link_lookup(ifname="eth0")[0]
            return str(next(iter(route.get_links(index))).get_attr("IFLA_ADDRESS"))

    def remember(self, namespace: int, ip: str, mac: str) -> None:
        """Let `namespace` believe that `ip` lives at `mac`, as after a moved address."""
        from pyroute2 import IPRoute

        with self.inside(namespace), IPRoute() as route:
            index = route.link_lookup(ifname="eth0")[0]
            route.neigh("replace", dst=ip, ifindex=index, lladdr=mac, state=0x04)

    def neighbour(self, namespace: int, ip: str) -> str | None:
        from pyroute2 import IPRoute

        with self.inside(namespace), IPRoute() as route:
            for family in (2, 10):
                for entry in route.get_neighbours(family=family):
                    if entry.get_attr("NDA_DST") == ip:
                        return entry.get_attr("NDA_LLADDR")
        return None

    def close(self) -> None:
        for fd in (self.left, self.right, self.home):
            os.close(fd)


@pytest.fixture
def cable() -> Iterator[Cable]:
    made = Cable()
    yield made
    made.close()


def door(interface: str = "eth0", wait_s: float = 0.05) -> netlink.InterfaceAddresses:
    return netlink.InterfaceAddresses(interface, clock.SystemClock(), probe_wait_s=wait_s)


@needs_root
@pytest.mark.parametrize(("ip", "prefix"), [(FREE4, 32), (FREE6, 128)])
def test_added_address_is_ours_until_removed_and_every_step_may_repeat(cable, ip, prefix):
    with cable.inside(cable.left):
        addresses = door()
        assert addresses.present() == set()
        addresses.add(ip)
        addresses.add(ip)
        assert addresses.present() == {ip}
        addresses.remove(ip)
        addresses.remove(ip)
        assert addresses.present() == set()


@needs_root
def test_successor_finds_what_a_crashed_predecessor_left(cable):
    with cable.inside(cable.left):
        first = door()
        first.add(FREE4)
        first.add(FREE6)
        assert door().present() == {FREE4, FREE6}


@needs_root
def test_kernel_takes_off_what_is_not_renewed(cable):
    with cable.inside(cable.left):
        addresses, time, never = door(), clock.SystemClock(), Event()
        for ip in (FREE4, FREE6):
            addresses.add(ip, 1)
        for ip in (KEPT4, KEPT6):
            addresses.add(ip)
            addresses.renew([ip], 1)
        for _ in range(6):
            time.wait(never, 0.5)
            addresses.renew([KEPT4, KEPT6], 1)
        assert addresses.present() == {KEPT4, KEPT6}
        addresses.renew([KEPT4, KEPT6], None)
        time.wait(never, 2.5)
        assert addresses.present() == {KEPT4, KEPT6}
        addresses.remove(KEPT4)
        addresses.remove(KEPT6)
        assert addresses.present() == set()


@needs_root
def test_renewal_of_many_is_one_call(cable):
    many = [f"10.9.{1 + i // 250}.{i % 250}" for i in range(500)]
    with cable.inside(cable.left):
        addresses = door()
        addresses.renew(many, 30)  # replacing what is not there puts it there
        assert addresses.present() == set(many)


@needs_root
@pytest.mark.parametrize(
    ("ip", "used"),
    [(RIGHT4, True), (FREE4, False), (RIGHT6, True), (FREE6, False), (LEFT4, True), (LEFT6, True)],
    ids=["peer4", "free4", "peer6", "free6", "own4", "own6"],
)
def test_address_of_a_peer_or_of_the_interface_itself_is_in_use(cable, ip, used):
    with cable.inside(cable.left):
        # An answer ends the wait; a busy machine may take long to give one.
        assert door(wait_s=5.0 if used else 0.05).in_use_elsewhere(ip) is used
        assert ip not in neighbours()


def neighbours() -> set[str]:
    from pyroute2 import IPRoute

    with IPRoute() as route:
        entries = [*route.get_neighbours(family=2), *route.get_neighbours(family=10)]
    return {entry.get_attr("NDA_DST") for entry in entries}


@needs_root
def test_probe_waits_until_a_fresh_interface_can_ask():
    made = Cable(dad=True)
    with contextlib.closing(made), made.inside(made.left):
        assert door().in_use_elsewhere(RIGHT6) is True


@needs_root
def test_our_own_address_is_not_in_use_elsewhere(cable):
    with cable.inside(cable.left):
        addresses = door()
        addresses.add(FREE4)
        assert addresses.in_use_elsewhere(FREE4) is False


@needs_root
def test_stale_neighbour_entry_does_not_vouch_for_a_former_owner(cable):
    cable.remember(cable.left, FREE4, "02:00:00:00:00:99")
    with cable.inside(cable.left):
        assert door().in_use_elsewhere(FREE4) is False


@needs_root
def test_interfaces_own_address_is_neither_added_nor_removed(cable):
    with cable.inside(cable.left):
        addresses = door()
        with pytest.raises(errors.Permanent, match="own address of eth0"):
            addresses.add(LEFT4)
        addresses.remove(LEFT4)
        assert addresses.present() == set()
        with pytest.raises(errors.Permanent):
            addresses.add(LEFT4)


@needs_root
def test_announced_ipv4_address_replaces_the_former_owners_mac_at_the_peer(cable):
    cable.remember(cable.right, FREE4, "02:00:00:00:00:99")
    with cable.inside(cable.right):  # as if the entry were older than its lock of one second
        Path("/proc/sys/net/ipv4/neigh/eth0/locktime").write_text("0")
    with cable.inside(cable.left):
        addresses = door()
        addresses.add(FREE4)
        addresses.announce(FREE4)
    for _ in range(100):  # an entry of this very tick of the kernel's clock stays as it is
        if cable.neighbour(cable.right, FREE4) == cable.mac(cable.left):
            break
        with cable.inside(cable.left):
            addresses.announce(FREE4)
    assert cable.neighbour(cable.right, FREE4) == cable.mac(cable.left)


@needs_root
def test_announced_ipv6_address_replaces_the_former_owners_mac_where_the_kernel_notifies(cable):
    cable.remember(cable.right, FREE6, "02:00:00:00:00:99")
    with cable.inside(cable.left):
        addresses = door()
        addresses.add(FREE6)
        addresses.announce(FREE6)
    assert cable.neighbour(cable.right, FREE6) == "02:00:00:00:00:99"
    with cable.inside(cable.left):
        Path("/proc/sys/net/ipv6/conf/all/ndisc_notify").write_text("1")
        addresses.announce(FREE6)
    assert cable.neighbour(cable.right, FREE6) == cable.mac(cable.left)


@needs_root
def test_announcing_an_address_that_is_not_here_is_an_error_not_silence(cable):
    with cable.inside(cable.left), pytest.raises(errors.Transient, match="ENETUNREACH"):
        door().announce(FREE4)


@needs_root
def test_missing_interface_is_named_with_those_that_exist(cable):
    with cable.inside(cable.left), pytest.raises(errors.StartError, match=r"eth7.*eth0, lo"):
        door("eth7")


@needs_root
def test_interface_that_goes_away_is_worth_a_retry(cable):
    with cable.inside(cable.left):
        addresses = door()
        from pyroute2 import IPRoute

        with IPRoute() as route:
            route.link("del", index=route.link_lookup(ifname="eth0")[0])
        with pytest.raises(errors.Transient, match="eth0 is gone"):
            addresses.add(FREE4)


def test_missing_capability_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(netlink, "_holds_net_admin", lambda: False)
    with pytest.raises(errors.StartError, match=r"CAP_NET_ADMIN.*--cap-add NET_ADMIN"):
        door("eth0")


class Message(dict):
    """An RTM_NEWADDR message as the kernel sends it."""

    def __init__(self, *, family: int, prefixlen: int, flags: int, **attributes: object) -> None:
        super().__init__(family=family, prefixlen=prefixlen, flags=flags & 0xFF)
        self.attributes = attributes | {"IFA_FLAGS": flags}

    def get_attr(self, name: str) -> object:
        return self.attributes.get(name)


@pytest.mark.parametrize(
    ("message", "ours"),
    [
        (Message(family=2, prefixlen=32, flags=0x80, IFA_LABEL="eth0:fc", IFA_PROTO=0xFC), True),
        (Message(family=2, prefixlen=32, flags=0x80, IFA_LABEL="eth0:fc"), True),
        (Message(family=2, prefixlen=32, flags=0x80, IFA_LABEL="eth0"), False),
        (Message(family=10, prefixlen=128, flags=0xA2), True),
        (Message(family=10, prefixlen=64, flags=0xA2), False),
        (Message(family=10, prefixlen=128, flags=0x82), False),
    ],
    ids=["marked4", "old-kernel4", "foreign4", "old-kernel6", "wide6", "preferred6"],
)
def test_addresses_are_told_apart_also_where_the_kernel_forgets_the_mark(message, ours):
    assert netlink.is_ours(message) is ours


@pytest.mark.parametrize("interface", ["eth0", "enp0s31f6", "fifteen-chars15"])
def test_label_fits_into_the_kernels_fifteen_characters(interface):
    assert len(netlink.label(interface)) <= 15
    assert netlink.label(interface).endswith(":fc")


@needs_root
def test_networks_are_the_interfaces_own_and_not_what_was_put_there(cable):
    with cable.inside(cable.left):
        addresses = door()
        addresses.add(FREE4)
        addresses.add(FREE6)
        assert sorted(map(str, addresses.networks())) == [f"{LEFT4}/24", f"{LEFT6}/64"]


@needs_root
@pytest.mark.parametrize(
    ("network", "used"),
    [
        ("10.9.0.0/24", True),
        ("10.9.0.64/26", False),
        ("fd09::/120", True),
        ("fd09::ff00/120", False),
    ],
    ids=["peer4", "free4", "peer6", "free6"],
)
def test_a_block_is_used_when_one_of_its_addresses_answers(cable, network, used):
    with cable.inside(cable.left):
        found = door(wait_s=1.0 if used else 0.05).anybody_in(ip_network(network))
        assert found is used
        assert not neighbours() & {RIGHT4, RIGHT6, FREE4}


@needs_root
def test_a_pool_that_finds_its_range_remembers_it(cable, tmp_path):
    wanted = settings.load(pool=("default=interface:auto@eth0",), state_dir=tmp_path)
    first = (
        "default=interface:10.9.0.192/26@eth0",
        "default=interface:fd09::ffff:ffff:ffff:ff00/120@eth0",
    )
    with cable.inside(cable.left):
        assert premises.settle(wanted, clock.SystemClock()).pool == first
    with cable.inside(cable.right):
        door().add("10.9.0.200")
    with cable.inside(cable.left):
        assert premises.settle(wanted, clock.SystemClock()).pool == first
        fresh = wanted.model_copy(update={"state_dir": tmp_path / "new"})
        assert premises.settle(fresh, clock.SystemClock()).pool[0] != first[0]


def test_hosts_that_share_a_database_need_one_range():
    wanted = settings.load(pool=("default=interface:auto@eth0",), database="postgresql://db/cloud")
    with pytest.raises(errors.StartError, match="one range"):
        premises.parse_pools(wanted)
