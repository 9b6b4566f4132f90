"""Services created, edited, retyped, shared and deleted, in a world where everything may happen.

Between any two looks the process may die, the cloud may lose or change load balancers, nodes may
go. When peace comes, every Service has what it asks for and nothing is left over; and at no time
is the cloud asked to make something for a Service that is on its way out.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ccm import errors, metrics
from ccm.cloud import documents
from ccm.kube import objects
from ccm.service import nodes, ownership, rates, reconciler, sharing
from tests.fakes.ccm_clock import FakeClock
from tests.fakes.ccm_world import Crash, FakeCloudDoor, FakeKube, FakeReach, World
from tests.unit.ccm import builders
from tests.unit.ccm.service.stage import FakePrices

NAMES = st.sampled_from(["a", "b", "c"])
FOREIGN = "example.com/keep"
SPECS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["LoadBalancer", "LoadBalancer", "ClusterIP"]),
        "load_balancer_class": st.sampled_from([None, None, "fakecloud.dev/haproxy", "e.com/x"]),
        "session_affinity": st.sampled_from(["None", "ClientIP"]),
        "load_balancer_source_ranges": st.sampled_from([None, ("10.0.0.0/8",)]),
        "ip_families": st.sampled_from([("IPv4",), ("IPv4", "IPv6")]),
        "external_traffic_policy": st.sampled_from(["Cluster", "Local"]),
        "health_check_node_port": st.sampled_from([0, 32000]),
        "ports": st.lists(
            st.builds(
                builders.port,
                st.sampled_from([80, 81]),
                protocol=st.sampled_from(["TCP", "TCP", "UDP", "SCTP"]),
            ),
            min_size=1,
            max_size=2,
            unique_by=lambda one: (one.port, one.protocol),
        ).map(tuple),
    }
)
ANNOTATIONS = st.fixed_dictionaries(
    {},
    optional={
        "fakecloud.dev/share": st.sampled_from(["x", "y"]),
        "fakecloud.dev/algorithm": st.sampled_from(["round_robin", "source_hash", "wrong"]),
        "fakecloud.dev/hostname": st.just("web.example.com"),
    },
)
BACKENDS = tuple(nodes.Backend(f"node-{n}", (f"10.0.0.{n}",)) for n in range(1, 4))


class Recording(FakeCloudDoor):
    """Checks each PUT against the Services as they are."""

    def __init__(self, world: World, kube: FakeKube) -> None:
        super().__init__(world)
        self._kube = kube

    async def put(self, name: str, document: documents.Document) -> documents.LoadBalancer:
        uid = document.labels.get("service-uid")
        if uid is not None:
            owners = [one for one in self._kube.store.values() if one.metadata.uid == uid]
            assert owners, "a load balancer for a Service that is gone"
            assert not owners[0].metadata.deletion_timestamp, "…or on its way out"
            assert objects.CLEANUP_FINALIZER in owners[0].finalizers, "…or without finalizer"
        return await super().put(name, document)


class Services(RuleBasedStateMachine):
    """One controller on one cluster and one cloud."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.world = World()
        self.kube = FakeKube(self.world)
        self.cloud = Recording(self.world, self.kube)
        self.clock = FakeClock()
        self.owner = builders.ownership()
        self.uids = 0
        self.groups = {ownership.group_key("shop", one) for one in "xy"}
        self._restart()

    def teardown(self) -> None:
        self.peace()
        self.runner.close()

    def _restart(self) -> None:
        self.target = reconciler.Reconciler(
            self.kube,
            self.cloud,
            FakeReach(),
            rates.Rates(FakePrices(), self.clock),
            self.owner,
            builders.run_settings(orphan_grace_s=0.0),
            self.clock,
            metrics.Metrics(),
            lambda key: None,
        )

    def _look(self, key: str) -> None:
        try:
            self.runner.run(self.target.reconcile(key))
        except Crash:
            self._restart()
        except (errors.RetryAfter, errors.KubeConflict, errors.CloudError):
            pass

    def _settle_cloud(self) -> None:
        for name, one in list(self.cloud.store.items()):
            if one.status.state in ("PENDING", "UPDATING"):
                self.cloud.finish(name)
            elif one.status.state == "DELETING":
                self.cloud.drop(name)

    @rule(name=NAMES, spec=SPECS, annotations=ANNOTATIONS, has_foreign=st.booleans())
    def create(
        self, name: str, spec: dict[str, Any], annotations: dict[str, str], has_foreign: bool
    ) -> None:
        if f"shop/{name}" in self.kube.store:
            return
        self.uids += 1
        finalizers = (FOREIGN,) if has_foreign else ()
        self.kube.create(
            builders.service(
                name,
                uid=f"u-{self.uids}",
                annotations=annotations,
                finalizers=finalizers,
                **spec,
            )
        )

    @rule(name=NAMES, spec=SPECS, annotations=ANNOTATIONS)
    def edit(self, name: str, spec: dict[str, Any], annotations: dict[str, str]) -> None:
        service = self.kube.store.get(f"shop/{name}")
        if service is None:
            return
        meta = msgspec.structs.replace(service.metadata, annotations=annotations)
        changed = msgspec.structs.replace(
            service, metadata=meta, spec=msgspec.structs.replace(service.spec, **spec)
        )
        if spec["type"] != "LoadBalancer":  # the API server clears the addresses
            status = msgspec.structs.replace(
                service.status, load_balancer=objects.LoadBalancerStatus()
            )
            changed = msgspec.structs.replace(changed, status=status)
        self.kube.create(changed)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        if f"shop/{name}" in self.kube.store:
            self.kube.delete(f"shop/{name}")

    @rule(name=NAMES)
    def remove_by_force(self, name: str) -> None:
        self.kube.store.pop(f"shop/{name}", None)

    @rule(key=st.sampled_from(["shop/a", "shop/b", "shop/c", "share:shop/x", "share:shop/y"]))
    def look(self, key: str) -> None:
        self._look(key)

    @rule(key=st.sampled_from(["shop/a", "shop/b", "share:shop/x"]), writes=st.integers(0, 3))
    def look_and_die(self, key: str, writes: int) -> None:
        self.world.crash_before = len(self.world.writes) + writes
        self._look(key)
        self.world.crash_before = None

    @rule()
    def restart(self) -> None:
        self._restart()

    @rule()
    def the_cloud_works(self) -> None:
        self._settle_cloud()

    @rule(which=st.integers(0, 5), damage=st.sampled_from(["lost", "changed", "unmarked"]))
    def the_cloud_drifts(self, which: int, damage: str) -> None:
        names = sorted(self.cloud.store)
        if which >= len(names):
            return
        one = self.cloud.store[names[which]]
        if damage == "lost":
            self.cloud.drop(one.name)
        elif damage == "changed":
            spec = msgspec.structs.replace(one.spec, source_ranges=("192.0.2.0/24",))
            grown = msgspec.structs.replace(one.status, generation=one.status.generation + 1)
            self.cloud.store[one.name] = msgspec.structs.replace(one, spec=spec, status=grown)
        elif "share" not in one.labels:
            self.cloud.store[one.name] = msgspec.structs.replace(one, labels={})

    @rule(refusals=st.integers(1, 2))
    def the_cloud_is_busy(self, refusals: int) -> None:
        self.cloud.fail_next = [errors.CloudBusy("internal", "later")] * refusals

    @rule(count=st.integers(0, 3))
    def nodes_change(self, count: int) -> None:
        self.kube.node_backends = BACKENDS[:count]

    @rule()
    def peace(self) -> None:
        """Look at everything until nothing moves; then all must be as it should be."""
        self.cloud.fail_next = []
        before: object = None
        for _ in range(40):
            keys = {key for one in self.cloud.store.values() for key in ownership.keys_of(one)}
            for key in sorted(keys | set(self.kube.store) | self.groups):
                self._look(key)
            self._settle_cloud()
            now = (dict(self.kube.store), dict(self.cloud.store))
            if now == before:
                break
            before = now
        else:
            raise AssertionError("no peace: the controller goes on writing")
        self._check_peace()

    def _check_peace(self) -> None:
        expected: set[str] = set()
        for service in self.kube.store.values():
            found = self._balancer_of(service)
            if not self.owner.wants(service):
                assert objects.CLEANUP_FINALIZER not in service.finalizers or (
                    service.spec.type == "LoadBalancer" and not self.owner.class_is_ours(service)
                ), "our finalizer is left"
                continue
            if service.ingress:
                assert found is not None, "an address without a load balancer"
                assert found.is_applied
                expected.add(found.name)
                open_ports = {one.port for one in found.spec.listeners}
                assert {one.port for one in service.ports if one.protocol != "SCTP"} <= open_ports
                if sharing.share_of(service):
                    assert ownership.members_of(found)[service.key] == service.metadata.uid
                assert objects.CLEANUP_FINALIZER in service.finalizers
            else:
                reasons = {one.reason for one in service.conditions}
                assert reasons & {"Unsupported"}, "pending, and nobody knows why"
                if found is not None and "share" not in found.labels:
                    expected.add(found.name)  # what served before an edit that is refused
        left = {name for name, one in self.cloud.store.items() if one.labels}
        assert left <= expected, "a load balancer that nobody asked for"

    def _balancer_of(self, service: objects.Service) -> documents.LoadBalancer | None:
        group = sharing.share_of(service)
        if group:
            return self.cloud.store.get(sharing.name_of(group, self.owner))
        return self.cloud.store.get(ownership.load_balancer_name(service.metadata.uid))

    @invariant()
    def finalizers_of_others_stay(self) -> None:
        for service in self.kube.store.values():
            if service.metadata.deletion_timestamp and not service.finalizers:
                raise AssertionError("a deleted Service without finalizers is gone")


TestServices = Services.TestCase
TestServices.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)


def test_u_15_b_02_s_25_the_machine_is_run() -> None:
    """TestServices above is what shows these points; pytest collects it beside this."""
    assert TestServices.settings.max_examples >= 100
