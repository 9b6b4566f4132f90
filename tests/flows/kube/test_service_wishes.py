"""What a Service can ask for, on the real API server: fields, annotations, sharing, drift."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest

from tests.cluster import embedded
from tests.flows.kube.services import (
    FINALIZER,
    PORT,
    Shop,
    answer,
    ask,
    ask_udp,
    condition,
    ingress,
    port,
)
from tests.flows.kube.world import Json, World

pytestmark = [pytest.mark.kube, pytest.mark.haproxy, pytest.mark.timeout(120)]

REPAIRED_S = 5.0
PODS_RBAC = Path(__file__).parents[3] / "manifests" / "components" / "pod-networks" / "rbac.yaml"


def annotated(**annotations: str) -> Json:
    names = {f"fakecloud.dev/{key.replace('_', '-')}": text for key, text in annotations.items()}
    return {"annotations": names}


def spec(shop: Shop, name: str = "web") -> Json:
    found = shop.balancer(name)
    assert found is not None
    wanted: Json = found["spec"]
    return wanted


def test_e_02_a_07_refused_port_is_said_in_the_status(shop: Shop) -> None:
    shop.create(ports=[port(PORT), port(132, "signal", protocol="SCTP")])
    answer(shop.ip())

    [entry] = ingress(shop.get())
    assert entry["ports"] == [
        {"port": PORT, "protocol": "TCP"},
        {"port": 132, "protocol": "SCTP", "error": "fakecloud.dev/UnsupportedProtocol"},
    ]
    assert condition(shop.get(), "LoadBalancerPortsError")["status"] == "True"
    embedded.eventually(shop.events, lambda it: ("Warning", "UnsupportedProtocol") in it)

    shop.change(ports=[port(PORT)])
    embedded.eventually(shop.get, lambda it: not condition(it, "LoadBalancerPortsError"))


def test_a_05_s_56_k_01_policy_changed_with_its_health_check_port(shop: Shop) -> None:
    shop.create(externalTrafficPolicy="Local")
    ip = shop.ip()
    number = shop.get()["spec"]["healthCheckNodePort"]
    [group] = spec(shop)["target_groups"]
    assert (group["health_check"]["port"], group["weights_from"]) == (number, "health_header")

    shop.change(externalTrafficPolicy="Cluster", healthCheckNodePort=None)
    embedded.eventually(
        lambda: spec(shop)["target_groups"][0]["health_check"]["port"], lambda it: it == 10256
    )
    assert shop.ip() == ip


def test_a_06_e_04_without_node_ports_is_refused_until_they_are_allowed(shop: Shop) -> None:
    shop.create(allocateLoadBalancerNodePorts=False)
    service = embedded.eventually(
        shop.get,
        lambda it: "--pod-networks" in condition(it, "LoadBalancerProvisioning").get("message", ""),
    )
    assert not service["metadata"].get("finalizers")
    assert shop.balancer() is None

    shop.change(allocateLoadBalancerNodePorts=True)
    assert answer(shop.ip())["pod"]


def test_t_02_t_20_a_09_tcp_and_udp_on_one_port(shop: Shop) -> None:
    both = [port(5353, "tcp", protocol="TCP"), port(5353, "udp", protocol="UDP")]
    shop.create(ports=both)
    ip = shop.ip()
    assert answer(ip, 5353)["port"] == "tcp"
    said = embedded.eventually(lambda: ask_udp(ip, 5353))
    assert said is not None
    assert said["port"] == "udp"
    [entry] = ingress(shop.get())
    assert [one["protocol"] for one in entry["ports"]] == ["TCP", "UDP"]

    shop.change(ports=[both[0]])
    embedded.eventually(lambda: ask_udp(ip, 5353) is None)
    assert answer(ip, 5353)["pod"]
    assert shop.ip() == ip


def test_u_14_a_04_class_cannot_change_in_place(shop: Shop) -> None:
    shop.create()
    ip = shop.ip()
    with pytest.raises(urllib.error.HTTPError):
        shop.change(loadBalancerClass="other.example/lb")
    assert answer(ip)["pod"]


def test_a_04_b_03_class_given_away_by_way_of_another_type(shop: Shop, world: World) -> None:
    """Both changes happen while nobody looks, so they are seen as one."""
    shop.create()
    shop.ip()
    name = f"k8s-{shop.get()['metadata']['uid']}"
    world.ccm.stop()
    shop.change(type="ClusterIP")
    shop.change(type="LoadBalancer", loadBalancerClass="other.example/lb")
    mine = {"loadBalancer": {"ingress": [{"ip": "192.0.2.7", "ipMode": "VIP"}]}}
    shop.patch_status("web", mine)
    world.ensure_running()
    embedded.eventually(lambda: name not in world.balancers())
    assert ingress(shop.get())[0]["ip"] == "192.0.2.7"


def test_e_04_t_09_rb_07_pods_are_targets_where_they_are_reached(shop: Shop, world: World) -> None:
    """Nothing is sent to the pods: their addresses are nominal here."""
    world.cluster.kubectl("apply", "-f", str(PODS_RBAC))
    flags = ("--no-leader-elect", "--pod-networks=10.64.0.0/16", "--no-reachability-check")
    other = world.controller("pods.log", *flags)
    world.ccm.stop()
    try:
        other.start()
        silent = annotated(health_check_protocol="none")
        shop.create(metadata=silent, allocateLoadBalancerNodePorts=False)
        shop.ip()

        def targets() -> set[str]:
            [group] = spec(shop)["target_groups"]
            return {one["ip"] for one in group["targets"]}

        path = f"/api/v1/namespaces/{shop.namespace}/pods"
        pods = world.cluster.request("GET", path)["items"]
        embedded.eventually(targets, lambda it: it == {one["status"]["podIP"] for one in pods})
        shop.remove_pod("one")
        embedded.eventually(targets, lambda it: len(it) == 1)

        shop.change(allocateLoadBalancerNodePorts=True)
        embedded.eventually(targets, lambda it: it == set(world.cluster.nodes.values()))
    finally:
        other.stop()
    world.ensure_running()


def test_t_06_t_07_affinity_can_be_switched(shop: Shop) -> None:
    shop.create()
    shop.ip()
    for wanted, kind in (("ClientIP", "client_ip"), ("None", "none")):
        shop.change(sessionAffinity=wanted)
        embedded.eventually(
            lambda: spec(shop)["target_groups"][0]["affinity"]["kind"], lambda it, k=kind: it == k
        )


def test_hostname_is_published_and_given_up(shop: Shop) -> None:
    shop.create(metadata=annotated(hostname="web.example.com"))
    found = embedded.eventually(lambda: ingress(shop.get()))
    assert [(one.get("hostname"), one.get("ip")) for one in found] == [("web.example.com", None)]

    shop.annotate(hostname=None)
    embedded.eventually(lambda: ingress(shop.get()), lambda it: bool(it[0].get("ip")))
    assert answer(shop.ip())["pod"]


def test_b_31_address_is_asked_for_taken_and_given_up(shop: Shop) -> None:
    shop.create("first")
    wish = shop.ip("first")
    shop.create("second", loadBalancerIP=wish)
    embedded.eventually(
        lambda: shop.get("second"),
        lambda it: wish in condition(it, "LoadBalancerProvisioning").get("message", ""),
    )
    assert not ingress(shop.get("second"))

    shop.delete("first")

    assert shop.ip("second", timeout_s=10) == wish
    assert answer(wish)["pod"]
    shop.change("second", loadBalancerIP=None)
    embedded.eventually(lambda: spec(shop, "second")["addresses"][0]["ip"], lambda it: it is None)


def test_annotations_take_effect_and_near_misses_are_told(shop: Shop) -> None:
    shop.create(metadata=annotated(algorithm="least_connections", idle_timout="9s"))
    shop.ip()
    assert spec(shop)["target_groups"][0]["algorithm"] == "least_connections"
    embedded.eventually(shop.events, lambda it: ("Warning", "UnknownAnnotation") in it)

    shop.annotate(idle_timout=None, idle_timeout="9s")
    embedded.eventually(lambda: spec(shop)["listeners"][0]["idle_timeout_s"], lambda it: it == 9)

    shop.annotate(algorithm="fastest")
    embedded.eventually(
        shop.get,
        lambda it: "one of round_robin" in condition(it, "LoadBalancerProvisioning")["message"],
    )
    assert condition(shop.get(), "LoadBalancerServing")["status"] == "True"


def test_manifest_of_another_cloud_runs_unchanged(shop: Shop) -> None:
    hetzner = {
        "load-balancer.hetzner.cloud/location": "fsn1",
        "load-balancer.hetzner.cloud/algorithm-type": "least_connections",
        "load-balancer.hetzner.cloud/health-check-interval": "5s",
    }
    shop.create(metadata={"annotations": hetzner})
    assert answer(shop.ip())["pod"]
    [group] = spec(shop)["target_groups"]
    assert (group["algorithm"], group["health_check"]["interval_s"]) == ("least_connections", 5)
    embedded.eventually(shop.events, lambda it: ("Warning", "UnsupportedAnnotation") in it)


def test_facts_are_said_of_every_load_balancer(shop: Shop) -> None:
    shop.create()
    ip = shop.ip()
    service = embedded.eventually(
        shop.get, lambda it: condition(it, "Reachable").get("status") == "True"
    )
    assert f"{ip} port {PORT}, tried from " in condition(service, "Reachable")["message"]
    assert condition(service, "SourceIPPreserved")["reason"] == "Proxied"


def share(name: str, number: int, shop: Shop) -> None:
    shop.create(name, metadata=annotated(share="edge"), ports=[port(number)])


def test_services_share_one_load_balancer_and_leave_it(shop: Shop, world: World) -> None:
    share("web", PORT, shop)
    share("api", 8081, shop)
    ip = shop.ip("web")
    assert embedded.eventually(lambda: shop.ip("api"), lambda it: it == ip)
    assert answer(ip)["service"] == f"{shop.namespace}/web"
    assert answer(ip, 8081)["service"] == f"{shop.namespace}/api"
    assert len(world.balancers()) == 1

    share("late", PORT, shop)
    service = embedded.eventually(
        lambda: shop.get("late"),
        lambda it: "already" in condition(it, "LoadBalancerProvisioning").get("message", ""),
    )
    assert f"{shop.namespace}/web" in condition(service, "LoadBalancerProvisioning")["message"]

    shop.delete("web")
    embedded.eventually(lambda: shop.is_gone("web"))
    assert embedded.eventually(lambda: shop.ip("late"), lambda it: it == ip)
    embedded.eventually(lambda: ask(ip), lambda it: bool(it) and it["service"].endswith("/late"))

    shop.annotate("api", share=None)
    own = embedded.eventually(lambda: shop.ip("api"), lambda it: it != ip)
    assert answer(own, 8081)["pod"]
    embedded.eventually(lambda: ask(ip, 8081) is None)

    shop.delete("late")
    embedded.eventually(lambda: shop.is_gone("late"))
    embedded.eventually(world.balancers, lambda it: len(it) == 1)


@pytest.mark.parametrize("damage", ["deleted", "changed", "unmarked"])
def test_b_01_ki_07_drift_is_repaired_within_five_seconds(
    shop: Shop, world: World, damage: str
) -> None:
    shop.create()
    answer(shop.ip())
    before = shop.balancer()
    assert before is not None
    where = f"/load-balancers/{before['name']}"
    if damage == "deleted":
        world.http.delete(where).raise_for_status()
    else:
        bad = {"labels": {}} if damage == "unmarked" else {"labels": before["labels"]}
        wrong = before["spec"] | {"source_ranges": ["192.0.2.0/24"]}
        spoiled = bad | {"spec": before["spec"] if damage == "unmarked" else wrong}
        world.http.put(where, json=spoiled).raise_for_status()

    def is_repaired() -> bool:
        found = world.balancers().get(before["name"])
        return (
            found is not None
            and (found["spec"], found["labels"]) == (before["spec"], before["labels"])
            and found["status"]["state"] == "ACTIVE"
        )

    embedded.eventually(is_repaired, timeout_s=REPAIRED_S)
    embedded.eventually(lambda: ask(shop.ip()), timeout_s=REPAIRED_S)


def test_s_26_s_28_a_01_finalizer_of_somebody_else_survives_ours(shop: Shop) -> None:
    shop.create()
    shop.ip()
    shop.patch_finalizers("web", [FINALIZER, "example.com/keep"])
    shop.delete()
    left = embedded.eventually(
        lambda: shop.get()["metadata"]["finalizers"], lambda it: FINALIZER not in it
    )
    assert left == ["example.com/keep"]
    shop.patch_finalizers("web", [])
    embedded.eventually(shop.is_gone)
