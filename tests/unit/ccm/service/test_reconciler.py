"""One key at a time: order of writes, ownership, what people are told (S-19 to S-35, B-03)."""

from __future__ import annotations

import msgspec
import pytest

from ccm import errors, metrics
from ccm.kube import objects
from ccm.service import nodes, reconciler
from ccm.service.ports import Verdict
from tests.fakes.ccm_clock import FakeClock
from tests.fakes.ccm_world import Crash, FakeCloudDoor, FakeKube, World
from tests.unit.ccm import builders

KEY = "shop/web"
NAME = "k8s-u-1"
FINALIZER = objects.CLEANUP_FINALIZER


class Setup:
    """A world with one reconciler; restart() is a new process on the same world."""

    def __init__(self) -> None:
        self.world = World()
        self.kube = FakeKube(self.world)
        self.cloud = FakeCloudDoor(self.world)
        self.clock = FakeClock()
        self.metrics = metrics.Metrics()
        self.restart()

    def restart(self, **changes: object) -> None:
        """Forget everything that is in memory only."""
        self.target = reconciler.Reconciler(
            self.kube,
            self.cloud,
            builders.ownership(),
            builders.run_settings(**changes),
            self.clock,
            self.metrics,
        )

    async def look(self):
        """Reconcile the one key."""
        return await self.target.reconcile(KEY)

    async def served(self, **spec: object) -> objects.Service:
        """Bring a Service to its address."""
        self.kube.create(builders.service(**spec))
        await self.look()
        self.cloud.finish(NAME)
        await self.look()
        self.world.writes.clear()
        self.kube.events.clear()
        return self.kube.store[KEY]


@pytest.fixture
def it():
    return Setup()


async def test_service_gets_its_address_in_the_right_order(it):
    it.kube.create(builders.service())
    waiting = await it.look()
    assert waiting.verdict is Verdict.WAITING
    assert it.kube.store[KEY].ingress == ()
    it.cloud.finish(NAME)
    done = await it.look()
    assert done == reconciler.Outcome(Verdict.IN_SYNC)
    assert it.world.writes == [
        "kube:finalizers+conditions",
        "cloud:put",
        "kube:ingress+conditions",
    ]
    assert it.kube.store[KEY].ingress == (
        objects.Ingress("127.77.0.1", ip_mode="Proxy", ports=(objects.PortStatus(80, "TCP"),)),
    )
    assert it.kube.reasons() == ["EnsuringLoadBalancer", "EnsuredLoadBalancer"]


async def test_conditions_can_be_turned_off(it):
    it.restart(service_conditions=False)
    await it.served()
    assert it.kube.store[KEY].conditions == ()


async def test_service_in_sync_costs_no_write_and_no_event(it):
    await it.served()
    for _ in range(3):
        assert (await it.look()).verdict is Verdict.IN_SYNC
    assert it.world.writes == []
    assert it.kube.events == []


async def test_restart_costs_no_write(it):
    await it.served()
    it.restart()
    await it.look()
    assert it.world.writes == []
    assert it.kube.events == []


async def test_node_change_is_one_put_and_the_address_stays(it):
    await it.served()
    it.kube.node_backends += (nodes.Backend("node-3", ("10.0.0.3",)),)
    await it.look()
    assert it.kube.store[KEY].ingress
    it.cloud.finish(NAME)
    await it.look()
    assert it.world.writes == ["cloud:put"]
    assert it.kube.reasons() == ["UpdatedLoadBalancer"]


async def test_without_nodes_the_cloud_is_asked_all_the_same(it):
    it.kube.node_backends = ()
    it.kube.create(builders.service())
    await it.look()
    assert it.world.writes[-1] == "cloud:put"
    assert "UnAvailableLoadBalancer" in it.kube.reasons()


async def test_port_change_updates_the_published_ports_when_it_is_in_effect(it):
    service = await it.served()
    ports = (builders.port(80), builders.port(443))
    spec = msgspec.structs.replace(service.spec, ports=ports)
    it.kube.create(msgspec.structs.replace(service, spec=spec))
    await it.look()
    assert len(it.kube.store[KEY].ingress[0].ports) == 1
    it.cloud.finish(NAME)
    await it.look()
    assert [one.port for one in it.kube.store[KEY].ingress[0].ports] == [80, 443]


