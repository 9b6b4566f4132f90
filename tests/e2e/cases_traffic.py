"""Who reaches a Service's address, and who doesn't."""

from __future__ import annotations

import os
import socket

import pytest

from tests.e2e import kind_cloud
from tests.e2e.cases import (
    Case,
    balancers,
    datagram,
    eventually,
    from_node,
    get,
    refuses,
)
from tests.e2e.commands import run

pytestmark = pytest.mark.timeout(400)
UDP = {"name": "dns", "port": 53, "targetPort": 8081, "protocol": "UDP"}
TCP = {"name": "web", "port": 80, "targetPort": 8080}


def test_host_node_and_pod_reach_the_address(case: Case):
    case.backend(3)
    ip = case.service()
    pods = {one["metadata"]["name"] for one in case.pods()}
    assert eventually(lambda: get(ip, 80)) in pods
    for node in case.nodes():
        assert eventually(lambda n=node: from_node(n["metadata"]["name"], ip, 80)) in pods
    assert eventually(lambda: case.from_pod(ip, 80)) in pods
    eventually(lambda: {get(ip, 80) for _ in range(20)} == pods)


def test_address_stays_while_ports_change_and_goes_with_the_type(case: Case):
    case.backend(1)
    ip = case.service()
    eventually(lambda: get(ip, 80))
    patch = '{"spec":{"ports":[{"name":"web","port":81,"targetPort":8080}]}}'
    case.kubectl("-n", case.namespace, "patch", "service", "web", "--type=merge", "-p", patch)
    eventually(lambda: get(ip, 81))
    assert case.addresses() == [ip]
    case.kubectl("-n", case.namespace, "patch", "service", "web", "-p",
                 '{"spec":{"type":"ClusterIP"}}')  # fmt: skip
    eventually(lambda: refuses(lambda: get(ip, 81, timeout_s=1)))
    eventually(lambda: "finalizers" not in case.read()["metadata"])


def test_local_policy_sends_only_to_nodes_with_a_pod(case: Case):
    node = case.workers()[-1]
    case.backend(1, nodeName=node)
    ip = case.service(externalTrafficPolicy="Local")
    pod = case.pods()[0]["metadata"]["name"]
    assert eventually(lambda: get(ip, 80)) == pod
    eventually(lambda: _healthy(case) == {node})
    assert [get(ip, 80) for _ in range(20)] == [pod] * 20
    assert eventually(lambda: case.from_pod(ip, 80)) == pod


def _healthy(case: Case) -> set[str]:
    lb = next(
        one for one in balancers(case.cluster) if one["labels"]["namespace"] == case.namespace
    )
    fine = {one["ip"] for one in lb["status"]["targets"] if one["health"] == "healthy"}
    group = lb["spec"]["target_groups"][0]["targets"]
    return {one["node"] for one in group if one["ip"] in fine}


def test_udp_and_tcp_on_one_address(case: Case):
    case.backend(2)
    both = {**UDP, "port": 80, "name": "udp"}
    ip = case.service(ports=[TCP, UDP, both])
    pods = {one["metadata"]["name"] for one in case.pods()}
    assert eventually(lambda: get(ip, 80)) in pods
    for port in (53, 80):
        assert eventually(lambda p=port: datagram(ip, p)) in pods


def test_ports_of_localhost_lead_to_the_listeners(case: Case):
    if "FAKECLOUD_HOST_PORTS" not in os.environ:
        pytest.skip("no host ports: FAKECLOUD_HOST_PORTS=20000-20031 publishes some")
    case.backend(1)
    case.service(ports=[TCP, UDP])

    def published() -> dict[str, int]:
        text = case.read()["metadata"]["annotations"]["fakecloud.dev/host-ports"]
        pairs = (one.partition("=") for one in text.split(","))
        return {listener: int(port) for listener, _, port in pairs}

    found = eventually(published)
    pod = case.pods()[0]["metadata"]["name"]
    assert eventually(lambda: get("127.0.0.1", found["80/tcp"])) == pod
    assert eventually(lambda: datagram("127.0.0.1", found["53/udp"])) == pod
    run("docker", "restart", kind_cloud.CONTAINER, timeout_s=90)
    kind_cloud.await_ready()
    assert eventually(lambda: get("127.0.0.1", found["80/tcp"])) == pod
    assert published() == found


