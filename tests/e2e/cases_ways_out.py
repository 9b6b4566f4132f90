"""The end: another provider, uninstallation, and a cluster that goes without a word."""

from __future__ import annotations

import json
import os

import pytest

from tests.e2e import kind, kind_cloud, kind_cluster
from tests.e2e.cases import Case, balancers, cloud, eventually, get
from tests.e2e.commands import Failure, inspect, run

pytestmark = pytest.mark.timeout(600)
INVENTORY_LEASE_S = 180


def test_another_provider_is_named_before_anything_is_installed(case: Case, cluster: str):
    case.backend(1)
    ip = case.service(loadBalancerClass=None)
    kind_cluster.refuse_beside_another(case.kubectl, cluster)  # ours: that is no other
    peer = "h-e2e-peer"
    label = f"{kind_cluster.PEER_LABEL}={cluster}"
    image = kind_cloud.image_name()
    run("docker", "run", "--detach", "--rm", "--name", peer, "--label", label, "--network", "none",
        image, "sleep", "300")  # fmt: skip
    try:
        with pytest.raises(Failure, match=r"cloud-provider-kind.*CLASS_ONLY=1"):
            kind_cluster.refuse_beside_another(case.kubectl, cluster)
    finally:
        run("docker", "rm", "--force", peer)
    assert case.addresses() == [ip]


def test_with_class_only_services_without_a_class_are_another_providers(case: Case, cluster: str):
    case.backend(1)
    try:
        kind.up(cluster, options=kind_cluster.Options(class_only=True), samples=False)
        case.kubectl("-n", case.namespace, "expose", "deployment", "echo", "--name=theirs",
                     "--port=80", "--target-port=8080", "--type=LoadBalancer")  # fmt: skip
        ours = case.service("ours", loadBalancerClass="fakecloud.dev/haproxy")
        eventually(lambda: get(ours, 80))
        status = '{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.7"}]}}}'
        case.kubectl("-n", case.namespace, "patch", "service", "theirs", "--subresource=status",
                     "--type=merge", "-p", status)  # fmt: skip
        case.service("last", loadBalancerClass="fakecloud.dev/haproxy")
        assert case.addresses("theirs") == ["192.0.2.7"]
        assert "finalizers" not in case.read("theirs")["metadata"]
    finally:
        case.kubectl("-n", case.namespace, "delete", "service", "theirs", "--ignore-not-found")
        kind.up(cluster, samples=False)


def test_uninstalling_leaves_nothing_and_installing_again_serves(case: Case, cluster: str):
    case.backend(1)
    ip = case.service()
    eventually(lambda: get(ip, 80))
    kind_cluster.remove_controller(case.kubectl)
    said = kind_cloud.release(cluster, kind_cluster.internal_kubeconfig(cluster))
    assert f"{case.namespace}/web is <pending> again" in said
    service = case.read()
    assert "finalizers" not in service["metadata"]
    assert not service["status"]["loadBalancer"].get("ingress")
    assert "conditions" not in service["status"]
    eventually(lambda: balancers(cluster) == [])
    assert ip not in _held()
    left = case.kubectl("-n", "kube-system", "get", "all,configmaps,secrets,leases,roles", "-o",
                        "name")  # fmt: skip
    assert [one for one in left.split() if "ccm" in one or "cloud-controller" in one] == []
    kind.up(cluster, samples=False)
    assert eventually(lambda: get(case.addresses()[0], 80))


def _held() -> str:
    return run("docker", "exec", kind_cloud.CONTAINER, "cat", "/proc/net/fib_trie")


def test_without_the_capability_the_container_says_which(case: Case):
    network = kind_cloud.network_of(case.nodes()[0]["metadata"]["name"])
    with pytest.raises(Failure, match=r"CAP_NET_ADMIN.*--cap-add NET_ADMIN"):
        run("docker", "run", "--rm", "--network", network, "--cap-drop", "ALL", "--env",
            "FAKECLOUD_POOL=default=interface:auto@eth0", kind_cloud.image_name())  # fmt: skip


def test_z_a_cluster_deleted_without_clean_up_is_found_with_its_price(case: Case, cluster: str):
    if os.environ.get("E2E_CLUSTER"):
        pytest.skip("it deletes the cluster: without E2E_CLUSTER a new one is made for the run")
    case.backend(1)
    case.service()
    before = balancers(cluster)
    run("kind", "delete", "cluster", "--name", cluster, timeout_s=120)

    def orphans() -> list[dict[str, str]]:
        shown = json.loads(cloud(cluster, "cost", "waste", "--silent-s", "0", "-o", "json"))
        return [one for one in shown["items"] if one["kind"] == "orphan"]

    found = eventually(orphans, INVENTORY_LEASE_S + 60)
    assert len(found) == len(before)
    for one in found:
        assert float(one["cost_to_date"]) > 0
        assert float(one["monthly_run_rate"]) > 0
        cloud(cluster, *one["command"].split()[1:])
    eventually(lambda: balancers(cluster) == [])
    assert inspect("container", kind_cloud.CONTAINER)
