"""Services and Nodes come, change and go while either program dies: in the end everybody agrees."""

from __future__ import annotations

import itertools
import urllib.error
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.cluster import embedded
from tests.flows.kube.agreement import disagreements
from tests.flows.kube.services import Shop, port
from tests.flows.kube.world import World

pytestmark = [pytest.mark.kube, pytest.mark.haproxy, pytest.mark.timeout(300)]

NAMES = st.sampled_from(["a", "b", "c", "d"])
MOST_NODES = 3
"""Of those that the machine adds: addresses of stand-ins are not used twice."""
SPECS: Any = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["LoadBalancer", "LoadBalancer", "LoadBalancer", "ClusterIP"]),
        "ports": st.lists(st.integers(8080, 8083), min_size=1, max_size=2, unique=True).map(
            lambda ports: [port(one, f"p{one}") for one in ports]
        ),
    },
    optional={
        "externalTrafficPolicy": st.sampled_from(["Cluster", "Local"]),
        "sessionAffinity": st.sampled_from(["None", "ClientIP"]),
        "loadBalancerSourceRanges": st.sampled_from([["127.0.0.0/8"], ["10.0.0.0/8"]]),
    },
)


class Cluster(RuleBasedStateMachine):
    """Whatever people and machines do to a cluster, on the real API server, HAProxy and programs."""

    def __init__(self, world: World, shop: Shop) -> None:
        super().__init__()
        self.world = world
        self.shop = shop
        self.nodes: list[str] = []
        self.numbers = itertools.count(1)

    @rule(name=NAMES, spec=SPECS)
    def create(self, name: str, spec: Any) -> None:
        self._try(lambda: self.shop.create(name, **_fitting(spec)))

    @rule(name=NAMES, spec=SPECS)
    def edit_or_retype(self, name: str, spec: Any) -> None:
        changed: dict[str, Any] = {
            "externalTrafficPolicy": None,
            "loadBalancerSourceRanges": None,
            **_fitting(spec),
        }
        self._try(lambda: self.shop.change(name, **changed))

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        self._try(lambda: self.shop.delete(name))

    @rule(name=NAMES)
    def remove_by_force(self, name: str) -> None:
        self._try(lambda: self.shop.patch_finalizers(name, []))
        self._try(lambda: self.shop.delete(name))

    @rule()
    def add_node(self) -> None:
        if len(self.nodes) < MOST_NODES:
            self.nodes.append(self.world.cluster.add_node())

    @rule()
    def remove_node(self) -> None:
        if self.nodes:
            self.world.cluster.remove_node(self.nodes.pop())

    @rule(is_ready=st.booleans())
    def turn_node(self, is_ready: bool) -> None:
        if self.nodes:
            self.world.cluster.set_node_ready(self.nodes[0], is_ready)

    @rule()
    def the_controller_dies(self) -> None:
        self.world.ccm.kill()
        self.world.ccm.start()

    @rule()
    def the_cloud_dies(self) -> None:
        self.world.serve.kill()
        self.world.serve.start("ready at")

    @rule(which=st.integers(0, 3))
    def a_load_balancer_is_lost(self, which: int) -> None:
        there = sorted(self.world.balancers())
        if which < len(there):
            self.world.http.delete(f"/load-balancers/{there[which]}")

    @rule()
    def peace(self) -> None:
        self.world.ensure_running()
        embedded.eventually(
            lambda: disagreements(self.world, self.shop), lambda it: not it, timeout_s=60
        )

    def teardown(self) -> None:
        self.peace()
        for name in self.nodes:
            self.world.cluster.remove_node(name)
        self.shop.remove_services()
        embedded.eventually(lambda: self.world.leftovers() == [], timeout_s=30)

    def _try(self, ask: Any) -> None:
        """Ask the API server, which may say that there is none, one already, or that it won't."""
        try:
            ask()
        except urllib.error.HTTPError as error:
            if error.code not in (404, 409, 422):
                raise


def _fitting(spec: dict[str, Any]) -> dict[str, Any]:
    """Leave out what only a Service with nodePorts or a load balancer may have."""
    if spec["type"] == "LoadBalancer":
        return spec
    only = ("externalTrafficPolicy", "loadBalancerSourceRanges")
    return {key: value for key, value in spec.items() if key not in only}


def test_u_15_b_01_b_05_in_the_end_cluster_cloud_and_data_plane_agree(
    shop: Shop, world: World
) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Cluster(world, shop),
        settings=settings(
            max_examples=3,
            stateful_step_count=10,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
