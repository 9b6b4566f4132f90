"""Looks at Nodes and routes, against an API server and a cloud in memory."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace

import msgspec
import pytest

from ccm import errors, identity, metrics
from ccm.cloud import client, documents
from ccm.kube import informer, objects
from ccm.route import controller, reconciler
from tests.fakes.ccm_clock import FakeClock, until
from tests.fakes.kubeapi import FakeApiServer
from tests.unit.ccm import builders

NODES = "/api/v1/nodes"
CLUSTER = identity.Identity("kind", builders.CLUSTER_UID)
RANGES = ("10.244.0.0/16", "fd00:10:244::/56")
NETWORK = f"k8s-{CLUSTER.uid}"
READY = {"type": "Ready", "status": "True", "reason": "KubeletReady"}


class FakeNetworks:
    """The cloud's networks and routes; new routes are `born` in that state."""

    def __init__(self):
        self.store: dict[str, documents.Route] = {}
        self.networks: dict[str, tuple[str, ...]] = {}
        self.calls: list[str] = []
        self.failing: dict[str, errors.CloudError] = {}
        self.born = "ACTIVE"
        self.news: asyncio.Queue[client.Frame] = asyncio.Queue()
        self.under_way = self.most_at_once = 0

    def add(self, name, destination, *, owner=CLUSTER, next_hop="10.0.0.9"):
        self.store[name] = documents.Route(
            name, NETWORK, destination, next_hop, owner.labels, "ACTIVE"
        )

    async def routes(self):
        self._called("list")
        return tuple(self.store.values())

    async def put_network(self, name, ranges, labels, fence):
        assert fence == "term/1"
        self._called("put_network")
        self.networks[name] = tuple(ranges)

    async def put_route(self, name, document, fence):
        assert fence == "term/1"
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        self._called(f"put {document.destination}")
        error = documents.LastError("route_failed", "no link") if self.born == "ERROR" else None
        made = documents.Route(
            name, **msgspec.structs.asdict(document), state=self.born, last_error=error
        )
        self.store[name] = made
        return made

    async def delete_route(self, name, fence):
        assert fence == "term/1"
        self._called(f"delete {name}")
        self.store.pop(name, None)

    async def watch(self, since, kinds):
        assert (since, kinds) == (None, "route")
        yield client.Frame("OPEN")
        while True:
            yield await self.news.get()

    def _called(self, what):
        self.calls.append(what)
        error = self.failing.get(what.partition(" ")[0])
        if error is not None:
            raise error

    def destinations(self):
        return sorted(one.destination for one in self.store.values())


class Stage:
    """A running route controller."""

    def __init__(self, server, transport):
        self.server = server
        self.clock = FakeClock()
        self.metrics = metrics.Metrics()
        self.cloud = FakeNetworks()
        self.events = []
        self.nodes = informer.Informer(transport, NODES, objects.Node, self.clock)
        given = SimpleNamespace(
            settings=builders.run_settings(configure_cloud_routes=True, cluster_cidrs=RANGES),
            cluster=CLUSTER,
            clock=self.clock,
            rng=random.Random(1),
            metrics=self.metrics,
            nodes=self.nodes,
            routes=self.cloud,
            transport=transport,
            recorder=SimpleNamespace(record=lambda *event: self.events.append(event[2:])),
            mirror=SimpleNamespace(on_return=[]),
            may_write=lambda: None,
            fence=lambda: "term/1",
        )
        self.target = controller.RouteController(given)

    def join(self, name="node-1", *pods, ip="10.0.0.1", addresses=None, conditions=(READY,)):
        if addresses is None:
            addresses = [("Hostname", name), ("InternalIP", ip)]
        body = {
            "spec": {"podCIDRs": list(pods)} if pods else {},
            "status": {
                "addresses": [{"type": kind, "address": one} for kind, one in addresses],
                "conditions": list(conditions),
            },
        }
        self.server.put(NODES, name, body)

    async def look(self):
        """Let the debounce pass and the look end."""
        done = self.count()
        await until(lambda: len(self.nodes.store) == len(self.server.objects))
        for _ in range(200):
            await self.clock.advance(controller.PACE_S)
            if self.looks() > done:
                break
        await until(lambda: self.ended() == self.looks())

    def looks(self):
        return self._value("route_controller_route_sync_total")

    count = looks

    def ended(self):
        samples = [one for metric in self.metrics.registry.collect() for one in metric.samples]
        return sum(s.value for s in samples if s.name == "ccm_reconciles_total")

    def _value(self, name):
        return self.metrics.registry.get_sample_value(name) or 0

    def condition(self, name="node-1"):
        conditions = self.server.objects[f"{NODES}/{name}"]["status"]["conditions"]
        return {c["type"]: (c["status"], c["reason"]) for c in conditions}.get("NetworkUnavailable")

    def patches(self):
        return [path for method, path in self.server.requests if method == "PATCH"]


