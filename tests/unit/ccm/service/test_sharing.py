"""Services that share one load balancer by a key."""

from __future__ import annotations

import msgspec
import pytest

from ccm import errors, identity
from ccm.service import ownership, sharing
from ccm.service.ports import Verdict
from tests.unit.ccm import builders
from tests.unit.ccm.service.stage import CLEANUP

GROUP = "share:shop/edge"
NAME = sharing.name_of(GROUP, builders.ownership())
SHARE = {"fakecloud.dev/share": "edge"}


def web(name="web", number=80, *, created="2026-01-01", more=None, **spec):
    made = builders.service(
        name,
        uid=f"u-{name}",
        annotations=SHARE | (more or {}),
        ports=(builders.port(number),),
        **spec,
    )
    meta = msgspec.structs.replace(made.metadata, creation_timestamp=created)
    return msgspec.structs.replace(made, metadata=meta)


async def settle(it, *keys):
    """Look at the group, and at single Services, until nothing moves."""
    for _ in range(4):
        await it.target.reconcile(GROUP)
        for name, one in list(it.cloud.store.items()):
            if one.status.state in ("PENDING", "UPDATING"):
                it.cloud.finish(name)
        for key in keys:
            await it.target.reconcile(key)


def ingress(it, name):
    return [one.ip for one in it.kube.store[f"shop/{name}"].ingress]


def ports(it):
    return [one.port for one in it.cloud.store[NAME].spec.listeners]


def reason(it, name):
    return it.kube.store[f"shop/{name}"].conditions[0].reason


async def test_two_services_share_one_address_each_with_its_ports(it):
    it.kube.create(web("web", 80))
    it.kube.create(web("api", 8080))
    await settle(it, "shop/web", "shop/api")
    assert set(it.cloud.store) == {NAME}
    assert ingress(it, "web") == ingress(it, "api") == ["127.77.0.1"]
    assert [one.port for one in it.kube.store["shop/api"].ingress[0].ports] == [8080]
    assert {one.finalizers for one in it.kube.store.values()} == {(CLEANUP,)}
    labels = it.cloud.store[NAME].labels
    assert (labels["namespace"], labels["share"], "service" in labels) == ("shop", "edge", False)
    it.world.writes.clear()
    await settle(it, "shop/web", "shop/api")
    assert it.world.writes == []


async def test_finalizers_are_there_before_the_cloud_hears_of_the_services(it):
    it.kube.create(web("web"))
    it.kube.create(web("api", 8080))
    await it.target.reconcile(GROUP)
    assert it.world.writes == [
        "kube:finalizers+conditions",
        "kube:finalizers+conditions",
        "cloud:put",
    ]


async def test_port_conflict_names_who_came_first(it):
    it.kube.create(web("old", 80, created="2026-01-01"))
    it.kube.create(web("young", 80, created="2026-01-02"))
    await settle(it)
    assert ports(it) == [80]
    assert ingress(it, "young") == []
    (note,) = [note for _, reason, note in it.kube.events if reason == "SyncLoadBalancerFailed"]
    assert "port 80/TCP belongs to shop/old already" in note
    assert it.kube.store["shop/young"].finalizers == ()


async def test_who_is_there_already_stays_whoever_is_older(it):
    it.kube.create(web("young", 80, created="2026-01-02"))
    await settle(it)
    it.kube.create(web("old", 80, created="2026-01-01"))
    await settle(it)
    assert ingress(it, "young") == ["127.77.0.1"]
    assert reason(it, "old") == "Unsupported"


@pytest.mark.parametrize(
    ("other", "word"),
    [
        pytest.param(
            web("b", 81, load_balancer_source_ranges=("10.0.0.0/8",)), "source ranges", id="ranges"
        ),
        pytest.param(web("b", 81, more={"fakecloud.dev/pool": "edge"}), "pool", id="pool"),
        pytest.param(web("b", 81, load_balancer_ip="127.77.0.8"), "127.77.0.8", id="address"),
    ],
)
async def test_what_is_one_for_all_must_agree(it, other, word):
    it.kube.create(web("a", 80, load_balancer_ip="127.77.0.9"))
    it.kube.create(other)
    await settle(it)
    assert ports(it) == [80]
    assert any(word in note for _, _, note in it.kube.events)


async def test_member_that_comes_into_conflict_loses_its_address(it):
    it.kube.create(web("a", 80))
    it.kube.create(web("b", 81))
    await settle(it)
    changed = it.kube.store["shop/b"]
    spec = msgspec.structs.replace(changed.spec, ports=(builders.port(80),))
    it.kube.create(msgspec.structs.replace(changed, spec=spec))
    await settle(it)
    assert (ports(it), ingress(it, "a"), ingress(it, "b")) == ([80], ["127.77.0.1"], [])