def test_source_ranges_let_in_whom_they_name_over_tcp_and_udp(case: Case):
    case.backend(1)
    ip = case.service(ports=[TCP, UDP])
    eventually(lambda: get(ip, 80))
    mine = _seen_from_here(ip)
    _allow(case, "192.0.2.0/24")
    eventually(lambda: refuses(lambda: get(ip, 80, timeout_s=1)))
    eventually(lambda: refuses(lambda: datagram(ip, 53)))
    assert refuses(lambda: case.from_pod(ip, 80))
    _allow(case, f"{mine}/32")
    eventually(lambda: get(ip, 80))
    eventually(lambda: datagram(ip, 53))
    assert refuses(lambda: case.from_pod(ip, 80))


def _allow(case: Case, network: str) -> None:
    patch = f'{{"spec":{{"loadBalancerSourceRanges":["{network}"]}}}}'
    case.kubectl("-n", case.namespace, "patch", "service", "web", "-p", patch)


def _seen_from_here(ip: str) -> str:
    """Return the address of this machine from which it reaches `ip`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.connect((ip, 80))
        return str(door.getsockname()[0])


def test_dual_stack_answers_on_both_families(case: Case):
    if len(case.nodes()[0]["spec"].get("podCIDRs", [])) < 2:
        pytest.skip("the cluster has one family: make it with manifests/kind/dual-stack.yaml")
    case.backend(1)
    case.service(ipFamilyPolicy="RequireDualStack", ports=[TCP, UDP])
    eventually(lambda: len(case.addresses()) == 2)
    four, six = sorted(case.addresses(), key=lambda one: ":" in one)
    assert ":" in six
    pod = case.pods()[0]["metadata"]["name"]
    for ip in (four, six):
        assert eventually(lambda i=ip: get(i, 80)) == pod
        assert eventually(lambda i=ip: datagram(i, 53)) == pod
        assert eventually(lambda i=ip: case.from_pod(i, 80)) == pod


def test_pods_with_host_ports_take_nothing_from_the_load_balancer(case: Case):
    taking = {"ports": [{"containerPort": 8080, "hostPort": 80}]}
    case.backend(1, container=taking)
    ip = case.service()
    case.apply(_other(case))
    eventually(lambda: get(ip, 80))
    assert {get(ip, 80) for _ in range(10)} == {case.pods()[0]["metadata"]["name"]}
    place = ("-n", case.namespace, "pods", "other")
    eventually(lambda: case.kubectl.get(*place)["status"]["phase"] == "Running")
    assert get(ip, 80) == case.pods()[0]["metadata"]["name"]


def _other(case: Case) -> dict[str, object]:
    """Return a pod that wants port 80 of every address of its node."""
    container = {
        "name": "other",
        "image": "registry.k8s.io/e2e-test-images/agnhost:2.63.0",
        "args": ["netexec", "--http-port=80"],
    }
    spec = {"hostNetwork": True, "nodeName": case.workers()[-1], "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other"}, "spec": spec}


def test_services_of_another_class_are_left_alone(case: Case):
    case.backend(1)
    case.service("ours", loadBalancerClass="fakecloud.dev/haproxy")
    case.kubectl("-n", case.namespace, "expose", "deployment", "echo", "--name=theirs",
                 "--port=80", "--target-port=8080", "--type=LoadBalancer",
                 '--overrides={"spec":{"loadBalancerClass":"example.com/other"}}')  # fmt: skip
    case.service("last")  # whoever came before it has been looked at by now
    theirs = case.read("theirs")
    assert not theirs["status"]["loadBalancer"].get("ingress")
    assert "finalizers" not in theirs["metadata"]