@pytest.fixture
async def it():
    async with FakeApiServer().serving() as server:
        transport = server.transport()
        stage = Stage(server, transport)
        loops = [stage.nodes.run(), *stage.target.loops()]
        tasks = [asyncio.create_task(one) for one in loops]
        await until(stage.nodes.synced.is_set)
        tasks.append(asyncio.create_task(stage.target.work()))
        await until(lambda: stage.ended() >= 1)
        yield stage
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await transport.close()


async def test_r_02_r_05_u_13_node_gets_its_routes_and_condition(it):
    it.join(
        "node-1", "10.244.1.0/24", "fd00:10:244:1::/64",
        addresses=[("ExternalIP", "192.0.2.1"), ("InternalIP", "10.0.0.1"), ("InternalIP", "fd00::1")],
    )  # fmt: skip
    it.join("node-2")
    await it.look()
    routes = {one.destination: one for one in it.cloud.store.values()}
    assert {to: one.next_hop for to, one in routes.items()} == {
        "10.244.1.0/24": "10.0.0.1",
        "fd00:10:244:1::/64": "fd00::1",
    }
    assert it.cloud.networks == {NETWORK: RANGES}
    assert routes["10.244.1.0/24"].labels == {**CLUSTER.labels, "node": "node-1"}
    assert sorted(it.cloud.store) == ["k8s-uid-node-1-v4", "k8s-uid-node-1-v6"]
    assert it.condition() == ("False", "RouteCreated")
    assert it.condition("node-2") is None  # no range of pods: not touched
    conditions = it.server.objects[f"{NODES}/node-1"]["status"]["conditions"]
    assert READY in conditions
    assert conditions[-1]["message"] == "RouteController created a route"
    assert it.events == []


async def test_r_02_u_13_orphans_go_and_what_is_not_ours_stays(it):
    other = identity.Identity("kind", "another-cluster")
    it.cloud.add("k8s-gone-v4", "10.244.9.0/24")
    it.cloud.add("foreign", "10.244.8.0/24", owner=other)
    it.cloud.add("outside", "10.99.0.0/24")
    it.cloud.add("odd", "what is this")
    it.join("node-1", "10.244.1.0/24")
    await it.look()
    assert sorted(it.cloud.store) == ["foreign", "k8s-uid-node-1-v4", "odd", "outside"]
    it.server.delete(NODES, "node-1")
    await it.look()
    assert sorted(it.cloud.store) == ["foreign", "odd", "outside"]


async def test_r_02_orphans_go_without_any_node(it):
    it.cloud.add("k8s-gone-v4", "10.244.9.0/24")
    it.cloud.news.put_nowait(client.Frame("ADDED", 1, "route"))
    await it.look()
    assert it.cloud.store == {}


async def test_r_03_changed_address_leads_the_route_there(it):
    it.join("node-1", "10.244.1.0/24")
    await it.look()
    it.join("node-1", "10.244.1.0/24", ip="10.0.0.7")
    await it.look()
    (route,) = it.cloud.store.values()
    assert route.next_hop == "10.0.0.7"


async def test_r_03_deletes_end_before_creations_begin(it):
    """The new node has the range that the old one had: both at once would overlap."""
    it.join("old", "10.244.1.0/24")
    await it.look()
    it.cloud.calls.clear()
    it.server.delete(NODES, "old")
    it.join("new", "10.244.1.0/24")
    await it.look()
    assert it.cloud.calls == [
        "list", "delete k8s-uid-old-v4", "put_network", "put 10.244.1.0/24",
    ]  # fmt: skip


async def test_r_04_refused_route_is_one_warning_and_the_condition(it):
    it.cloud.failing["put"] = errors.CloudRefused("range_in_use", "overlaps another")
    it.join("node-1", "10.244.1.0/24")
    await it.look()
    assert it.condition() == ("True", "NoRouteCreated")
    note = "Could not create route for node node-1: overlaps another"
    assert it.events == [("Warning", "FailedToCreateRoute", note)]
    it.cloud.news.put_nowait(client.Frame("MODIFIED", 2, "route"))
    await it.look()
    assert len(it.events) == 1
    del it.cloud.failing["put"]
    await it.clock.advance(reconciler.REFUSED_S)
    await until(lambda: it.condition() == ("False", "RouteCreated"))


