"""A host's table of routes: the fake's, and the kernel's in a network namespace."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from fakecloud import errors
from fakecloud.network import route_table
from tests.fakes.lan import NETWORK, SWITCH, Lan, can_make_namespaces
from tests.fakes.route_table import FakeRoutes

NODE, OTHER = f"{NETWORK}.1", f"{NETWORK}.2"
PODS = "10.244.1.0/24"


class InLan:
    """Calls in the namespace of a switch; `meddle` is somebody else's `ip route del`."""

    def __init__(self, lan: Lan) -> None:
        self._lan = lan
        self._table = lan.run(lambda: route_table.KernelRoutes(["sw0"]))

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._table, name)
        return lambda *given: self._lan.run(lambda: method(*given))

    def meddle(self, destination: str) -> None:
        self._lan.run(lambda: ip("route", "del", destination))


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def lan() -> Iterator[Lan]:
    if not can_make_namespaces():
        pytest.skip("network namespaces need CAP_SYS_ADMIN (run as root)")
    made = Lan()
    made.run(lambda: ip("address", "add", "fd94::fe/64", "dev", "sw0", "nodad"))
    yield made
    made.close()


@pytest.fixture(params=["fake", "kernel"])
def table(request) -> Iterator[Any]:
    if request.param == "fake":
        yield FakeRoutes(f"{NETWORK}.0/24", "fd94::/64")
        return
    made = InLan(request.getfixturevalue("lan"))
    yield made
    made.close()


def test_route_is_there_until_removed_and_every_step_may_repeat(table):
    assert table.present() == {}
    table.put(PODS, NODE)
    table.put(PODS, NODE)
    table.put("fd00:244:1::/64", "fd94::1")
    assert table.present() == {PODS: NODE, "fd00:244:1::/64": "fd94::1"}
    table.put(PODS, OTHER)
    table.put("fd00:244:1::/64", "fd94::2")
    assert table.present() == {PODS: OTHER, "fd00:244:1::/64": "fd94::2"}
    for destination in (PODS, PODS, "fd00:244:1::/64"):
        table.remove(destination)
    assert table.present() == {}


def test_change_is_heard_once(table):
    table.changed()
    assert not table.changed()
    table.put(PODS, NODE)
    assert table.changed()
    assert not table.changed()
    table.meddle(PODS)
    assert table.changed()
    assert table.present() == {}


@pytest.mark.parametrize(
    ("destination", "next_hop", "why"),
    [
        (f"{NETWORK}.0/25", NODE, "overlaps"),
        (f"{NETWORK}.7/32", NODE, "overlaps"),
        ("10.0.0.0/8", NODE, "overlaps"),
        (PODS, "10.99.0.1", "next hop 10.99.0.1 is on no link"),
    ],
)
def test_what_would_lead_others_astray_is_refused(table, destination, next_hop, why):
    with pytest.raises(errors.Permanent, match=why) as refused:
        table.put(destination, next_hop)
    assert refused.value.code == "route_failed"
    assert table.present() == {}


@pytest.mark.root
def test_other_peoples_routes_are_seen_neither_as_ours_nor_removed(lan):
    lan.run(lambda: ip("route", "add", "10.245.0.0/16", "via", NODE))
    table = InLan(lan)
    assert table.present() == {}
    table.remove("10.245.0.0/16")
    with pytest.raises(errors.Permanent, match=r"overlaps 10\.245\.0\.0/16"):
        table.put("10.245.1.0/24", NODE)
    assert "10.245.0.0/16" in lan.run(lambda: ip("route"))
    with pytest.raises(errors.Permanent, match="next hop"):
        table.put(PODS, SWITCH)  # this host itself
    table.put(PODS, NODE)
    assert f"{PODS} via {NODE}" in lan.run(lambda: ip("route", "show", "proto", "252"))
    table.close()
