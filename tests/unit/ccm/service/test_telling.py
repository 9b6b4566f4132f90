"""Refusals, trouble and facts: who is told what, once (B-10, B-23, E-11)."""

from __future__ import annotations

import msgspec
import pytest

from ccm import errors
from ccm.cloud import documents
from ccm.service.ports import Verdict
from tests.unit.ccm import builders
from tests.unit.ccm.service.stage import KEY, NAME, condition


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


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(errors.CloudRefused("quota_exceeded", "3 of 3 used"), id="quota"),
        pytest.param(errors.CloudRefused("validation_failed", "spec.type"), id="invalid"),
    ],
)
async def test_s_16_s_24_b_10_refusal_is_told_once_and_not_repeated_until_something_changes(
    it, refusal
):
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


async def test_b_10_refusal_is_tried_again_slowly(it):
    it.kube.create(builders.service())
    it.cloud.fail_next = [errors.CloudRefused("quota_exceeded", "3 of 3 used")]
    outcome = await it.look()
    await it.clock.advance(outcome.recheck_s)
    assert (await it.look()).verdict is Verdict.WAITING


async def test_s_52_u_01_unsupported_service_gets_no_finalizer_and_no_load_balancer(it):
    it.kube.create(builders.service(ports=(builders.port(protocol="SCTP"),)))
    await it.look()
    await it.look()
    assert it.world.writes == ["kube:conditions"]
    assert it.kube.reasons() == ["SyncLoadBalancerFailed"]
    assert it.kube.store[KEY].finalizers == ()


async def test_s_15_b_09_b_32_planned_wait_is_no_warning(it):
    it.kube.create(builders.service())
    it.cloud.fail_next = [errors.CloudBusy("rate_limited", "slow down", 3.0)]
    with pytest.raises(errors.CloudBusy):
        await it.look()
    assert "SyncLoadBalancerFailed" not in it.kube.reasons()


async def test_s_15_b_09_a_wait_that_the_cloud_asks_for_is_none_of_a_deletion_either(it):
    await it.served()
    it.kube.delete(KEY)
    it.cloud.fail_next = [errors.CloudBusy("rate_limited", "slow down", 3.0)]
    with pytest.raises(errors.CloudBusy) as caught:
        await it.look()
    assert caught.value.retry_after_s == 3.0, "the queue is told how long"
    assert it.kube.reasons() == ["DeletingLoadBalancer"]


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
    assert [one.reason for one in it.kube.store[KEY].conditions] == [
        "Complete",
        "Serving",
        "Connected",
        "Proxied",
    ]


async def test_error_of_the_cloud_is_told_and_the_address_of_the_last_good_state_stays(it):
    await it.served()
    it.kube.node_backends = it.kube.node_backends[:1]
    await it.look()
    it.cloud.fail(NAME, "port 80 is taken")
    for _ in range(2):
        assert (await it.look()).verdict is Verdict.WAITING
    assert it.kube.store[KEY].ingress
    assert it.kube.reasons() == ["UpdateLoadBalancerFailed"]
    assert "bind_failed: port 80 is taken" in it.kube.events[0][2]
    assert it.world.writes.count("cloud:put") == 1


async def test_b_31_taken_address_is_asked_for_again_when_it_gets_free(it):
    it.kube.create(builders.service(load_balancer_ip="127.77.0.9"))
    it.cloud.fail_next = [errors.CloudRefused("address_in_use", "belongs to another")]
    assert (await it.look()).verdict is Verdict.REFUSED
    holder = documents.LoadBalancer(
        "other",
        status=documents.CloudStatus(addresses=(documents.Address("ipv4", "127.77.0.9"),)),
    )
    bystander = documents.LoadBalancer("bystander")
    it.target.asking.load_balancer_changed(bystander, bystander)
    assert it.woken == []
    it.target.asking.load_balancer_changed(holder, None)
    assert it.woken == [KEY]
    assert (await it.look()).verdict is Verdict.WAITING
    it.target.asking.load_balancer_changed(holder, None)
    assert it.woken == [KEY]


