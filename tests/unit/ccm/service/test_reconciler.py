"""One key at a time: order of writes, what costs nothing, drift, crashes (S-19 to S-35)."""

from __future__ import annotations

import msgspec
import pytest

from ccm import errors
from ccm.cloud import documents
from ccm.kube import objects
from ccm.kube.workers import Outcome
from ccm.service import nodes
from ccm.service.ports import Verdict
from tests.fakes.ccm_world import Crash
from tests.unit.ccm import builders
from tests.unit.ccm.service.stage import CLEANUP, KEY, NAME, settle_with_crashes


async def test_s_23_s_33_s_46_t_08_service_gets_its_address_in_the_right_order(it):
    it.kube.create(builders.service())
    waiting = await it.look()
    assert waiting.verdict is Verdict.WAITING
    assert it.kube.store[KEY].ingress == ()
    it.cloud.finish(NAME)
    done = await it.look()
    assert done == Outcome(Verdict.IN_SYNC)
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


async def test_s_31_s_47_b_29_service_in_sync_costs_no_write_and_no_event(it):
    await it.served()
    for _ in range(3):
        assert (await it.look()).verdict is Verdict.IN_SYNC
    assert it.world.writes == []
    assert it.kube.events == []


async def test_b_05_s_25_restart_costs_no_write(it):
    await it.served()
    it.restart()
    await it.look()
    assert it.world.writes == []
    assert it.kube.events == []


async def test_s_40_s_42_b_15_u_02_node_change_is_one_put_and_the_address_stays(it):
    await it.served()
    it.kube.node_backends += (nodes.Backend("node-3", ("10.0.0.3",)),)
    await it.look()
    assert it.kube.store[KEY].ingress
    it.cloud.finish(NAME)
    await it.look()
    assert it.world.writes == ["cloud:put"]
    assert it.kube.reasons() == ["UpdatedLoadBalancer"]
    assert b"service_controller_loadbalancer_sync_total 2.0" in it.metrics.render()


async def test_s_42_s_46_u_02_failed_node_change_names_the_nodes_and_is_repeated(it):
    await it.served()
    it.kube.node_backends += tuple(
        nodes.Backend(f"node-{n}", (f"10.0.1.{n}",)) for n in range(3, 24)
    )
    it.cloud.fail_next = [errors.CloudBusy("internal", "broken")]
    with pytest.raises(errors.CloudBusy):
        await it.look()
    ((_, reason, note),) = it.kube.events
    assert reason == "UpdateLoadBalancerFailed"
    assert note.startswith("Error updating load balancer with new hosts [node-1 node-2 ")
    assert "<3 more>] [node names limited, total number of nodes: 23], error: broken" in note
    await it.look()
    assert it.world.writes.count("cloud:put") == 2


async def test_s_23_s_42_without_nodes_the_cloud_is_asked_all_the_same(it):
    it.kube.node_backends = ()
    it.kube.create(builders.service())
    await it.look()
    assert it.world.writes[-1] == "cloud:put"
    assert "UnAvailableLoadBalancer" in it.kube.reasons()


@pytest.mark.parametrize("damage", ["deleted", "changed"])
async def test_b_01_drift_in_the_cloud_is_repaired(it, damage):
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
    assert it.metrics.registry.get_sample_value("ccm_drift_repairs_total") == 1


async def test_p_16_what_was_asked_for_is_no_drift(it):
    """Neither a change of the nodes nor a failed attempt nor a first look after a start."""
    await it.served()
    it.kube.node_backends += (nodes.Backend("node-3", ("10.0.0.3",)),)
    it.cloud.fail_next = [errors.CloudBusy("internal", "broken")]
    with pytest.raises(errors.CloudBusy):
        await it.look()
    await it.look()
    value = it.metrics.registry.get_sample_value
    assert value("ccm_drift_repairs_total") == 0
    assert value("service_controller_nodesync_error_total") == 1
    assert value("service_controller_update_loadbalancer_host_latency_seconds_count") == 1


