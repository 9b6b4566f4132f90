"""Every combination of fields that the real API server takes: served, or told why not; then gone."""

from __future__ import annotations

import urllib.error
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.cluster import embedded
from tests.flows.kube.agreement import disagreements
from tests.flows.kube.services import Shop
from tests.flows.kube.world import World

pytestmark = [pytest.mark.kube, pytest.mark.haproxy, pytest.mark.timeout(300)]

Json = dict[str, Any]

AT_ONCE = 8
PORTS = st.lists(
    st.fixed_dictionaries(
        {
            "port": st.integers(8000, 8005),
            "protocol": st.sampled_from(["TCP", "TCP", "TCP", "UDP", "SCTP"]),
            "targetPort": st.sampled_from([80, "http"]),
        },
        optional={"appProtocol": st.sampled_from(["http", "kubernetes.io/ws", "example.com/x"])},
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda one: (one["port"], one["protocol"]),
).map(lambda ports: [{**one, "name": f"p{n}"} for n, one in enumerate(ports)])
RANGES = st.lists(
    st.sampled_from(["0.0.0.0/0", "10.0.0.0/8", "127.0.0.0/8", "2001:db8::/32", "10.1.2.3/8"]),
    max_size=3,
)
SPECS = st.fixed_dictionaries(
    {"ports": PORTS},
    optional={
        "sessionAffinity": st.sampled_from(["None", "ClientIP"]),
        "sessionAffinityConfig": st.just({"clientIP": {"timeoutSeconds": 60}}),
        "externalTrafficPolicy": st.sampled_from(["Cluster", "Local"]),
        "internalTrafficPolicy": st.sampled_from(["Cluster", "Local"]),
        "trafficDistribution": st.just("PreferClose"),
        "ipFamilyPolicy": st.sampled_from(["SingleStack", "PreferDualStack", "RequireDualStack"]),
        "ipFamilies": st.sampled_from([["IPv4"], ["IPv6"]]),
        "loadBalancerClass": st.sampled_from(["fakecloud.dev/haproxy", "other.example/lb"]),
        "allocateLoadBalancerNodePorts": st.booleans(),
        "loadBalancerSourceRanges": RANGES,
        "loadBalancerIP": st.sampled_from(["", "192.0.2.1", "not an address"]),
        "publishNotReadyAddresses": st.booleans(),
        "externalIPs": st.just(["192.0.2.9"]),
        "selector": st.sampled_from([None, {"app": "web"}, {"app": "nobody"}]),
    },
)
ANNOTATIONS = st.fixed_dictionaries(
    {},
    optional={
        "fakecloud.dev/algorithm": st.sampled_from(["round_robin", "source_hash", "wrong"]),
        "fakecloud.dev/hostname": st.sampled_from(["web.example.com", "no dot"]),
        "fakecloud.dev/ip-mode": st.sampled_from(["Proxy", "VIP"]),
        "fakecloud.dev/proxy-protocol": st.sampled_from(["none", "v2"]),
        "fakecloud.dev/algoritm": st.just("round_robin"),
        "service.beta.kubernetes.io/aws-load-balancer-type": st.sampled_from(["nlb", "external"]),
        "service.beta.kubernetes.io/load-balancer-source-ranges": st.sampled_from(
            ["10.0.0.0/8", "10.0.0.0/8, wrong"]
        ),
        "metallb.universe.tf/loadBalancerIPs": st.sampled_from(["192.0.2.1", "x"]),
    },
)
SERVICES = st.lists(st.tuples(SPECS, ANNOTATIONS), min_size=AT_ONCE, max_size=AT_ONCE)


def create(shop: Shop, name: str, spec: Json, asked: dict[str, str]) -> bool:
    """Create a Service; return whether the API server takes it."""
    try:
        shop.create(name, metadata={"annotations": asked}, **spec)
    except urllib.error.HTTPError as error:
        if error.code != 422:
            raise
        return False
    return True


@settings(
    max_examples=5,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(services=SERVICES)
def test_u_14_s_16_b_10_every_wish_is_served_or_answered(
    shop: Shop, world: World, services: list[tuple[Json, dict[str, str]]]
) -> None:
    names = []
    for spec, asked in services:
        name = f"wish-{uuid.uuid4().hex[:8]}"
        if create(shop, name, spec, asked):
            names.append(name)

    embedded.eventually(lambda: disagreements(world, shop), lambda it: not it, timeout_s=30)
    before = {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in shop.all()}
    puts = world.ccm.metric("service_controller_loadbalancer_sync_total")
    shop.create("sentinel")
    shop.ip("sentinel")
    now = {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in shop.all()}
    assert {name: now[name] for name in before} == before, "written again, with nothing new"
    assert world.ccm.metric("service_controller_loadbalancer_sync_total") == puts + 1

    for name in [*names, "sentinel"]:
        shop.delete(name)
    embedded.eventually(lambda: not shop.all(), timeout_s=30)
    embedded.eventually(lambda: disagreements(world, shop), lambda it: not it, timeout_s=30)