async def test_r_04_only_so_many_at_once(it):
    for number in range(60):
        it.join(f"node-{number}", f"10.244.{number}.0/24")
    await it.look()
    await until(lambda: len(it.cloud.store) == 60)
    assert it.cloud.most_at_once <= reconciler.AT_ONCE


@pytest.mark.parametrize(
    ("pods", "ip", "why"),
    [
        ("10.99.0.0/24", "10.0.0.1", "in none of --cluster-cidr"),
        ("10.244.1.0/24", "fd00::1", "no InternalIP of the family"),
        ("nonsense", "10.0.0.1", "in none of --cluster-cidr"),
    ],
)
async def test_r_05_node_that_cannot_be_routed_says_why(it, pods, ip, why):
    it.join("node-1", pods, ip=ip)
    await it.look()
    assert it.condition() == ("True", "NoRouteCreated")
    ((kind, reason, note),) = it.events
    assert (kind, reason, why in note) == ("Warning", "FailedToCreateRoute", True)


async def test_r_05_u_13_another_plug_ins_reason_is_overwritten_once(it):
    calico = {"type": "NetworkUnavailable", "status": "False", "reason": "CalicoIsUp"}
    it.join("node-1", "10.244.1.0/24", conditions=[READY, calico])
    await it.look()
    assert it.condition() == ("False", "RouteCreated")
    await it.look()
    assert len(it.patches()) == 1


async def test_r_05_condition_waits_until_hosts_have_the_route(it):
    it.cloud.born = "PENDING"
    it.join("node-1", "10.244.1.0/24")
    await it.look()
    assert it.condition() is None
    (name,) = it.cloud.store
    it.cloud.store[name] = msgspec.structs.replace(it.cloud.store[name], state="ACTIVE")
    it.cloud.news.put_nowait(client.Frame("MODIFIED", 2, "route"))
    await it.look()
    assert it.condition() == ("False", "RouteCreated")


async def test_r_05_route_that_a_host_cannot_have_is_told(it):
    it.cloud.born = "ERROR"
    it.join("node-1", "10.244.1.0/24")
    await it.look()
    assert it.condition() == ("True", "NoRouteCreated")
    assert it.events[0][2].endswith("no link")


async def test_r_06_r_08_b_27_cloud_is_asked_for_a_reason_or_once_a_period(it):
    it.join("node-1", "10.244.1.0/24")
    await it.look()
    await it.look()  # its own condition came back by the watch
    looks = it.looks()
    for _ in range(5):  # heartbeats: only what has nothing to do with routes changes
        beat = {**READY, "lastHeartbeatTime": str(_)}
        said = it.server.objects[f"{NODES}/node-1"]["status"]["conditions"]
        it.join("node-1", "10.244.1.0/24", conditions=[beat, *said[1:]])
        await it.clock.advance(60)
    assert it.looks() == looks
    await it.clock.advance(600)
    await until(lambda: it.looks() == looks + 1)


async def test_r_07_what_the_cloud_tells_of_routes_is_repaired(it):
    it.join("node-1", "10.244.1.0/24")
    await it.look()
    it.cloud.store.clear()
    it.cloud.news.put_nowait(client.Frame("DELETED", 3, "route"))
    await it.look()
    assert it.cloud.destinations() == ["10.244.1.0/24"]


@pytest.mark.parametrize("call", ["list", "put_network", "put", "delete"])
async def test_r_07_trouble_of_the_cloud_is_repeated_with_back_off(it, call):
    it.cloud.add("k8s-gone-v4", "10.244.9.0/24")
    it.cloud.failing[call] = errors.CloudUnreachable("no answer")
    it.join("node-1", "10.244.1.0/24")
    await it.look()
    assert it.looks() < 12
    del it.cloud.failing[call]
    await it.clock.advance(120)
    await until(lambda: it.cloud.destinations() == ["10.244.1.0/24"])
    await until(lambda: it.condition() == ("False", "RouteCreated"))


async def test_deposed_leader_writes_nothing(it):
    def refuse():
        raise errors.LeaseLost("another leads")

    lost = reconciler.Reconciler(
        lambda: it.nodes.store,
        it.cloud,
        None,
        None,
        it.clock,
        it.metrics,
        cluster=CLUSTER,
        ranges=RANGES,
        may_write=refuse,
        fence=lambda: "",
    )
    it.cloud.add("k8s-gone-v4", "10.244.9.0/24")
    it.cloud.calls.clear()
    with pytest.raises(errors.LeaseLost):
        await lost.reconcile("routes")
    assert it.cloud.calls == ["list"]