@pytest.mark.parametrize("damage", ["deleted", "changed"])
async def test_drift_in_the_cloud_is_repaired(it, damage):
    await it.served()
    if damage == "deleted":
        it.cloud.drop(NAME)
    else:
        one = it.cloud.store[NAME]
        status = msgspec.structs.replace(one.status, generation=2, observed_generation=2)
        spec = msgspec.structs.replace(one.spec, source_ranges=("10.0.0.0/8",))
        it.cloud.store[NAME] = msgspec.structs.replace(one, spec=spec, status=status)
    await it.look()
    assert it.world.writes[:1] == ["cloud:put"]
    assert it.cloud.store[NAME].spec.source_ranges == ("0.0.0.0/0", "::/0")


async def test_a_value_that_the_cloud_writes_differently_is_no_endless_put(it):
    await it.served()
    one = it.cloud.store[NAME]
    spec = msgspec.structs.replace(one.spec, source_ranges=("::/0", "0.0.0.0/0"))
    it.cloud.store[NAME] = msgspec.structs.replace(one, spec=spec)
    await it.look()
    assert it.world.writes == []


async def test_deleted_service_goes_after_the_load_balancer(it):
    await it.served()
    it.kube.delete(KEY)
    assert (await it.look()).verdict is Verdict.WAITING
    assert (await it.look()).verdict is Verdict.WAITING
    assert KEY in it.kube.store
    it.cloud.drop(NAME)
    assert (await it.look()).verdict is Verdict.REMOVED
    assert it.world.writes == ["cloud:delete", "kube:finalizers+ingress+conditions"]
    assert KEY not in it.kube.store
    assert it.kube.reasons() == ["DeletingLoadBalancer", "DeletedLoadBalancer"]


async def test_deletion_that_the_cloud_never_confirms_is_looked_up_in_time(it):
    await it.served()
    it.kube.delete(KEY)
    await it.look()
    await it.clock.advance(61)
    assert (await it.look()).verdict is Verdict.WAITING


async def test_type_change_removes_everything_that_is_ours(it):
    service = await it.served()
    spec = msgspec.structs.replace(service.spec, type="ClusterIP")
    # The API server clears the addresses in the same write.
    status = msgspec.structs.replace(service.status, load_balancer=objects.LoadBalancerStatus())
    it.kube.create(msgspec.structs.replace(service, spec=spec, status=status))
    it.cloud.deletes_at_once = True
    await it.look()
    await it.look()
    left = it.kube.store[KEY]
    assert (left.finalizers, left.conditions, it.cloud.store) == ((), (), {})
    assert (await it.look()).verdict is Verdict.NOT_OURS


async def test_foreign_finalizers_are_kept(it):
    await it.served(finalizers=("example.com/x",))
    assert it.kube.store[KEY].finalizers == ("example.com/x", FINALIZER)
    it.kube.delete(KEY)
    it.cloud.deletes_at_once = True
    await it.look()
    await it.look()
    assert it.kube.store[KEY].finalizers == ("example.com/x",)


FOREIGN_STATUS = objects.ServiceStatus(
    objects.LoadBalancerStatus((objects.Ingress("203.0.113.1"),)),
    (objects.Condition("Foreign", "True"),),
)


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_service_of_a_foreign_class_is_never_touched(it, is_deleted):
    """B-03: the finalizer's name is shared, its owner isn't."""
    it.kube.create(
        builders.service(
            load_balancer_class="example.com/x",
            finalizers=(FINALIZER,),
            status=FOREIGN_STATUS,
            deletion_timestamp="2026-01-01T00:00:00Z" if is_deleted else None,
        )
    )
    assert (await it.look()).verdict is Verdict.NOT_OURS
    assert it.world.writes == []
    assert it.kube.events == []


