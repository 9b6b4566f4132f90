"""Looks at Nodes, against an API server in memory."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from ccm import errors, metrics
from ccm.kube import informer, objects
from ccm.node import changes, controller
from tests.fakes.ccm_clock import FakeClock, until
from tests.fakes.ccm_instances import FakeInstances, instance
from tests.fakes.kubeapi import FakeApiServer
from tests.unit.ccm import builders

NODES = "/api/v1/nodes"
NEW = {
    "metadata": {"creationTimestamp": "2025-12-31T23:59:30Z"},
    "spec": {"taints": [{"key": changes.UNINITIALIZED, "value": "true", "effect": "NoSchedule"}]},
    "status": {"addresses": [{"type": "Hostname", "address": "node-1"}]},
}


class Stage:
    """A running node controller."""

    def __init__(self, server, transport):
        self.server = server
        self.clock = FakeClock()
        self.metrics = metrics.Metrics()
        self.cloud = FakeInstances(instance())
        self.events = []
        self.nodes = informer.Informer(transport, NODES, objects.Node, self.clock)
        self.mirror = SimpleNamespace(on_return=[])
        self.given = SimpleNamespace(
            settings=builders.run_settings(),
            clock=self.clock,
            metrics=self.metrics,
            nodes=self.nodes,
            instances=self.cloud,
            transport=transport,
            recorder=SimpleNamespace(record=lambda *event: self.events.append(event[2:])),
            mirror=self.mirror,
            may_write=lambda: None,
        )
        self.target = controller.NodeController(self.given)

    def node(self, name="node-1"):
        return self.server.objects[f"{NODES}/{name}"]

    def writes(self):
        return [path for method, path in self.server.requests if method != "GET"]

    def count(self, outcome):
        return self.metrics.registry.get_sample_value(
            "ccm_reconciles_total", {"kind": "node", "outcome": outcome}
        )


@pytest.fixture
async def it():
    async with FakeApiServer().serving() as server:
        transport = server.transport()
        stage = Stage(server, transport)
        loops = [stage.nodes.run(), stage.target.work(), *stage.target.loops()]
        tasks = [asyncio.create_task(one) for one in loops]
        yield stage
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await transport.close()


async def test_n_09_n_14_n_16_b_13_addresses_first_taint_last_then_the_event(it):
    it.server.put(NODES, "node-1", NEW)
    await until(lambda: it.events)
    assert it.writes() == [f"{NODES}/node-1/status", f"{NODES}/node-1"]
    assert it.node()["spec"] == {"providerID": "fakecloud://local-1/i_node-1"}
    assert it.node()["status"]["addresses"][0] == {"type": "InternalIP", "address": "10.0.0.1"}
    assert it.events == [("Normal", "Synced", "Node synced successfully")]
    for name in ("cloud_provider_taint_removal", "initial_node_sync"):
        value = it.metrics.registry.get_sample_value(f"node_controller_{name}_delay_seconds_sum")
        assert value == 30.0
    await until(lambda: it.count("in_sync"))
    assert len(it.writes()) == 2


async def test_n_04_l_06_taint_stays_until_the_cloud_has_the_instance(it):
    it.cloud.failing = errors.CloudUnreachable("no answer")
    it.server.put(NODES, "node-1", NEW)
    await until(lambda: it.count("failed"))
    it.cloud.failing = None
    there, it.cloud.there = it.cloud.there, {}
    await it.clock.advance(1)
    await until(lambda: it.count("no_instance"))
    assert it.writes() == []
    it.cloud.there = there
    await it.clock.advance(10)
    await until(lambda: it.events)
    assert "taints" not in it.node()["spec"]


async def test_n_05_instance_without_provider_id_is_an_error_and_the_taint_stays(it):
    it.cloud.there = {"node-1": instance(provider_id="")}
    it.server.put(NODES, "node-1", NEW)
    await until(lambda: it.count("failed"))
    assert it.writes() == []


async def test_n_06_other_node_ip_is_told_and_the_taint_stays(it):
    annotations = {changes.PROVIDED_IP: "10.9.9.9"}
    it.server.put(NODES, "node-1", NEW | {"metadata": {"annotations": annotations}})
    await until(lambda: it.events)
    [(kind, reason, note)] = it.events
    assert (kind, reason) == ("Warning", "NodeIPUnknown")
    assert "10.9.9.9" in note
    assert it.writes() == []


async def test_n_03_foreign_and_settled_nodes_cost_no_request(it):
    it.server.put(NODES, "kind", NEW | {"spec": NEW["spec"] | {"providerID": "kind://a/b/c"}})
    it.server.put(NODES, "plain", {})
    it.server.put(NODES, "node-1", NEW)
    await until(lambda: it.count("in_sync"))
    asked = len(it.cloud.asked)
    heartbeat = it.node() | {"metadata": it.node()["metadata"] | {"managedFields": []}}
    it.server.put(NODES, "node-1", heartbeat)
    version = it.node()["metadata"]["resourceVersion"]
    await until(lambda: it.nodes.store["node-1"].metadata.resource_version == version)
    assert set(it.cloud.asked) == {"node-1", "i_node-1"}
    assert len(it.cloud.asked) == asked


async def test_n_11_b_14_changed_instance_is_noticed_by_the_periodic_comparison(it):
    it.server.put(NODES, "node-1", NEW)
    await until(lambda: it.count("in_sync"))
    it.cloud.there = {"node-1": instance(zone="local-1b")}
    await it.clock.advance(301)
    await until(lambda: it.count("changed") == 2)
    assert it.node()["metadata"]["labels"]["topology.kubernetes.io/zone"] == "local-1b"


async def test_n_09_conflict_is_tried_again_on_the_newer_node(it):
    it.server.answers.append(("PATCH", 409))
    it.server.put(NODES, "node-1", NEW)
    await until(lambda: it.count("conflict"))
    await it.clock.advance(1)
    await until(lambda: it.events)
    assert "taints" not in it.node()["spec"]
