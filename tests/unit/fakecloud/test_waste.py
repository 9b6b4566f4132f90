"""What costs and serves nobody, over the API and both databases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.api_cloud import ApiCloud

CLUSTER = "/v1/clusters/c-1/inventory"
DAY = 86_400


class World:
    """A cloud with load balancers of a cluster."""

    def __init__(self, url: str) -> None:
        self.cloud = ApiCloud(url)
        self.cloud.system.advance(3600)

    def ask(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answer = self.cloud.request(method, path, body)
        assert answer is not None
        assert answer.status == status, (answer.status, answer.body)
        return answer.json() if answer.body else None

    def put(self, name: str, uid: str = "", *, targets: bool = True, **spec: Any) -> None:
        labels = {"cluster-uid": "c-1", "cluster": "kind", "service-uid": uid} if uid else {}
        body = {
            "labels": labels,
            "spec": {
                "listeners": [
                    {"name": "http", "protocol": "tcp", "port": 80, "target_group": "http"}
                ],
                "target_groups": [
                    {
                        "name": "http",
                        "health_check": {"protocol": "none"},
                        "targets": [{"ip": "127.0.0.1", "port": 80}] if targets else [],
                    }
                ],
                **spec,
            },
        }
        self.ask("PUT", f"/v1/load-balancers/{name}", body, 201)
        self.steps()

    def steps(self) -> None:
        while self.cloud.nodes[0].step():
            pass

    def waste(self, query: str = "") -> dict[tuple[str, str], Any]:
        found = self.ask("GET", f"/v1/costs/waste{query}")
        return {(one["kind"], one["name"]): one for one in found["items"]}

    def inventory(self, *services: str, lease_s: int = 600) -> None:
        self.ask("PUT", CLUSTER, {"services": list(services), "lease_s": lease_s})


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    world = World(database_url)
    yield world
    world.cloud.close()


def test_without_an_inventory_nothing_is_an_orphan(world: World) -> None:
    world.put("k8s-a", "a")
    world.cloud.system.advance(3600)
    assert world.waste() == {}


def test_what_a_cluster_no_longer_has_is_an_orphan(world: World) -> None:
    world.put("k8s-a", "a")
    world.put("k8s-b", "b")
    world.put("mine")
    world.cloud.system.advance(61)
    world.inventory("b")
    found = world.waste()
    assert set(found) == {("orphan", "k8s-a")}
    orphan = found["orphan", "k8s-a"]
    assert orphan["monthly_run_rate"] == "20.075"
    assert 0.0225 < float(orphan["cost_to_date"]) < 0.0226  # a started hour, 61 s of an address
    assert orphan["command"] == "fakecloud lb delete k8s-a"
    assert orphan["labels"]["service-uid"] == "a"


def test_a_service_younger_than_the_inventory_is_no_orphan(world: World) -> None:
    world.put("k8s-a", "a")
    world.cloud.system.advance(59)
    world.inventory()
    assert world.waste() == {}


def test_a_cluster_that_fell_silent_leaves_orphans_and_their_cost_since(world: World) -> None:
    world.put("k8s-a", "a", deletion_protection=True)
    world.inventory("a", lease_s=600)
    world.cloud.system.advance(600 + 900)
    assert world.waste() == {}
    world.cloud.system.advance(2 * 3600)
    orphan = world.waste()["orphan", "k8s-a"]
    assert orphan["why"] == "its cluster hasn't been heard of for 2 h"
    assert orphan["protected"]
    assert float(orphan["cost_since"]) > 0.05
    world.inventory("a")
    assert world.waste() == {}
    world.cloud.system.advance(DAY)
    assert set(world.waste()) == {("orphan", "k8s-a")}
    assert world.waste("?silent_s=172800") == {}
    world.ask("DELETE", CLUSTER, status=204)
    assert world.waste() == {}
    world.ask("DELETE", CLUSTER, status=404)


def test_idle_without_targets_and_twice(world: World) -> None:
    world.put("k8s-a", "a")
    world.put("old-a", "a")
    world.put("empty", targets=False)
    found = world.waste()
    assert set(found) == {("duplicate", "old-a")}
    world.cloud.system.advance(3601)
    assert set(world.waste()) == {("duplicate", "old-a"), ("no_targets", "empty")}
    world.cloud.system.advance(7 * DAY)
    assert {("idle", "k8s-a"), ("idle", "old-a")} < set(world.waste())
    assert ("idle", "k8s-a") not in world.waste("?idle_days=8")
    report = world.ask("GET", "/v1/costs/waste")
    assert report["monthly_run_rate"] == "60.225"  # three load balancers, each once


def test_a_deletion_that_hangs(world: World) -> None:
    world.put("web")
    world.ask("DELETE", "/v1/load-balancers/web", status=202)
    world.cloud.system.advance(601)
    stuck = world.waste()["stuck_delete", "web"]
    assert stuck["command"].startswith("fakecloud op get op_")


def test_an_address_that_nothing_uses(world: World) -> None:
    made = world.ask("POST", "/v1/addresses", {"name": "spare", "family": "ipv4"}, 201)
    found = world.waste()["unattached_address", "spare"]
    assert found["monthly_run_rate"] == "3.65"
    assert made["ip"] in found["why"]


def test_an_inventory_is_shown_and_checked(world: World) -> None:
    world.ask("GET", CLUSTER, status=404)
    world.inventory("b", "a")
    assert world.ask("GET", CLUSTER)["services"] == ["a", "b"]
    for wrong in (
        {"services": ["a"], "lease_s": 5},
        {"services": ["a b"], "lease_s": 60},
        {"services": ["a"], "lease_s": 60, "more": 1},
        {"services": ["a"] * 20_001, "lease_s": 60},
    ):
        world.ask("PUT", CLUSTER, wrong, 422)


def test_a_repeated_inventory_leaves_no_audit_record(world: World) -> None:
    world.inventory("a")
    before = len(world.ask("GET", "/v1/audit?page_size=1000")["items"])
    world.inventory("a")
    assert len(world.ask("GET", "/v1/audit?page_size=1000")["items"]) == before