async def test_foreign_service_turned_cluster_ip_keeps_its_finalizer(it):
    it.kube.create(builders.service(type="ClusterIP", finalizers=(FINALIZER,)))
    assert (await it.look()).verdict is Verdict.NOT_OURS
    assert it.world.writes == []


async def test_class_given_away_while_nobody_looked_removes_our_load_balancer_only(it):
    """B-03b: LB without class → ClusterIP → LB of a foreign class, seen as one change."""
    service = await it.served()
    spec = msgspec.structs.replace(service.spec, load_balancer_class="example.com/x")
    it.kube.create(msgspec.structs.replace(service, spec=spec, status=FOREIGN_STATUS))
    it.restart()
    it.cloud.deletes_at_once = True
    await it.look()
    await it.look()
    assert it.cloud.store == {}
    assert it.kube.store[KEY].status == FOREIGN_STATUS


async def test_load_balancer_of_another_cluster_is_not_taken(it):
    await it.served()
    one = it.cloud.store[NAME]
    it.cloud.store[NAME] = msgspec.structs.replace(one, labels={**one.labels, "cluster-uid": "x"})
    assert (await it.look()).verdict is Verdict.REFUSED
    it.kube.delete(KEY)
    await it.look()
    assert NAME in it.cloud.store
    assert "cloud:delete" not in it.world.writes


async def test_load_balancer_of_a_vanished_service_is_deleted(it):
    """S-19: the finalizer was removed by hand."""
    await it.served()
    del it.kube.store[KEY]
    await it.look()
    assert it.world.writes == ["cloud:delete"]


async def test_load_balancer_is_not_an_orphan_because_the_cache_is_behind(it):
    service = await it.served()
    it.target._kube = it.target._removal._kube = _Behind(service)
    with pytest.raises(errors.RetryAfter):
        await it.look()
    assert it.world.writes == []


async def test_load_balancer_of_the_former_service_of_that_name_is_deleted(it):
    """S-20: deleted and created again faster than we looked."""
    await it.served()
    it.kube.create(builders.service(uid="u-2"))
    await it.look()
    assert it.world.writes[0] == "cloud:delete"
    assert it.cloud.store["k8s-u-2"].status.state == "PENDING"


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(errors.CloudRefused("quota_exceeded", "3 of 3 used"), id="quota"),
        pytest.param(errors.CloudRefused("validation_failed", "spec.type"), id="invalid"),
    ],
)
async def test_refusal_is_told_once_and_not_repeated_until_something_changes(it, refusal):
    it.kube.create(builders.service())
    it.cloud.fail_next = [refusal]
    for _ in range(4):
        outcome = await it.look()
        assert outcome.verdict is Verdict.REFUSED
    assert it.world.writes.count("cloud:put") == 1
    assert it.kube.reasons() == ["EnsuringLoadBalancer", "SyncLoadBalancerFailed"]
    assert it.kube.store[KEY].conditions[0].reason == "Unsupported"
    service = it.kube.store[KEY]
    spec = msgspec.structs.replace(service.spec, ports=(builders.port(81),))
    it.kube.create(msgspec.structs.replace(service, spec=spec))
    assert (await it.look()).verdict is Verdict.WAITING


async def test_refusal_is_tried_again_slowly(it):
    it.kube.create(builders.service())
    it.cloud.fail_next = [errors.CloudRefused("quota_exceeded", "3 of 3 used")]
    outcome = await it.look()
    await it.clock.advance(outcome.recheck_s)
    assert (await it.look()).verdict is Verdict.WAITING


async def test_unsupported_service_gets_no_finalizer_and_no_load_balancer(it):
    it.kube.create(builders.service(ports=(builders.port(protocol="SCTP"),)))
    await it.look()
    await it.look()
    assert it.world.writes == ["kube:conditions"]
    assert it.kube.reasons() == ["SyncLoadBalancerFailed"]
    assert it.kube.store[KEY].finalizers == ()


async def test_planned_wait_is_no_warning(it):
    it.kube.create(builders.service())
    it.cloud.fail_next = [errors.CloudBusy("rate_limited", "slow down", 3.0)]
    with pytest.raises(errors.CloudBusy):
        await it.look()
    assert "SyncLoadBalancerFailed" not in it.kube.reasons()


