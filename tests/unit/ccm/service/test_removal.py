"""Taking back what is ours, and nothing else (S-19 to S-22, B-03, B-06)."""

from __future__ import annotations

import msgspec
import pytest

from ccm import errors
from ccm.kube import objects
from ccm.service.ports import Verdict
from tests.unit.ccm import builders
from tests.unit.ccm.service.stage import CLEANUP, KEY, NAME, settle_with_crashes

FOREIGN_STATUS = objects.ServiceStatus(
    objects.LoadBalancerStatus((objects.Ingress("203.0.113.1"),)),
    (objects.Condition("Foreign", "True"),),
)


async def test_s_22_a_14_deleted_service_goes_after_the_load_balancer(it):
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


async def test_a_02_a_03_s_34_type_change_removes_everything_that_is_ours(it):
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


async def test_s_26_foreign_finalizers_are_kept(it):
    await it.served(finalizers=("example.com/x",))
    assert it.kube.store[KEY].finalizers == ("example.com/x", CLEANUP)
    it.kube.delete(KEY)
    it.cloud.deletes_at_once = True
    await it.look()
    await it.look()
    assert it.kube.store[KEY].finalizers == ("example.com/x",)


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_s_29_s_35_b_03_t_21_service_of_a_foreign_class_is_never_touched(it, is_deleted):
    """B-03: the finalizer's name is shared, its owner isn't."""
    it.kube.create(
        builders.service(
            load_balancer_class="example.com/x",
            finalizers=(CLEANUP,),
            status=FOREIGN_STATUS,
            deletion_timestamp="2026-01-01T00:00:00Z" if is_deleted else None,
        )
    )
    assert (await it.look()).verdict is Verdict.NOT_OURS
    assert it.world.writes == []
    assert it.kube.events == []


async def test_b_03_foreign_service_turned_cluster_ip_keeps_its_finalizer(it):
    it.kube.create(builders.service(type="ClusterIP", finalizers=(CLEANUP,)))
    assert (await it.look()).verdict is Verdict.NOT_OURS
    assert it.world.writes == []


async def test_a_04_b_03_class_given_away_while_nobody_looked_removes_our_load_balancer_only(it):
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


async def test_s_19_b_06_load_balancer_of_a_vanished_service_is_deleted_after_a_grace_period(it):
    """The finalizer was removed by hand."""
    await it.served()
    del it.kube.store[KEY]
    young = await it.look()
    assert (young.verdict, it.world.writes) == (Verdict.WAITING, [])
    await it.clock.advance(young.recheck_s)
    await it.look()
    assert it.world.writes == ["cloud:delete"]


async def test_b_06_orphans_are_only_named_if_told_so(it):
    await it.served()
    it.restart(orphan_sweep="report", orphan_grace_s=0.0)
    del it.kube.store[KEY]
    await it.look()
    assert it.world.writes == []
    assert b"ccm_orphaned_load_balancers 1.0" in it.metrics.render()


async def test_b_06_load_balancer_is_not_an_orphan_because_the_cache_is_behind(it):
    service = await it.served()
    it.target._kube = it.target._removal._kube = _Behind(service)
    with pytest.raises(errors.RetryAfter):
        await it.look()
    assert it.world.writes == []


async def test_s_20_s_50_load_balancer_of_the_former_service_of_that_name_is_deleted(it):
    """S-20: deleted and created again faster than we looked."""
    await it.served()
    it.kube.create(builders.service(uid="u-2"))
    await it.look()
    assert it.world.writes[0] == "cloud:delete"
    assert it.cloud.store["k8s-u-2"].status.state == "PENDING"


async def test_being_deleted_in_the_cloud_is_waited_for(it):
    await it.served()
    await it.cloud.delete(NAME)
    with pytest.raises(errors.RetryAfter):
        await it.look()
    it.cloud.drop(NAME)
    await it.look()
    assert it.cloud.store[NAME].status.state == "PENDING"


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize("how", ["deleted", "retyped"])
async def test_u_15_s_51_crash_in_front_of_any_write_of_a_removal_leaves_nothing(it, step, how):
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


async def test_s_27_s_28_finalizer_added_meanwhile_is_not_wiped(it):
    service = await it.served()
    it.kube.delete(KEY)
    it.cloud.deletes_at_once = True
    it.kube.stale = it.kube.store[KEY]
    meta = msgspec.structs.replace(
        it.kube.store[KEY].metadata, finalizers=(*service.finalizers, "example.com/x")
    )
    it.kube.create(msgspec.structs.replace(it.kube.store[KEY], metadata=meta))
    await it.look()
    with pytest.raises(errors.KubeConflict):
        await it.look()
    it.kube.stale = None
    await it.look()
    assert it.kube.store[KEY].finalizers == ("example.com/x",)


async def test_b_30_u_07_failed_deletion_has_its_own_event(it):
    await it.served()
    it.kube.delete(KEY)
    it.cloud.fail_next = [errors.CloudBusy("internal", "broken")] * 2
    for _ in range(2):
        with pytest.raises(errors.CloudBusy):
            await it.look()
    assert it.kube.reasons() == ["DeletingLoadBalancer", "DeleteLoadBalancerFailed"]


async def test_b_07_what_is_remembered_goes_with_the_service(it):
    await it.served()
    it.kube.delete(KEY)
    it.cloud.deletes_at_once = True
    await it.look()
    await it.look()
    assert it.target._memories._found == {}


class _Behind:
    """A cluster whose cache has lost a Service that the API server still has."""

    def __init__(self, service):
        self._service = service

    def service(self, key):
        return None

    async def live_service(self, key):
        return self._service, True
