"""Targets follow nodes and pods, and no request is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import embedded
from tests.demo import traffic
from tests.flows.kube.services import PORT, Shop, answer, nodes_seen
from tests.flows.kube.world import World

pytestmark = [pytest.mark.kube, pytest.mark.haproxy, pytest.mark.timeout(120)]

ALWAYS = {"standin-1", "standin-2", "standin-3"}
_MERGE = "application/merge-patch+json"


@pytest.fixture
def extra_node(world: World) -> Iterator[str]:
    name = world.cluster.add_node()
    yield name
    if name in world.cluster.nodes:
        world.cluster.remove_node(name)


def test_s_40_nodes_come_and_go_without_a_failed_request(shop: Shop, world: World) -> None:
    shop.create()
    ip = shop.ip()
    embedded.eventually(lambda: nodes_seen(ip), lambda it: it == ALWAYS)

    with traffic.Traffic(ip, PORT, threads=2) as load:
        name = world.cluster.add_node()
        try:
            embedded.eventually(shop.target_nodes, lambda it: it == {*ALWAYS, name})
            embedded.eventually(lambda: name in nodes_seen(ip))
        finally:
            world.cluster.remove_node(name)
        embedded.eventually(shop.target_nodes, lambda it: it == ALWAYS)
        load.wait_for(100)

    assert load.failures == {}
    assert shop.ip() == ip
    told = embedded.eventually(shop.events, lambda it: ("Normal", "UpdatedLoadBalancer") in it)
    assert told["Normal", "EnsuredLoadBalancer"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {
            "spec": {
                "taints": [
                    {"key": "ToBeDeletedByClusterAutoscaler", "value": "1", "effect": "NoSchedule"}
                ]
            }
        },
        {"metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}}},
    ],
    ids=["taint", "label"],
)
def test_b_19_node_on_its_way_out_leaves_the_targets(
    shop: Shop, world: World, extra_node: str, change: dict[str, object]
) -> None:
    shop.create()
    ip = shop.ip()
    embedded.eventually(shop.target_nodes, lambda it: it == {*ALWAYS, extra_node})
    embedded.eventually(lambda: extra_node in nodes_seen(ip))

    with traffic.Traffic(ip, PORT, threads=2) as load:
        world.cluster.request("PATCH", f"/api/v1/nodes/{extra_node}", change, _MERGE)
        embedded.eventually(shop.target_nodes, lambda it: it == ALWAYS)
        embedded.eventually(lambda: nodes_seen(ip), lambda it: it == ALWAYS)

    assert load.failures == {}


def test_t_16_t_17_policy_local_follows_the_pods(shop: Shop) -> None:
    """All nodes are targets; the health check tells which of them have a pod."""
    shop.create(externalTrafficPolicy="Local")
    ip = shop.ip()
    answer(ip)
    embedded.eventually(lambda: nodes_seen(ip), lambda it: it == {"standin-1", "standin-2"})
    assert shop.target_nodes() == ALWAYS

    shop.pod("three", "standin-3")
    shop.remove_pod("one")

    embedded.eventually(lambda: nodes_seen(ip), lambda it: it == {"standin-2", "standin-3"})


def test_t_15_policy_changed_to_local_and_back_keeps_the_address(shop: Shop) -> None:
    shop.create()
    ip = shop.ip()
    embedded.eventually(lambda: nodes_seen(ip), lambda it: it == ALWAYS)

    shop.change(externalTrafficPolicy="Local")
    embedded.eventually(lambda: nodes_seen(ip), lambda it: it == {"standin-1", "standin-2"})
    shop.change(externalTrafficPolicy="Cluster")
    embedded.eventually(lambda: nodes_seen(ip), lambda it: it == ALWAYS)

    assert shop.ip() == ip
