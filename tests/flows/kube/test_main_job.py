"""A Service from `<pending>` to an address that answers, through its changes, to nothing left."""

from __future__ import annotations

import pytest

from tests.cluster import controlplane, embedded
from tests.flows.kube.services import (
    FINALIZER,
    PORT,
    Shop,
    answer,
    ask,
    condition,
    ingress,
    nodes_seen,
    port,
)
from tests.flows.kube.world import World, stays

pytestmark = [pytest.mark.kube, pytest.mark.haproxy, pytest.mark.timeout(120)]

COST = "fakecloud.dev/hourly-cost"
PROVISIONING, SERVING = "LoadBalancerProvisioning", "LoadBalancerServing"


def test_h_02_h_08_service_gets_an_address_events_and_the_finalizer(shop: Shop) -> None:
    shop.create(ports=[port(PORT), port(8443, "https")])

    ip = shop.ip()
    service = shop.get()
    balancer = shop.balancer()

    assert balancer is not None
    assert balancer["status"]["addresses"][0]["ip"] == ip
    assert ingress(service) == [
        {
            "ip": ip,
            "ipMode": "Proxy",
            "ports": [
                {"port": PORT, "protocol": "TCP"},
                {"port": 8443, "protocol": "TCP"},
            ],
        }
    ]
    assert service["metadata"]["finalizers"] == [FINALIZER]
    assert service["metadata"]["annotations"][COST].endswith(" USD")
    assert condition(service, PROVISIONING)["status"] == "False"
    assert condition(service, SERVING)["status"] == "True"
    told = embedded.eventually(shop.events, lambda it: len(it) == 3)
    assert told == {
        ("Normal", "EnsuringLoadBalancer"): 1,
        ("Normal", "EnsuredLoadBalancer"): 1,
        ("Normal", "BillingStarted"): 1,
    }


def test_traffic_reaches_the_pods_on_their_nodes(shop: Shop) -> None:
    shop.create(ports=[port(PORT), port(8443, "https")])
    ip = shop.ip()

    said = answer(ip)
    assert said["service"] == f"{shop.namespace}/web"
    assert said["pod"] in ("one", "two")
    assert answer(ip, 8443)["port"] == "https"
    embedded.eventually(
        lambda: nodes_seen(ip), lambda it: it == {"standin-1", "standin-2", "standin-3"}
    )


def test_t_01_listeners_follow_the_ports_at_the_same_address(shop: Shop) -> None:
    shop.create()
    ip = shop.ip()
    answer(ip)

    shop.change(ports=[port(PORT), port(8081, "more")])
    assert answer(ip, 8081)["port"] == "more"
    assert answer(ip)["port"] == "http"

    shop.change(ports=[port(PORT), port(8082, "more")])
    assert answer(ip, 8082)["port"] == "more"
    embedded.eventually(lambda: ask(ip, 8081) is None)

    shop.change(ports=[port(8082, "more")])
    embedded.eventually(lambda: ask(ip, PORT) is None)
    assert answer(ip, 8082)["port"] == "more"
    published = [{"ip": ip, "ipMode": "Proxy", "ports": [{"port": 8082, "protocol": "TCP"}]}]
    assert embedded.eventually(lambda: ingress(shop.get()), lambda it: it == published)


def test_t_01_changed_node_port_is_followed(shop: Shop) -> None:
    [old] = shop.create()["spec"]["ports"]
    ip = shop.ip()
    answer(ip)

    number = old["nodePort"]
    new = number + 1 if number < controlplane.node_port_range()[1] else number - 1
    shop.change(ports=[port(PORT, nodePort=new)])

    def target_ports() -> set[int]:
        found = shop.balancer()
        assert found is not None
        return {target["port"] for target in found["spec"]["target_groups"][0]["targets"]}

    embedded.eventually(target_ports, lambda it: it == {new})
    assert answer(ip)["pod"]
    assert shop.ip() == ip


def test_t_08_a_02_h_03_type_changed_to_cluster_ip_and_back(shop: Shop) -> None:
    shop.create()
    ip = shop.ip()
    answer(ip)

    shop.change(type="ClusterIP")
    service = embedded.eventually(shop.get, lambda it: not it["metadata"].get("finalizers"))
    assert not ingress(service)
    assert COST not in service["metadata"].get("annotations", {})
    assert not condition(service, SERVING)
    assert shop.balancer() is None
    assert ask(ip) is None

    shop.change(type="LoadBalancer")
    assert answer(shop.ip())["pod"]
    assert shop.get()["metadata"]["finalizers"] == [FINALIZER]