async def test_unreachable_cloud_is_told_once(it):
    it.kube.create(builders.service())
    it.cloud.fail_next = [errors.CloudUnreachable("refused")] * 3
    for _ in range(3):
        with pytest.raises(errors.CloudUnreachable):
            await it.look()
    assert it.kube.reasons().count("SyncLoadBalancerFailed") == 1
    assert it.kube.store[KEY].conditions[0].reason == "Infrastructure"
    await it.look()
    it.cloud.finish(NAME)
    await it.look()
    assert [one.reason for one in it.kube.store[KEY].conditions] == ["Complete", "Serving"]


async def test_error_of_the_cloud_is_told_and_the_address_of_the_last_good_state_stays(it):
    await it.served()
    it.kube.node_backends = it.kube.node_backends[:1]
    await it.look()
    it.cloud.fail(NAME, "port 80 is taken")
    for _ in range(2):
        assert (await it.look()).verdict is Verdict.WAITING
    assert it.kube.store[KEY].ingress
    assert it.kube.reasons() == ["SyncLoadBalancerFailed"]
    assert "bind_failed: port 80 is taken" in it.kube.events[0][2]
    assert it.world.writes.count("cloud:put") == 1


async def test_conflict_goes_up_so_that_the_key_comes_back(it):
    it.kube.create(builders.service())
    it.kube.stale = it.kube.store[KEY]
    it.kube.create(it.kube.store[KEY])
    with pytest.raises(errors.KubeConflict):
        await it.look()
    assert it.cloud.store == {}


async def test_being_deleted_in_the_cloud_is_waited_for(it):
    await it.served()
    await it.cloud.delete(NAME)
    with pytest.raises(errors.RetryAfter):
        await it.look()
    it.cloud.drop(NAME)
    await it.look()
    assert it.cloud.store[NAME].status.state == "PENDING"


@pytest.mark.parametrize("step", range(4))
async def test_crash_in_front_of_any_write_of_a_creation_ends_in_one_load_balancer(it, step):
    it.kube.create(builders.service())
    it.world.crash_before = step
    await settle_with_crashes(it)
    assert set(it.cloud.store) == {NAME}
    assert it.kube.store[KEY].finalizers == (FINALIZER,)
    assert it.kube.store[KEY].ingress


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize("how", ["deleted", "retyped"])
async def test_crash_in_front_of_any_write_of_a_removal_leaves_nothing(it, step, how):
    service = await it.served()
    if how == "deleted":
        it.kube.delete(KEY)
    else:
        spec = msgspec.structs.replace(service.spec, type="ClusterIP")
        status = msgspec.structs.replace(service.status, load_balancer=objects.LoadBalancerStatus())
        it.kube.create(msgspec.structs.replace(service, spec=spec, status=status))
    it.cloud.deletes_at_once = True
    it.world.crash_before = step
    await settle_with_crashes(it)
    assert it.cloud.store == {}
    if how == "deleted":
        assert it.kube.store == {}
    else:
        assert it.kube.store[KEY].finalizers == ()


async def test_finalizer_is_there_before_every_call_to_the_cloud(it):
    """Dying between finalizer and PUT must leave a Service that can be cleaned up."""
    it.kube.create(builders.service())
    it.world.crash_before = 1
    with pytest.raises(Crash):
        await it.look()
    assert it.kube.store[KEY].finalizers == (FINALIZER,)
    assert it.cloud.store == {}
    it.restart()
    it.kube.delete(KEY)
    await it.look()
    assert it.kube.store == {}


async def settle_with_crashes(it):
    for _ in range(8):
        try:
            await it.look()
        except Crash:
            it.restart()
        for name, one in list(it.cloud.store.items()):
            if one.status.state in ("PENDING", "UPDATING"):
                it.cloud.finish(name)


class _Behind:
    """A cluster whose cache has lost a Service that the API server still has."""

    def __init__(self, service):
        self._service = service

    def service(self, key):
        return None

    async def live_service(self, key):
        return self._service, True
