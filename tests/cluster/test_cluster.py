"""The embedded cluster does for its users what a cluster of machines would."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import controlplane, embedded, errors

pytestmark = [pytest.mark.kube, pytest.mark.timeout(120)]

Json = dict[str, Any]

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: nominal}]}
"""


def service(name: str = "web", **spec: object) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80}],
            **spec,
        },
    }


def pod(name: str, node: str, **spec: object) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": node, "containers": [{"name": "web", "image": "nominal", **spec}]},
    }


def get(address: str, port: int, path: str = "/") -> tuple[int, dict[str, str], Json]:
    """Return status, headers and JSON body; a 503 is an answer."""
    try:
        response = urllib.request.urlopen(f"http://{address}:{port}{path}", timeout=5)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        return response.status, headers, json.loads(response.read())


def answer(address: str, port: int) -> Json:
    return embedded.eventually(lambda: get(address, port))[2]


def refused(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.fixture
def extra_node(cluster: embedded.EmbeddedCluster) -> Iterator[str]:
    name = cluster.add_node()
    yield name
    if name in cluster.nodes:
        cluster.remove_node(name)


def test_deployment_spreads_over_three_ready_nodes(
    cluster: embedded.EmbeddedCluster, namespace: str
) -> None:
    cluster.create(DEPLOYMENT, namespace)

    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/web"
    embedded.eventually(
        lambda: cluster.request("GET", path), lambda it: it["status"].get("readyReplicas") == 3
    )
    pods = cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]

    assert {"standin-1", "standin-2", "standin-3"} == {each["spec"]["nodeName"] for each in pods}
    assert {"10.64.1", "10.64.2", "10.64.3"} == {
        each["status"]["podIP"].rpartition(".")[0] for each in pods
    }


def test_policy_cluster_answers_on_every_node_for_every_pod(
    cluster: embedded.EmbeddedCluster, namespace: str
) -> None:
    cluster.create(pod("only", "standin-2"), namespace)
    [created] = cluster.create(service(), namespace)
    port = created["spec"]["ports"][0]["nodePort"]

    for node in ("standin-1", "standin-2", "standin-3"):
        said = answer(cluster.nodes[node], port)
        assert said.pop("client").partition(":")[0] == "127.0.0.1"
        assert said == {
            "answered_by": "stand-in",
            "service": f"{namespace}/web",
            "port": "http",
            "node": node,
            "pod": "only",
        }


def test_policy_local_answers_only_beside_a_ready_pod(
    cluster: embedded.EmbeddedCluster, namespace: str
) -> None:
    """The health check's weight is the number of local pods, and 503 where there are none."""
    for name in ("one", "two"):
        cluster.create(pod(name, "standin-2"), namespace)
    [created] = cluster.create(service(externalTrafficPolicy="Local"), namespace)
    port = created["spec"]["ports"][0]["nodePort"]
    health = created["spec"]["healthCheckNodePort"]
    with_pods, without = cluster.nodes["standin-2"], cluster.nodes["standin-1"]

    status, headers, body = embedded.eventually(
        lambda: get(with_pods, health, "/healthz"),
        lambda it: it[1]["x-load-balancing-endpoint-weight"] == "2",
    )
    assert status == 200
    assert body == {
        "service": {"namespace": namespace, "name": "web"},
        "localEndpoints": 2,
        "serviceProxyHealthy": True,
    }
    assert answer(with_pods, port)["node"] == "standin-2"
    status, headers, body = get(without, health)
    assert (
        status,
        headers["x-load-balancing-endpoint-weight"],
        body["localEndpoints"],
    ) == (503, "0", 0)
    assert refused(without, port)


def test_pod_that_is_not_ready_gets_no_traffic(
    cluster: embedded.EmbeddedCluster, namespace: str
) -> None:
    for name in ("one", "two"):
        cluster.create(pod(name, "standin-1"), namespace)
    [created] = cluster.create(service(externalTrafficPolicy="Local"), namespace)
    health = created["spec"]["healthCheckNodePort"]
    address = cluster.nodes["standin-1"]

    def weight() -> str:
        return get(address, health)[1]["x-load-balancing-endpoint-weight"]

    embedded.eventually(weight, lambda it: it == "2")
    cluster.set_ready(namespace, "one", False)
    embedded.eventually(weight, lambda it: it == "1")
    port = created["spec"]["ports"][0]["nodePort"]
    assert {"two"} == {answer(address, port)["pod"] for _ in range(4)}
    cluster.set_ready(namespace, "two", False)
    embedded.eventually(weight, lambda it: it == "0")
    embedded.eventually(lambda: refused(address, port))
    cluster.set_ready(namespace, "one", True)
    assert answer(address, port)["pod"] == "one"


def test_terminating_pod_serves_until_its_pre_stop_is_over(
    cluster: embedded.EmbeddedCluster, namespace: str
) -> None:
    """The health check fails at once, so that a load balancer can drain (KEP-1669)."""
    pre_stop = {"preStop": {"sleep": {"seconds": 2}}}
    cluster.create(pod("leaving", "standin-1", lifecycle=pre_stop), namespace)
    [created] = cluster.create(service(externalTrafficPolicy="Local"), namespace)
    port = created["spec"]["ports"][0]["nodePort"]
    address = cluster.nodes["standin-1"]
    answer(address, port)

    cluster.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/leaving")

    health = created["spec"]["healthCheckNodePort"]
    embedded.eventually(lambda: get(address, health)[0] == 503)
    assert get(address, port)[2]["pod"] == "leaving"
    embedded.eventually(lambda: refused(address, port))


