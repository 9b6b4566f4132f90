"""What adds keys, and what doesn't (S-05, S-06, S-38 with B-14, B-19, B-29)."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest

from ccm import metrics
from ccm.cloud import documents
from ccm.kube import objects, workqueue
from ccm.service import nodesyncs, triggers
from tests.fakes.ccm_clock import FakeClock
from tests.unit.ccm import builders

LOAD_BALANCER = documents.LoadBalancer(
    "k8s-u-1",
    {"cluster-uid": builders.CLUSTER_UID, "namespace": "shop", "service": "web"},
    status=documents.CloudStatus(id="lb_1", state="ACTIVE", generation=1, observed_generation=1),
)


class Setup:
    """Triggers on a queue whose keys a test can read."""

    def __init__(self):
        self.clock = FakeClock()
        self.queue = workqueue.WorkQueue(self.clock, metrics.Metrics())
        self.all: tuple[objects.Service, ...] = ()
        self.known: set[str] = set()
        self.metrics = metrics.Metrics()
        self.node_syncs = nodesyncs.NodeSyncs(self.clock, self.metrics)
        self.target = triggers.Triggers(
            self.queue,
            self,
            lambda name: name in self.known,
            builders.ownership(),
            self.clock,
            self.node_syncs,
            random.Random(1),
        )

    def service(self, key):
        return next((one for one in self.all if one.key == key), None)

    def services(self):
        return self.all

    @property
    def keys(self):
        return sorted(self.queue._ready)


@pytest.fixture
def it():
    return Setup()


@pytest.mark.parametrize(
    ("service", "added"),
    [
        pytest.param(builders.service(), True, id="wanted"),
        pytest.param(builders.service(type="ClusterIP"), False, id="other type"),
        pytest.param(
            builders.service(type="ClusterIP", finalizers=(objects.CLEANUP_FINALIZER,)),
            True,
            id="with the finalizer",
        ),
        pytest.param(builders.service(load_balancer_class="example.com/x"), False, id="foreign"),
    ],
)
def test_s_04_s_05_u_05_services_that_concern_us(it, service, added):
    it.target.service_changed("shop/web", None, service)
    assert bool(it.keys) is added


def test_a_04_b_03_foreign_service_with_a_load_balancer_of_ours_concerns_us(it):
    it.known.add("k8s-u-1")
    it.target.service_changed("shop/web", None, builders.service(load_balancer_class="e.com/x"))
    assert it.keys == ["shop/web"]


def test_s_07_deletion_concerns_us(it):
    it.target.service_changed("shop/web", builders.service(), None)
    assert it.keys == ["shop/web"]


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(builders.service(type="ClusterIP"), id="type"),
        pytest.param(builders.service(load_balancer_class="example.com/x"), id="class"),
        pytest.param(builders.service(load_balancer_source_ranges=("10.0.0.0/8",)), id="ranges"),
        pytest.param(builders.service(ports=(builders.port(81),)), id="port"),
        pytest.param(builders.service(ports=(builders.port(node_port=31000),)), id="nodePort"),
        pytest.param(builders.service(ports=(builders.port(name="x"),)), id="port name"),
        pytest.param(builders.service(session_affinity="ClientIP"), id="affinity"),
        pytest.param(builders.service(load_balancer_ip="127.77.0.9"), id="address"),
        pytest.param(builders.service(annotations={"a": "b"}), id="annotation"),
        pytest.param(builders.service(uid="u-2"), id="UID"),
        pytest.param(builders.service(external_traffic_policy="Local"), id="policy"),
        pytest.param(builders.service(health_check_node_port=32000), id="health check port"),
        pytest.param(builders.service(ip_families=("IPv4", "IPv6")), id="families"),
        pytest.param(builders.service(allocate_node_ports=False), id="allocation, unlike upstream"),
    ],
)
def test_s_06_s_08_u_04_b_29_every_change_of_a_service_of_ours_is_looked_at(it, changed):
    it.target.service_changed("shop/web", builders.service(), changed)
    assert it.keys == ["shop/web"]


def test_a_change_of_sharing_is_looked_at_on_both_sides(it):
    one, other = (
        builders.service(annotations={"fakecloud.dev/share": share}) for share in ("x", "y")
    )
    it.target.service_changed("shop/web", one, other)
    assert it.keys == ["share:shop/x", "share:shop/y", "shop/web"]


def test_slices_matter_where_pods_are_targets(it):
    slice_ = objects.EndpointSlice(
        objects.ObjectMeta("web-x", "shop", labels={"kubernetes.io/service-name": "web"})
    )
    it.all = (builders.service(),)
    it.target.slice_changed("shop/web-x", None, slice_)
    assert it.keys == []
    it.all = (builders.service(ports=(builders.port(node_port=0),)),)
    it.target.slice_changed("shop/web-x", slice_, None)
    assert it.keys == ["shop/web"]


PLAIN = builders.node()


@pytest.mark.parametrize(
    ("old", "new", "matters"),
    [
        pytest.param(None, PLAIN, True, id="added"),
        pytest.param(PLAIN, None, True, id="deleted"),
        pytest.param(PLAIN, builders.node(labels={"x": "y"}), True, id="label"),
        pytest.param(PLAIN, builders.node(taints=("x",)), False, id="other taint"),
        pytest.param(PLAIN, builders.node("node-1", "10.0.0.9"), True, id="address"),
        pytest.param(
            PLAIN, builders.node(taints=("ToBeDeletedByClusterAutoscaler",)), True, id="autoscaler"
        ),
        pytest.param(PLAIN, builders.node(is_deleted=True), True, id="being deleted"),
        pytest.param(
            builders.node(is_deleted=True),
            None,
            True,
            id="gone after it was being deleted",
        ),
    ],
)
async def test_s_38_b_14_b_19_node_changes_that_matter(it, old, new, matters):
    it.all = (builders.service(), builders.service("cluster", type="ClusterIP"))
    task = asyncio.create_task(it.target.run_nodes(0.1))
    it.target.node_changed("node-1", old, new)
    await it.clock.advance(0.2)
    assert it.keys == (["shop/web"] if matters else [])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_s_40_many_node_changes_are_one(it):
    it.all = (builders.service(),)
    task = asyncio.create_task(it.target.run_nodes(0.1))
    for n in range(50):
        it.target.node_changed(f"n{n}", None, builders.node(f"n{n}"))
    await it.clock.advance(0.05)
    assert it.keys == []
    await it.clock.advance(0.1)
    assert it.keys == ["shop/web"]
    assert it.clock.slept.count(0.1) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def changed(**status):
    return msgspec.structs.replace(
        LOAD_BALANCER, status=msgspec.structs.replace(LOAD_BALANCER.status, **status)
    )


@pytest.mark.parametrize(
    ("old", "new", "added"),
    [
        pytest.param(None, LOAD_BALANCER, True, id="new"),
        pytest.param(LOAD_BALANCER, None, True, id="gone"),
        pytest.param(LOAD_BALANCER, changed(state="ERROR"), True, id="state"),
        pytest.param(LOAD_BALANCER, changed(operating_state="DEGRADED"), False, id="health"),
        pytest.param(LOAD_BALANCER, changed(resource_version="9"), False, id="version only"),
    ],
)
def test_b_01_changes_in_the_cloud_that_matter(it, old, new, added):
    it.target.load_balancer_changed(old, new)
    assert bool(it.keys) is added


def test_load_balancers_of_other_clusters_are_none_of_our_business(it):
    foreign = msgspec.structs.replace(LOAD_BALANCER, labels={"cluster-uid": "other"})
    it.target.load_balancer_changed(None, foreign)
    assert it.keys == []


async def test_s_09_b_01_resync_looks_at_every_service_of_ours_spread_over_time(it):
    it.all = tuple(builders.service(f"s{n}", uid=f"u{n}") for n in range(20))
    tasks = [
        asyncio.create_task(it.target.run_resync(600.0)),
        asyncio.create_task(it.queue.run_timers()),
    ]
    await it.clock.advance(610.0)
    early = len(it.keys)
    assert early < 20
    await it.clock.advance(300.0)
    assert len(it.keys) == 20
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
