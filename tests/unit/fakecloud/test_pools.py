"""Addresses of interface pools: there before a load balancer, gone after it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from fakecloud.domain import addresses
from fakecloud.errors import Permanent, Transient
from fakecloud.model import Address
from fakecloud.network.pools import PooledAddresses
from tests.fakes.clock import FakeClock

LAN = addresses.parse_pool("lan=interface:10.9.0.0/24@eth0")
LOCAL = addresses.parse_pool("default=loopback:127.9.0.0/24")


class FakeInterface:
    """`ours` are on the interface; `foreign` answer elsewhere; `calls` in order."""

    def __init__(self, *ours: str) -> None:
        self.ours = set(ours)
        self.foreign: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self.broken: Exception | None = None
        self.lifetimes: dict[str, int | None] = {}

    def present(self) -> set[str]:
        return set(self.ours)

    def in_use_elsewhere(self, ip: str) -> bool:
        return ip in self.foreign

    def add(self, ip: str, lifetime_s: int | None = None) -> None:
        if self.broken:
            raise self.broken
        self.calls.append(("add", ip))
        self.ours.add(ip)
        self.lifetimes[ip] = lifetime_s

    def renew(self, ips: Iterable[str], lifetime_s: int | None) -> None:
        for ip in ips:
            assert ip in self.ours, "the kernel would put it back, unprobed"
            self.lifetimes[ip] = lifetime_s

    def run_out(self, ip: str) -> None:
        assert self.lifetimes[ip] is not None
        self.ours.discard(ip)

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
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pooled(eth0, clock) -> PooledAddresses:
    return PooledAddresses([LAN, LOCAL], {"eth0": eth0}, clock)


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
    assert pooled.restore({lb.id: (lan(4),)}) == frozenset()
    assert eth0.ours == {"10.9.0.4", "192.168.0.5"}, "outside of the pool is not ours to touch"
    pooled.prune(lb.id, ())
    assert "10.9.0.4" not in eth0.ours


@pytest.mark.parametrize("kind", [Transient, Permanent])
def test_what_cannot_be_put_back_is_named_for_the_provisioner(cloud, eth0, pooled, kind):
    lb = cloud.active("web")
    eth0.broken = kind("bind_failed", "netlink says no")
    assert pooled.restore({lb.id: (lan(4),)}) == {lb.id}


def test_addresses_live_as_long_as_the_heartbeat_lets_them(pooled, eth0, clock):
    pooled.keep(2)
    pooled.ensure("lb_1", (lan(1), lan(2)))
    assert eth0.lifetimes == {"10.9.0.1": 2, "10.9.0.2": 2}
    pooled.keep(3)
    assert set(eth0.lifetimes.values()) == {3}
    pooled.prune("lb_1", (lan(1),))
    pooled.keep(4)
    assert eth0.lifetimes["10.9.0.2"] == 3, "not ours any more"
    pooled.keep(0)
    assert eth0.lifetimes["10.9.0.1"] == 4, "let it run out"
    pooled.keep(None)
    assert eth0.lifetimes["10.9.0.1"] is None


def test_a_new_address_lives_no_longer_than_the_others(pooled, eth0, clock):
    pooled.keep(5)
    clock.advance(3)
    pooled.ensure("lb_1", (lan(1),))
    assert eth0.lifetimes == {"10.9.0.1": 2}


def test_what_ran_out_comes_back_unless_another_machine_has_it(pooled, eth0, clock):
    pooled.keep(2)
    pooled.ensure("lb_1", (lan(1), lan(2)))
    clock.advance(10)
    for ip in list(eth0.ours):
        eth0.run_out(ip)
    eth0.foreign.add("10.9.0.2")
    pooled.keep(2)
    assert eth0.ours == {"10.9.0.1"}
    pooled.keep(2)
    with pytest.raises(Transient, match=r"10\.9\.0\.2 is in use"):
        pooled.ensure("lb_1", (lan(1), lan(2)))
    eth0.foreign.clear()
    pooled.keep(2)
    assert eth0.ours == {"10.9.0.1", "10.9.0.2"}


def test_a_moved_address_is_announced_again_for_a_while(pooled, eth0, clock):
    pooled.keep(2)
    pooled.ensure("lb_1", (lan(1),))
    for _ in range(8):
        clock.advance(0.5)
        pooled.keep(2)
    assert eth0.calls.count(("announce", "10.9.0.1")) == 6