def test_udp_node_port_echoes(cluster: embedded.EmbeddedCluster, namespace: str) -> None:
    cluster.create(pod("only", "standin-1"), namespace)
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}]
    [created] = cluster.create(service(ports=ports), namespace)
    target = (cluster.nodes["standin-3"], created["spec"]["ports"][0]["nodePort"])

    def ask() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.connect(target)
            client.send(b"question")
            return client.recv(2048)

    line, _, echoed = embedded.eventually(ask).partition(b"\n")
    assert echoed == b"question"
    assert json.loads(line)["pod"] == "only"


def test_changed_node_port_moves_the_listener(
    cluster: embedded.EmbeddedCluster, namespace: str
) -> None:
    cluster.create(pod("only", "standin-1"), namespace)
    [created] = cluster.create(service(), namespace)
    address, old = cluster.nodes["standin-1"], created["spec"]["ports"][0]["nodePort"]
    answer(address, old)

    path = f"/api/v1/namespaces/{namespace}/services/web"
    new = old + 1 if old < controlplane.node_port_range()[1] else old - 1
    cluster.request(
        "PATCH",
        path,
        [{"op": "replace", "path": "/spec/ports/0/nodePort", "value": new}],
        "application/json-patch+json",
    )

    answer(address, new)
    embedded.eventually(lambda: refused(address, old))
    cluster.request("DELETE", path)
    embedded.eventually(lambda: refused(address, new))


def test_node_on_its_way_out_fails_its_health_check(
    cluster: embedded.EmbeddedCluster, extra_node: str
) -> None:
    """The autoscaler's taint drains a node before it leaves the list; /livez stays good."""
    address = cluster.nodes[extra_node]
    status, _, body = get(address, 10256, "/healthz")
    assert (status, body["healthy"], body["nodeEligible"]) == (200, True, True)

    taint = {"key": "ToBeDeletedByClusterAutoscaler", "value": "1", "effect": "NoSchedule"}
    cluster.request(
        "PATCH",
        f"/api/v1/nodes/{extra_node}",
        {"spec": {"taints": [taint]}},
        "application/merge-patch+json",
    )

    embedded.eventually(lambda: get(address, 10256, "/healthz"), lambda it: it[0] == 503)
    assert get(address, 10256, "/healthz")[2]["nodeEligible"] is False
    assert get(address, 10256, "/livez")[0] == 200


@pytest.mark.parametrize("by", ["handle", "kubectl"])
def test_removed_node_takes_its_pods_and_ports_along(
    cluster: embedded.EmbeddedCluster, namespace: str, extra_node: str, by: str
) -> None:
    cluster.create(pod("here", extra_node), namespace)
    cluster.create(pod("stays", "standin-1"), namespace)
    [created] = cluster.create(service(), namespace)
    port = created["spec"]["ports"][0]["nodePort"]
    address = cluster.nodes[extra_node]
    answer(address, port)

    if by == "handle":
        cluster.remove_node(extra_node)
    else:
        cluster.kubectl("delete", "node", extra_node)

    embedded.eventually(lambda: refused(address, port))
    assert refused(address, 10256)
    pods = f"/api/v1/namespaces/{namespace}/pods"
    embedded.eventually(
        lambda: {each["metadata"]["name"] for each in cluster.request("GET", pods)["items"]},
        lambda it: it == {"stays"},
    )
    embedded.eventually(
        lambda: {answer(cluster.nodes["standin-2"], port)["pod"] for _ in range(4)},
        lambda it: it == {"stays"},
    )


def test_node_turns_not_ready_and_goes_on_to_answer(
    cluster: embedded.EmbeddedCluster, extra_node: str
) -> None:
    cluster.set_node_ready(extra_node, False)

    conditions = cluster.request("GET", f"/api/v1/nodes/{extra_node}")["status"]["conditions"]
    assert [each["status"] for each in conditions if each["type"] == "Ready"] == ["False"]
    assert get(cluster.nodes[extra_node], 10256, "/healthz")[0] == 200


def test_kubeconfigs_of_others_have_their_rights_only(
    cluster: embedded.EmbeddedCluster, namespace: str
) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}
    cluster.create(account, namespace)
    plane = cluster.control_plane
    robot = plane.kubeconfig_for_service_account(namespace, "robot")
    anna = plane.kubeconfig_for("anna", ["system:masters"])

    who = ("auth", "whoami", "--output=jsonpath={.status.userInfo.username}")
    assert f"system:serviceaccount:{namespace}:robot" == cluster.kubectl(*who, kubeconfig=robot)
    with pytest.raises(errors.ClusterError, match="forbidden"):
        cluster.kubectl("get", "nodes", kubeconfig=robot)
    assert "standin-1" in cluster.kubectl("get", "nodes", kubeconfig=anna)