async def test_a_value_that_the_cloud_writes_differently_is_no_endless_put(it):
    it.cloud.writes_ranges_as = ("::/0", "0.0.0.0/0")
    await it.served()
    await it.look()
    assert it.world.writes == []
    it.restart()
    await it.look()
    await it.look()
    assert it.world.writes == ["cloud:put"]


async def test_u_06_b_16_conflict_goes_up_so_that_the_key_comes_back(it):
    it.kube.create(builders.service())
    it.kube.stale = it.kube.store[KEY]
    it.kube.create(it.kube.store[KEY])
    with pytest.raises(errors.KubeConflict):
        await it.look()
    assert it.cloud.store == {}


@pytest.mark.parametrize("step", range(4))
async def test_u_15_s_21_crash_in_front_of_any_write_of_a_creation_ends_in_one_load_balancer(
    it, step
):
    it.kube.create(builders.service())
    it.world.crash_before = step
    await settle_with_crashes(it)
    assert set(it.cloud.store) == {NAME}
    assert it.kube.store[KEY].finalizers == (CLEANUP,)
    assert it.kube.store[KEY].ingress


async def test_finalizer_is_there_before_every_call_to_the_cloud(it):
    """Dying between finalizer and PUT must leave a Service that can be cleaned up."""
    it.kube.create(builders.service())
    it.world.crash_before = 1
    with pytest.raises(Crash):
        await it.look()
    assert it.kube.store[KEY].finalizers == (CLEANUP,)
    assert it.cloud.store == {}
    it.restart()
    it.kube.delete(KEY)
    await it.look()
    assert it.kube.store == {}


async def test_unmarked_load_balancer_of_our_name_is_adopted(it):
    """Its labels were removed behind our back; the UID in the name says whose it is."""
    await it.served()
    it.cloud.store[NAME] = msgspec.structs.replace(it.cloud.store[NAME], labels={})
    await it.look()
    assert it.world.writes == ["cloud:put"]
    assert it.cloud.store[NAME].labels["cluster-uid"] == builders.CLUSTER_UID


async def test_s_41_s_45_b_02_b_04_u_09_older_nodes_never_overwrite_newer_ones(it):
    """Every look computes the targets anew, whoever triggered it."""
    await it.served()
    it.kube.node_backends += (nodes.Backend("node-3", ("10.0.0.3",)),)
    await it.look()
    await it.look()
    targets = it.cloud.documents[-1].spec.target_groups[0].targets
    assert [one.node for one in targets] == ["node-1", "node-2", "node-3"]
    assert it.world.writes == ["cloud:put"]


async def test_s_43_node_change_never_revives_what_is_being_deleted(it):
    await it.served()
    it.kube.delete(KEY)
    await it.look()
    it.kube.node_backends = it.kube.node_backends[:1]
    await it.look()
    assert it.world.writes == ["cloud:delete"]


async def test_an_event_that_the_stream_lost_is_asked_for(it):
    """The mirror says UPDATING for ever; the look that comes as a safety net asks the cloud."""
    it.kube.create(builders.service())
    await it.look()
    stale = it.cloud.store[NAME]
    it.cloud.finish(NAME)
    it.cloud.seen = {NAME: stale}
    assert (await it.look()).verdict is Verdict.WAITING
    await it.clock.advance(builders.run_settings().recheck_s)
    assert (await it.look()).verdict is Verdict.IN_SYNC
    assert it.kube.store[KEY].ingress


async def test_ports_of_the_machine_are_written_once_and_taken_away_again(it):
    it.kube.create(builders.service())
    await it.look()
    name = it.cloud.store[NAME].spec.listeners[0].name

    def publish(*found: documents.HostPort) -> None:
        one = it.cloud.store[NAME]
        status = msgspec.structs.replace(one.status, host_ports=found)
        it.cloud.store[NAME] = msgspec.structs.replace(one, status=status)

    it.cloud.finish(NAME)
    publish(documents.HostPort(name, "tcp", 20000), documents.HostPort("other", "tcp", 20001))
    await it.look()
    assert it.kube.store[KEY].annotations == {"fakecloud.dev/host-ports": "80/tcp=20000"}
    it.world.writes.clear()
    await it.look()
    assert it.world.writes == []
    publish()
    await it.look()
    assert it.kube.store[KEY].annotations == {}