def test_deleted_service_leaves_nothing(shop: Shop, world: World) -> None:
    shop.create()
    ip = shop.ip()
    answer(ip)

    shop.delete()

    embedded.eventually(shop.is_gone)
    assert world.balancers() == {}
    assert ask(ip) is None
    embedded.eventually(lambda: world.leftovers() == [])
    told = embedded.eventually(shop.events, lambda it: ("Normal", "BillingStopped") in it)
    assert told["Normal", "DeletingLoadBalancer"] == told["Normal", "DeletedLoadBalancer"] == 1


def test_b_01_load_balancer_deleted_in_the_cloud_returns(shop: Shop, world: World) -> None:
    shop.create()
    answer(shop.ip())
    before = shop.balancer()
    assert before is not None

    assert world.http.delete(f"/load-balancers/{before['name']}").status_code == 202

    def is_another() -> bool:
        found = shop.balancer()
        return found is not None and found["status"]["id"] != before["status"]["id"]

    embedded.eventually(is_another)

    def published() -> str:
        found = shop.balancer()
        wanted = found["status"]["addresses"][0]["ip"] if found else ""
        shown = ingress(shop.get())
        return wanted if shown and shown[0]["ip"] == wanted else ""

    assert answer(embedded.eventually(published))["pod"]


def test_t_21_s_35_u_14_service_of_another_class_is_left_alone(shop: Shop, world: World) -> None:
    shop.create("theirs", loadBalancerClass="other.example/lb")
    shop.patch_finalizers("theirs", [FINALIZER])
    mine = {"loadBalancer": {"ingress": [{"ip": "192.0.2.7", "ipMode": "VIP"}]}}
    theirs = shop.patch_status("theirs", mine)

    shop.create("ours")
    answer(shop.ip("ours"))
    shop.delete("theirs")

    assert stays(lambda: shop.get("theirs")["metadata"]["finalizers"] == [FINALIZER], 0.7)
    service = shop.get("theirs")
    assert service["status"] == theirs["status"]
    assert shop.events("theirs") == {}
    assert f"k8s-{service['metadata']['uid']}" not in world.balancers()


def test_t_03_source_ranges_are_enforced(shop: Shop) -> None:
    shop.create(loadBalancerSourceRanges=["127.0.5.0/24"])
    ip = shop.ip()

    assert answer(ip, source="127.0.5.1")["pod"]
    assert ask(ip, source="127.0.6.1") is None

    shop.change(loadBalancerSourceRanges=["127.0.6.0/24"])
    assert answer(ip, source="127.0.6.1")["pod"]
    embedded.eventually(lambda: ask(ip, source="127.0.5.1") is None)


def test_t_04_t_05_h_05_session_affinity_sticks_per_client(shop: Shop) -> None:
    shop.create(sessionAffinity="ClientIP")
    ip = shop.ip()
    answer(ip)

    def seen(source: str) -> set[tuple[str, str]]:
        said = [answer(ip, source=source) for _ in range(6)]
        return {(one["node"], one["pod"]) for one in said}

    homes = [seen(f"127.0.7.{number}") for number in range(1, 9)]

    assert [len(home) for home in homes] == [1] * 8
    assert len({node for home in homes for node, _ in home}) > 1


@pytest.mark.parametrize(
    ("wrong", "right", "word"),
    [
        (
            {"ports": [port(PORT, protocol="SCTP")]},
            {"ports": [port(PORT)]},
            "UnsupportedProtocol",
        ),
        ({"loadBalancerIP": "192.0.2.9"}, {"loadBalancerIP": None}, "192.0.2.9"),
    ],
    ids=["by_the_controller", "by_the_cloud"],
)
def test_refused_service_is_told_once_and_healed_by_an_edit(
    shop: Shop, world: World, wrong: dict[str, object], right: dict[str, object], word: str
) -> None:
    """No retry storm: the first retry of a failure would come after half a second."""
    shop.create(**wrong)

    service = embedded.eventually(
        shop.get, lambda it: condition(it, PROVISIONING).get("reason") == "Unsupported"
    )
    assert word in condition(service, PROVISIONING)["message"]
    assert condition(service, SERVING)["status"] == "False"
    assert not ingress(service)
    warned = embedded.eventually(
        shop.events, lambda it: ("Warning", "SyncLoadBalancerFailed") in it
    )
    before = world.ccm.work_done()
    assert stays(lambda: (shop.get()["metadata"]["resourceVersion"], shop.events()), 1.5)
    assert world.ccm.work_done() == before
    assert shop.events()["Warning", "SyncLoadBalancerFailed"] == 1, warned

    shop.change(**right)

    assert answer(shop.ip())["pod"]
    assert condition(shop.get(), SERVING)["status"] == "True"
