"""Networks and routes: what is refused, and how hosts come to have them."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from fakecloud.access.quotas import Quotas
from fakecloud.domain import addresses, routing
from fakecloud.domain.routing import NetworkWish, RouteWish
from fakecloud.errors import InUse, NotFound, QuotaExceeded, RangeInUse, ValidationFailed
from fakecloud.network.router import RETRY_S, Router
from fakecloud.requests.networks import Networks, Routes
from fakecloud.store import hosts, routes
from tests.fakes.route_table import FakeRoutes

LAN = addresses.parse_pool("lan=interface:10.9.0.0/24@eth0")
PODS = NetworkWish(ranges=("10.244.0.0/16",))


def to(destination: str = "10.244.1.0/24", next_hop: str = "10.94.0.1") -> RouteWish:
    return RouteWish(network="pods", destination=destination, next_hop=next_hop)


class Desk:
    """Networks and routes over a small cloud, and a host."""

    def __init__(self, cloud) -> None:
        quotas = Quotas({"networks": 3, "routes": 2})
        self.cloud = cloud
        self.woken = 0
        self.networks = Networks(cloud.database, [LAN], cloud.clock, quotas)
        self.routes = Routes(cloud.database, cloud.clock, quotas, self._wake)
        self.table = FakeRoutes("10.94.0.0/24")
        self.router = self.host("here", self.table)

    def _wake(self) -> None:
        self.woken += 1

    def host(self, name: str, table: FakeRoutes | None) -> Router:
        wall = self.cloud.clock.wall()
        with self.cloud.database.write() as connection:
            hosts.save(
                connection,
                hosts.Host(
                    name=name,
                    identity=name,
                    pools=(),
                    version="0",
                    started_at=wall,
                    heartbeat_at=wall,
                ),
            )
        return Router(self.cloud.database, table, self.cloud.clock, name)

    def pods(self) -> None:
        self.networks.put("default", "pods", PODS)

    def route(self, name: str = "n1", **wish: str) -> routing.Route:
        return self.routes.put("default", name, to(**wish))[0]

    def now(self, name: str = "n1") -> routing.Route:
        return self.routes.find("default", name)


@pytest.fixture
def desk(cloud) -> Desk:
    return Desk(cloud)


@pytest.mark.parametrize(
    "text", ["10.244.0.1/16", "0.0.0.0/0", "8.8.8.0/24", "127.0.0.0/8", "::/0", "fe80::/64", "x"]
)
def test_only_private_networks_are_taken(text):
    with pytest.raises(ValueError, match="must be"):
        routing.private(text)


def test_private_networks_are_written_one_way():
    assert routing.private("10.244.0.0/255.255.0.0") == "10.244.0.0/16"
    assert routing.private("FD00:0::/64") == "fd00::/64"


@pytest.mark.parametrize("hop", ["fd00::1", "10.244.1.7"])
def test_next_hop_that_cannot_lead_there_is_refused(hop):
    with pytest.raises(ValueError, match="next_hop"):
        routing.check_next_hop("10.244.1.0/24", hop)


@pytest.mark.parametrize("ranges", [("10.9.0.128/25",), ("10.0.0.0/8",), ("10.244.3.0/24",)])
def test_networks_overlap_neither_pools_nor_those_of_other_projects(desk, ranges):
    desk.pods()
    with pytest.raises(RangeInUse, match="overlaps"):
        desk.networks.put("other", "mine", NetworkWish(ranges=ranges))
    desk.networks.put("other", "mine", NetworkWish(ranges=("10.245.0.0/16", "fd00::/48")))


def test_routes_stay_in_their_network_and_lead_one_way(desk):
    with pytest.raises(ValidationFailed, match="no network 'pods'"):
        desk.route()
    desk.pods()
    with pytest.raises(ValidationFailed, match="none of the ranges"):
        desk.route(destination="10.245.0.0/24")
    desk.route()
    with pytest.raises(RangeInUse, match="route n1 leads"):
        desk.route("n2", next_hop="10.94.0.2")
    with pytest.raises(InUse, match="n1"):
        desk.networks.delete("default", "pods")
    with pytest.raises(InUse, match="n1"):
        desk.networks.put("default", "pods", NetworkWish(ranges=("10.246.0.0/16",)))
    desk.networks.put("default", "pods", NetworkWish(ranges=("10.244.0.0/16", "fd00::/48")))
    desk.routes.delete("default", "n1")
    desk.networks.delete("default", "pods")
    with pytest.raises(NotFound):
        desk.routes.find("default", "n1")


def test_routes_are_counted(desk):
    desk.pods()
    desk.route("n1")
    desk.route("n2", destination="10.244.2.0/24")
    with pytest.raises(QuotaExceeded):
        desk.route("n3", destination="10.244.3.0/24")
    desk.routes.delete("default", "n1")
    desk.route("n3", destination="10.244.3.0/24")


def test_route_is_active_when_the_host_has_it_and_gone_when_deleted(desk):
    desk.pods()
    assert desk.route().state == "PENDING"
    assert desk.woken == 1
    desk.router.step()
    assert desk.now().state == "ACTIVE"
    assert desk.table.ours == {"10.244.1.0/24": "10.94.0.1"}
    version = desk.now().resource_version
    assert desk.route() == desk.now()
    assert (desk.now().resource_version, desk.woken) == (version, 1)
    assert desk.route(next_hop="10.94.0.2").state == "PENDING"
    desk.router.step()
    assert desk.table.ours == {"10.244.1.0/24": "10.94.0.2"}
    assert desk.now().state == "ACTIVE"
    desk.routes.delete("default", "n1")
    desk.router.step()
    assert desk.table.ours == {}
    assert desk.woken == 3


def test_idle_host_looks_at_its_table_only_after_news(desk):
    desk.pods()
    desk.route()
    for _ in range(3):
        desk.router.step()  # the second one heard of its own change
    calls = len(desk.table.calls)
    for _ in range(10):
        desk.router.step()
    assert len(desk.table.calls) == calls


def test_route_that_somebody_removed_comes_back(desk):
    desk.pods()
    desk.route()
    desk.router.step()
    desk.table.meddle("10.244.1.0/24")
    desk.router.step()
    assert desk.table.ours == {"10.244.1.0/24": "10.94.0.1"}


def test_successor_of_a_crashed_host_removes_what_was_deleted_meanwhile(desk):
    desk.pods()
    desk.route()
    desk.router.step()
    desk.table.changed()
    desk.routes.delete("default", "n1")
    Router(desk.cloud.database, desk.table, desk.cloud.clock, "here").step()
    assert desk.table.ours == {}


def test_route_that_a_host_cannot_have_says_why_and_heals(desk):
    desk.pods()
    desk.route(next_hop="10.99.0.1")
    desk.router.step()
    failed = desk.now()
    assert failed.state == "ERROR"
    assert (failed.last_error.code, failed.last_error.host) == ("route_failed", "here")
    assert "10.99.0.1 is on no link" in failed.last_error.message
    desk.router.step()
    assert desk.now() == failed  # told once
    desk.table.links.append(ip_network("10.99.0.0/24"))
    desk.cloud.clock.advance(RETRY_S)
    desk.router.step()
    assert (desk.now().state, desk.now().last_error) == ("ACTIVE", None)


def test_host_without_interface_pools_needs_no_routes(desk):
    desk.pods()
    desk.route()
    desk.host("bare", None).step()
    assert desk.now().state == "ACTIVE"


def test_trouble_of_one_host_is_lifted_by_none_other_that_lives(desk):
    desk.pods()
    desk.route()
    elsewhere = desk.host("elsewhere", FakeRoutes("10.98.0.0/24"))
    elsewhere.step()
    assert desk.now().last_error.host == "elsewhere"
    desk.router.step()
    assert desk.now().state == "ERROR"
    with desk.cloud.database.write() as connection:
        hosts.forget(connection, "elsewhere")
    desk.router.step()
    assert (desk.now().state, desk.now().last_error) == ("ACTIVE", None)


def test_two_networks_never_lead_one_destination_two_ways(desk):
    """Refused at the desk; two servers may still have accepted them in the same moment."""
    desk.pods()
    desk.route()
    desk.router.step()
    twin = routing.Route(
        **{
            **{name: getattr(desk.now(), name) for name in routing.Route.__struct_fields__},
            "id": "rt_twin",
            "project": "other",
            "next_hop": "10.94.0.9",
        }
    )
    with desk.cloud.database.write() as connection:
        routes.add(connection, twin)
    desk.router.step()
    assert desk.table.ours == {"10.244.1.0/24": "10.94.0.1"}
    assert desk.routes.find("other", "n1").last_error.code == "range_in_use"
    assert desk.now().state == "ACTIVE"