async def test_b_10_one_that_waits_for_quota_is_tried_per_load_balancer_gone(it):
    for name in ("a", "b"):
        it.kube.create(builders.service(name, uid=name))
        it.cloud.fail_next = [errors.CloudRefused("quota_exceeded", "3 of 3 used")]
        await it.target.reconcile(f"shop/{name}")
    it.target.asking.load_balancer_changed(documents.LoadBalancer("other"), None)
    assert it.woken == ["shop/a"]


async def test_b_23_full_pool_is_told_although_it_is_a_wait(it):
    it.kube.create(builders.service())
    it.cloud.fail_next = [errors.CloudExhausted("no_capacity", "pool is full", 30.0)]
    with pytest.raises(errors.CloudExhausted):
        await it.look()
    assert it.kube.reasons()[-1] == "SyncLoadBalancerFailed"
    assert it.kube.store[KEY].conditions[0].message == "no_capacity: pool is full"


async def test_b_31_removed_address_wish_reaches_the_cloud(it):
    service = await it.served(load_balancer_ip="127.77.0.9")
    spec = msgspec.structs.replace(service.spec, load_balancer_ip="")
    it.kube.create(msgspec.structs.replace(service, spec=spec))
    await it.look()
    assert it.world.writes == ["cloud:put"]
    assert it.cloud.store[NAME].spec.addresses[0].ip is None


async def test_annotations_without_effect_are_told_once(it):
    await it.served(annotations={"fakecloud.dev/idle-timout": "9"})
    it.restart()
    for _ in range(3):
        await it.look()
    assert it.kube.reasons() == ["UnknownAnnotation"]
    assert "did you mean fakecloud.dev/idle-timeout?" in it.kube.events[0][2]


async def test_e_02_refused_port_has_a_condition_until_it_is_gone(it):
    ports = (builders.port(80), builders.port(132, protocol="SCTP"))
    service = await it.served(ports=ports)
    found = condition(service, "LoadBalancerPortsError")
    assert (found.status, found.message) == ("True", "not served: 132/SCTP")
    assert service.ingress[0].ports[1].error == "fakecloud.dev/UnsupportedProtocol"
    spec = msgspec.structs.replace(service.spec, ports=(builders.port(80),))
    it.kube.create(msgspec.structs.replace(service, spec=spec))
    await it.look()
    assert condition(it.kube.store[KEY], "LoadBalancerPortsError") is None


@pytest.mark.parametrize(
    ("problem", "status", "reason"),
    [("", "True", "Connected"), ("refused", "False", "NoConnection"), (None, "Unknown", "Trying")],
)
async def test_reachable_says_from_where_it_was_tried(it, problem, status, reason):
    it.reach.problems["127.77.0.1"] = problem
    service = await it.served()
    found = condition(service, "Reachable")
    assert (found.status, found.reason) == (status, reason)
    assert "127.77.0.1 port 80, tried from test-host" in found.message
    assert "not in the nodes' network (10.0.0.0/16)" in found.message
    it.reach.wakes[-1]()
    assert it.woken == [KEY]


async def test_b_05_what_was_tried_elsewhere_before_is_no_news(it):
    await it.served()
    for problem, here in ((None, "test-host"), ("", "another-host")):
        it.restart()
        it.reach.here, it.reach.problems["127.77.0.1"] = here, problem
        await it.look()
    assert it.world.writes == []
    it.reach.problems["127.77.0.1"] = "refused"
    await it.look()
    assert condition(it.kube.store[KEY], "Reachable").status == "False"


async def test_reachable_of_udp_alone_is_unknown(it):
    service = await it.served(ports=(builders.port(53, protocol="UDP"),))
    assert condition(service, "Reachable").reason == "NotTried"


async def test_b_23_unreachable_cloud_at_the_start_is_told_on_services_that_wait(it):
    it.kube.create(builders.service())
    it.kube.create(builders.service("other", type="ClusterIP"))
    for key in (KEY, "shop/other", "shop/gone"):
        await it.target.tell_unreachable(key, errors.CloudUnreachable("connection refused"))
    assert it.world.writes == ["kube:conditions"]
    found = condition(it.kube.store[KEY], "LoadBalancerServing")
    assert (found.reason, found.message) == ("Infrastructure", "unreachable: connection refused")
    assert it.kube.reasons() == ["SyncLoadBalancerFailed"]
