"""Addresses of interface pools: there before a load balancer, gone after it."""

from __future__ import annotations

import pytest

from fakecloud import addresses
from fakecloud.errors import Permanent, Transient
from fakecloud.model import Address
from fakecloud.pools import PooledAddresses

LAN = addresses.parse_pool("lan=interface:10.9.0.0/24@eth0")
LOCAL = addresses.parse_pool("default=loopback:127.9.0.0/24")


class FakeInterface:
    """`ours` are on the interface; `foreign` answer elsewhere; `calls` in order."""

    def __init__(self, *ours: str) -> None:
        self.ours = set(ours)
        self.foreign: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self.broken: Exception | None = None

    def present(self) -> set[str]:
        return set(self.ours)

    def in_use_elsewhere(self, ip: str) -> bool:
        return ip in self.foreign

    def add(self, ip: str) -> None:
        if self.broken:
            raise self.broken
        self.calls.append(("add", ip))
        self.ours.add(ip)

    def remove(self, ip: str) -> None:
        if self.broken:
            raise self.broken
        self.calls.append(("remove", ip))
        self.ours.discard(ip)

    def announce(self, ip: str) -> None:
        assert ip in self.ours, "announced before it was there"
        self.calls.append(("announce", ip))


@pytest.fixture
def eth0() -> FakeInterface:
    return FakeInterface()


@pytest.fixture
def pooled(eth0) -> PooledAddresses:
    return PooledAddresses([LAN, LOCAL], {"eth0": eth0})


def lan(last: int) -> Address:
    return Address(family="ipv4", ip=f"10.9.0.{last}", pool="lan")


def test_an_address_is_put_there_and_announced_once(pooled, eth0):
    for _ in range(2):
        pooled.ensure("lb_1", (lan(1),))
    assert eth0.calls == [("add", "10.9.0.1"), ("announce", "10.9.0.1")]


def test_loopback_addresses_need_nothing(pooled, eth0):
    address = Address(family="ipv4", ip="127.9.0.1", pool="default")
    pooled.ensure("lb_1", (address,))
    pooled.prune("lb_1", ())
    assert eth0.calls == []


def test_an_address_that_somebody_else_has_is_left_alone(pooled, eth0):
    eth0.foreign.add("10.9.0.1")
    with pytest.raises(Transient, match="choose a pool range that nothing else uses"):
        pooled.ensure("lb_1", (lan(1),))
    assert eth0.calls == []
    eth0.foreign.clear()
    pooled.ensure("lb_1", (lan(1),))
    assert eth0.ours == {"10.9.0.1"}


def test_ours_is_not_probed(pooled, eth0):
    """After a crash it is still there; a probe would find ourselves."""
    eth0.ours.add("10.9.0.1")
    eth0.foreign.add("10.9.0.1")
    pooled.ensure("lb_1", (lan(1),))
    assert ("announce", "10.9.0.1") in eth0.calls


def test_what_is_no_longer_wanted_goes(pooled, eth0):
    pooled.ensure("lb_1", (lan(1), lan(2)))
    pooled.ensure("lb_2", (lan(3),))
    pooled.prune("lb_1", (lan(2),))
    assert eth0.ours == {"10.9.0.2", "10.9.0.3"}
    pooled.prune("lb_1", ())
    pooled.prune("lb_1", ())
    pooled.prune("lb_unknown", ())
    assert eth0.ours == {"10.9.0.3"}


def test_an_address_that_could_not_be_taken_off_is_tried_again(pooled, eth0):
    pooled.ensure("lb_1", (lan(1),))
    eth0.broken = Transient("bind_failed", "netlink says no")
    with pytest.raises(Transient):
        pooled.prune("lb_1", ())
    eth0.broken = None
    pooled.prune("lb_1", ())
    assert eth0.ours == set()


def test_a_start_takes_off_strays_and_puts_back_what_lives(cloud, eth0, pooled):
    lb = cloud.active("web")
    eth0.ours |= {"10.9.0.77", "192.168.0.5"}
    living = _with(lb, lan(4))
    assert pooled.restore([living]) == frozenset()
    assert eth0.ours == {"10.9.0.4", "192.168.0.5"}, "outside of the pool is not ours to touch"
    pooled.prune(lb.id, ())
    assert "10.9.0.4" not in eth0.ours


@pytest.mark.parametrize("kind", [Transient, Permanent])
def test_what_cannot_be_put_back_is_named_for_the_provisioner(cloud, eth0, pooled, kind):
    lb = cloud.active("web")
    eth0.broken = kind("bind_failed", "netlink says no")
    assert pooled.restore([_with(lb, lan(4))]) == {lb.id}


def _with(lb, address):
    import msgspec

    return msgspec.structs.replace(lb, addresses=(address,))
