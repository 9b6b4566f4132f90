"""Stopped and vanished instances, against an API server in memory."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from ccm import errors
from ccm.kube import informer, objects
from ccm.lifecycle import controller, decisions
from tests.fakes.ccm_clock import FakeClock, until
from tests.fakes.ccm_instances import FakeInstances, instance
from tests.fakes.kubeapi import FakeApiServer
from tests.unit.ccm import builders

NODES = "/api/v1/nodes"
OTHER = {"key": "other", "value": "1", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}
TAINT = {"key": decisions.SHUTDOWN, "effect": "NoSchedule"}


class Stage:
    """A lifecycle controller whose looks are taken by the test."""

    def __init__(self, server, transport):
        self.server = server
        self.clock = FakeClock()
        self.cloud = FakeInstances()
        self.events = []
        self.nodes = informer.Informer(transport, NODES, objects.Node, self.clock)
        given = SimpleNamespace(
            settings=builders.run_settings(),
            clock=self.clock,
            nodes=self.nodes,
            instances=self.cloud,
            transport=transport,
            recorder=SimpleNamespace(record=lambda *event: self.events.append(event[1:])),
            may_write=lambda: None,
        )
        self.target = controller.LifecycleController(given)

    async def join(self, name="node-1", *, ready="Unknown", provider="fakecloud://r/i_", taints=()):
        """Add or change a node; its instance is made too unless there was one before."""
        body = {
            "spec": {"providerID": f"{provider}{name}", "taints": list(taints)},
            "status": {"conditions": [{"type": "Ready", "status": ready}] if ready else []},
        }
        version = self.server.put(NODES, name, body)["metadata"]["resourceVersion"]
        await until(
            lambda: (
                name in self.nodes.store
                and self.nodes.store[name].metadata.resource_version == version
            )
        )

    async def look(self, times=2):
        for _ in range(times):
            await self.target.step()

    def left(self):
        return sorted(path.rpartition("/")[2] for path in self.server.objects)

    def reasons(self):
        return [(kind, reason) for _, kind, reason, _ in self.events]

    def taints(self):
        return self.server.objects[f"{NODES}/node-1"]["spec"].get("taints")


@pytest.fixture
async def it():
    async with FakeApiServer().serving() as server:
        transport = server.transport()
        stage = Stage(server, transport)
        task = asyncio.create_task(stage.nodes.run())
        yield stage
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await transport.close()


@pytest.mark.parametrize("ready", ["False", "Unknown", ""])
async def test_l_03_u_12_ki_04_node_without_instance_is_removed_after_an_event(it, ready):
    await it.join(ready=ready)
    await it.look(1)
    assert it.left() == ["node-1"]  # one answer could be a stale read
    await it.look(1)
    assert it.left() == []
    [(about, kind, reason, note)] = it.events
    assert (about.kind, about.uid) == ("Node", "uid-node-1")
    assert (kind, reason) == ("Normal", "DeletingNode")
    assert note == "Deleting node node-1 because it does not exist in the cloud provider"


async def test_l_02_b_34_ready_node_is_never_removed_and_costs_no_request(it):
    await it.join(ready="True", taints=[OTHER, TAINT])
    await it.look(3)
    assert it.left() == ["node-1"]
    assert it.cloud.asked == []
    assert it.taints() == [OTHER]


async def test_l_04_u_12_ki_04_stopped_instance_is_a_taint_and_no_removal(it):
    it.cloud.there = {"node-1": instance("node-1", power_state="stopped")}
    await it.join(taints=[OTHER])
    await it.look(1)
    assert it.taints() == [OTHER, TAINT]
    await it.join(taints=[OTHER, TAINT])
    writes = len(it.server.requests)
    await it.look(3)
    assert len(it.server.requests) == writes
    assert it.events == []


@pytest.mark.parametrize(
    "trouble",
    [
        errors.CloudUnauthenticated("unauthenticated", "who"),
        errors.CloudBusy("http_404", "a proxy"),
        errors.CloudRefused("forbidden", "no"),
        errors.CloudUnreachable("no answer"),
    ],
)
async def test_l_06_b_22_ki_04_what_cannot_be_told_is_not_gone(it, trouble):
    it.cloud.failing = trouble
    await it.join()
    await it.look(3)
    assert it.left() == ["node-1"]
    assert it.events == []


async def test_l_08_foreign_nodes_are_left_alone(it):
    await it.join(provider="kind://docker/kind/", taints=[TAINT])
    await it.look(3)
    assert (it.left(), it.cloud.asked, it.taints()) == (["node-1"], [], [TAINT])


async def test_many_gone_at_once_are_kept_and_told_once(it):
    for number in range(4):
        await it.join(f"node-{number}", ready="True" if number == 0 else "Unknown")
    await it.look(4)
    assert len(it.left()) == 4
    assert it.reasons() == [("Warning", "DeletingNodePaused")] * 3
    assert "3 of 4" in it.events[0][3]


async def test_removals_are_bounded_over_time_too(it):
    for number in range(6):
        await it.join(f"node-{number}")
        it.cloud.there[f"node-{number}"] = instance(f"node-{number}")
    for number in range(4):
        del it.cloud.there[f"node-{number}"]
        await it.look(2)
        await until(lambda: len(it.nodes.store) == len(it.left()))
    assert it.left() == ["node-3", "node-4", "node-5"]
    await it.clock.advance(controller.WINDOW_S + 1)
    await it.look(1)
    assert it.left() == ["node-4", "node-5"]


async def test_l_03_refused_removal_is_told(it):
    await it.join()
    it.server.answers.append(("DELETE", 403))
    await it.look()
    assert it.left() == ["node-1"]
    assert it.reasons() == [("Normal", "DeletingNode"), ("Warning", "DeletingNodeFailed")]


async def test_l_07_node_that_changed_unseen_is_not_removed(it):
    await it.join()
    await it.look(1)
    stale = it.nodes.store["node-1"]
    await it.join(ready="True")
    it.nodes.store["node-1"] = stale
    await it.look(1)
    assert it.left() == ["node-1"]


async def test_l_01_looks_every_period_until_shut_down(it):
    await it.join()
    working = asyncio.create_task(it.target.work())
    await until(lambda: len(it.cloud.asked) == 1)
    await it.clock.advance(4)
    assert len(it.cloud.asked) == 1
    await it.clock.advance(1)
    await until(lambda: it.left() == [])
    it.target.shut_down()
    await working
