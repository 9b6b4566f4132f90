"""Nodes on the cloud's instances, on the real API server with the shipped rights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import embedded
from tests.flows.kube.world import World

pytestmark = [pytest.mark.kube, pytest.mark.haproxy, pytest.mark.timeout(120)]

Json = dict[str, Any]
UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"
SHUTDOWN = "node.cloudprovider.kubernetes.io/shutdown"
OTHER = {"key": "example.com/mine", "value": "1", "effect": "NoSchedule"}


class Machines:
    """Instances in the cloud and Nodes in the cluster, by the same names."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._names: set[str] = set()

    def instance(self, name: str, **wish: object) -> Json:
        """Create or change an instance."""
        self._names.add(name)
        answer = self._world.http.put(f"/instances/{name}", json=wish)
        answer.raise_for_status()
        found: Json = answer.json()
        return found

    def end(self, name: str) -> None:
        """Delete the instance, not the Node."""
        self._world.http.delete(f"/instances/{name}").raise_for_status()

    def join(self, name: str, *taints: Json, ready: str = "True", **spec: object) -> None:
        """Register a Node as a kubelet does."""
        self._names.add(name)
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name},
            "spec": {"taints": list(taints), **spec},
            "status": {
                "addresses": [{"type": "Hostname", "address": name}],
                "conditions": [{"type": "Ready", "status": ready}],
            },
        }
        self._world.cluster.request("POST", "/api/v1/nodes", body)

    def new(self, name: str, **spec: object) -> None:
        """Register a Node that waits for a cloud."""
        self.join(
            name, {"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}, OTHER, **spec
        )

    def nodes(self) -> dict[str, Json]:
        """Return the Nodes by name."""
        found = self._world.cluster.request("GET", "/api/v1/nodes")["items"]
        return {one["metadata"]["name"]: one for one in found}

    def taints(self, name: str) -> list[str]:
        """Return the keys of a Node's taints, without those of Kubernetes itself."""
        taints = self.nodes()[name]["spec"].get("taints", ())
        return [one["key"] for one in taints if not one["key"].startswith("node.kubernetes.io/")]

    def events(self, name: str) -> list[tuple[str, str]]:
        """Return (component, reason) of the events about a Node."""
        path = "/apis/events.k8s.io/v1/namespaces/default/events"
        return [
            (one["reportingController"], one["reason"])
            for one in self._world.cluster.request("GET", path)["items"]
            if one["regarding"]["name"] == name
        ]

    def clear(self) -> None:
        """Remove what was made."""
        for name in self._names:
            self._world.http.delete(f"/instances/{name}")
            if name in self.nodes():
                self._world.cluster.request("DELETE", f"/api/v1/nodes/{name}")


@pytest.fixture
def machines(world: World) -> Iterator[Machines]:
    world.ensure_running()
    made = Machines(world)
    yield made
    made.clear()


def test_n_07_rb_02_node_is_introduced_by_its_instance(machines: Machines) -> None:
    addresses = [
        {"type": "InternalIP", "address": "10.90.0.1"},
        {"type": "InternalIP", "address": "fd00:90::1"},
        {"type": "ExternalIP", "address": "192.0.2.1"},
    ]
    made = machines.instance("machine-1", type="standard-4", addresses=addresses)
    machines.new("machine-1")
    embedded.eventually(lambda: machines.taints("machine-1"), lambda it: it == [OTHER["key"]])

    node = machines.nodes()["machine-1"]
    assert node["spec"]["providerID"] == made["provider_id"]
    assert node["status"]["addresses"] == [
        *addresses,
        {"type": "Hostname", "address": "machine-1"},
    ]
    labels = node["metadata"]["labels"]
    assert labels["node.kubernetes.io/instance-type"] == "standard-4"
    assert labels["topology.kubernetes.io/zone"] == made["zone"]
    assert labels["topology.kubernetes.io/region"] == made["region"]
    embedded.eventually(
        lambda: machines.events("machine-1"),
        lambda it: ("cloud-node-controller", "Synced") in it,
    )


def test_n_04_ki_02_node_waits_for_its_instance_and_foreign_ones_are_left_alone(
    machines: Machines,
) -> None:
    machines.new("machine-2")
    machines.instance("machine-3", addresses=[{"type": "InternalIP", "address": "10.90.0.3"}])
    machines.new("machine-3", providerID="kind://docker/kind/machine-3")
    machines.instance("machine-4")
    machines.new("machine-4")
    embedded.eventually(lambda: machines.taints("machine-4"), lambda it: it == [OTHER["key"]])

    assert machines.taints("machine-2") == [UNINITIALIZED, OTHER["key"]]
    foreign = machines.nodes()["machine-3"]
    assert machines.taints("machine-3") == [UNINITIALIZED, OTHER["key"]]
    assert foreign["status"]["addresses"] == [{"type": "Hostname", "address": "machine-3"}]
    machines.instance("machine-2")
    embedded.eventually(lambda: machines.taints("machine-2"), lambda it: it == [OTHER["key"]])


def test_l_03_l_04_t_23_ki_04_stopped_machine_is_tainted_and_a_vanished_one_removed(
    machines: Machines, world: World
) -> None:
    names = ("machine-5", "machine-6", "machine-7")
    for name in names:
        made = machines.instance(name)
        machines.join(name, OTHER, ready="False", providerID=made["provider_id"])
    machines.instance("machine-5", power_state="stopped")
    embedded.eventually(
        lambda: machines.taints("machine-5"), lambda it: it == [OTHER["key"], SHUTDOWN]
    )
    machines.end("machine-6")
    embedded.eventually(machines.nodes, lambda it: "machine-6" not in it)

    assert {"machine-5", "machine-7"} <= set(machines.nodes())
    assert machines.taints("machine-7") == [OTHER["key"]]
    assert not world.ccm.lines("Traceback")
    embedded.eventually(
        lambda: machines.events("machine-6"),
        lambda it: ("cloud-node-lifecycle-controller", "DeletingNode") in it,
    )