async def test_conflict_ends_when_the_first_one_leaves(it):
    it.kube.create(web("old", 80, created="2026-01-01"))
    it.kube.create(web("young", 80, created="2026-01-02"))
    await settle(it)
    it.kube.delete("shop/old")
    await settle(it, "shop/old")
    assert "shop/old" not in it.kube.store
    assert ingress(it, "young") == ["127.77.0.1"]


async def test_s_22_finalizer_stays_until_the_ports_are_closed(it):
    it.kube.create(web("web", 80))
    it.kube.create(web("api", 8080))
    await settle(it)
    it.kube.delete("shop/api")
    await it.target.reconcile(GROUP)
    assert ports(it) == [80]
    assert (await it.target.reconcile("shop/api")).verdict is Verdict.WAITING
    assert "shop/api" in it.kube.store
    it.cloud.finish(NAME)
    await settle(it, "shop/api")
    assert "shop/api" not in it.kube.store
    assert ownership.members_of(it.cloud.store[NAME]) == {"shop/web": "u-web"}


async def test_last_one_out_deletes_the_load_balancer(it):
    it.kube.create(web())
    await settle(it)
    it.kube.delete("shop/web")
    await it.target.reconcile(GROUP)
    assert it.cloud.store[NAME].status.state == "DELETING"
    assert (await it.target.reconcile("shop/web")).verdict is Verdict.WAITING
    it.cloud.drop(NAME)
    await it.target.reconcile("shop/web")
    assert it.kube.store == {}


async def test_own_load_balancer_goes_when_the_shared_one_serves(it):
    alone = web()
    it.kube.create(
        msgspec.structs.replace(
            alone, metadata=msgspec.structs.replace(alone.metadata, annotations=None)
        )
    )
    await it.target.reconcile("shop/web")
    it.cloud.finish("k8s-u-web")
    await it.target.reconcile("shop/web")
    meta = msgspec.structs.replace(it.kube.store["shop/web"].metadata, annotations=SHARE)
    it.kube.create(msgspec.structs.replace(it.kube.store["shop/web"], metadata=meta))
    await it.target.reconcile(GROUP)
    assert it.cloud.store["k8s-u-web"].status.state == "ACTIVE"
    it.cloud.finish(NAME)
    await it.target.reconcile(GROUP)
    assert it.cloud.store["k8s-u-web"].status.state == "DELETING"
    assert ingress(it, "web") == ["127.77.0.2"]


async def test_refusal_of_the_cloud_reaches_every_member(it):
    it.kube.create(web("web"))
    it.kube.create(web("api", 8080))
    it.cloud.fail_next = [errors.CloudRefused("quota_exceeded", "3 of 3 used")]
    assert (await it.target.reconcile(GROUP)).verdict is Verdict.REFUSED
    assert {reason(it, "web"), reason(it, "api")} == {"Unsupported"}


async def test_members_of_other_classes_and_namespaces_have_no_part(it):
    it.kube.create(web("web"))
    it.kube.create(web("foreign", 81, load_balancer_class="example.com/x"))
    it.kube.create(builders.service("far", namespace="other", uid="u-far", annotations=SHARE))
    await settle(it)
    assert ports(it) == [80]


def test_names_differ_by_cluster():
    other = builders.ownership(cluster=identity.Identity("kind", "another"))
    assert sharing.name_of(GROUP, other) != NAME
    assert len(NAME) <= 63


def test_a_share_is_found_in_the_dialect_of_metallb():
    service = builders.service(annotations={"metallb.io/allow-shared-ip": "Key 1"})
    assert sharing.share_of(service) == "share:shop/Key 1"
    assert sharing.share_of(builders.service()) == ""


@pytest.mark.parametrize("shares_on", [True, False], ids=["stays", "leaves"])
async def test_an_edit_that_is_refused_leaves_no_address_that_nobody_serves(it, shares_on):
    """Its part of the shared load balancer goes, and there is none in its place."""
    it.kube.create(web())
    await settle(it, "shop/web")
    assert ingress(it, "web") == ["127.77.0.1"]
    service = it.kube.store["shop/web"]
    spec = msgspec.structs.replace(
        service.spec, external_traffic_policy="Local", health_check_node_port=0
    )
    meta = msgspec.structs.replace(service.metadata, annotations=SHARE if shares_on else {})
    it.kube.create(msgspec.structs.replace(service, metadata=meta, spec=spec))
    await settle(it, "shop/web")
    if NAME in it.cloud.store and it.cloud.store[NAME].status.state == "DELETING":
        it.cloud.drop(NAME)
    await settle(it, "shop/web")
    assert reason(it, "web") == "Unsupported"
    assert it.cloud.store == {}
    assert ingress(it, "web") == []
