"""Parts are killed, restarted and replaced while requests come in, each on its own connection."""

from __future__ import annotations

import time

import pytest

from tests.e2e import kind_cloud, kind_cluster
from tests.e2e.cases import Case, eventually, from_node, get, steady
from tests.e2e.commands import run, say

pytestmark = pytest.mark.timeout(400)
GAP_S = 2.0
SYSTEM = ("-n", kind_cluster.NAMESPACE)
CONTROLLER = f"deployment/{kind_cluster.DEPLOYMENT}"


def served(case: Case, replicas: int = 2, **spec: object) -> str:
    """Return the address of a Service that answers."""
    case.backend(replicas)
    ip = case.service(**spec)
    eventually(lambda: get(ip, 80))
    return ip


def rolled(case: Case, *what: str) -> None:
    case.kubectl(*what[:-1], "rollout", "restart", what[-1])
    case.kubectl(*what[:-1], "rollout", "status", what[-1], "--timeout=120s", timeout_s=140)


def test_a_backend_that_rolls_loses_no_request(case: Case):
    ip = served(case, 3)
    with steady(ip, 80) as traffic:
        rolled(case, "-n", case.namespace, "deployment/echo")
    traffic.whole()


def test_a_drained_node_loses_no_request(case: Case):
    workers = case.workers()
    if len(workers) < 2:
        pytest.skip("the cluster has one node")
    ip = served(case, 4)
    node = workers[0]
    try:
        with steady(ip, 80) as traffic:
            case.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force",
                         "--pod-selector=app=echo", "--timeout=120s", timeout_s=140)  # fmt: skip
            case.kubectl("-n", case.namespace, "rollout", "status", "deployment/echo",
                         "--timeout=120s", timeout_s=140)  # fmt: skip
        traffic.whole()
    finally:
        case.kubectl("uncordon", node)


def test_a_rolling_controller_loses_no_request(case: Case):
    ip = served(case)
    with steady(ip, 80) as traffic:
        rolled(case, *SYSTEM, CONTROLLER)
        case.service("next")
    traffic.whole()
    assert case.addresses() == [ip]


def test_a_killed_controller_pod_loses_no_request_and_no_service(case: Case):
    ip = served(case)
    with steady(ip, 80) as traffic:
        case.kubectl(*SYSTEM, "delete", "pod", "-l", "app.kubernetes.io/name=fakecloud-ccm",
                     "--force", "--grace-period=0", timeout_s=90)  # fmt: skip
        other = case.service("next")  # asked for while nobody leads
        eventually(lambda: get(other, 80))
    traffic.whole()


def test_a_crashed_server_loses_no_request(case: Case):
    ip = served(case)
    with steady(ip, 80) as traffic:
        script = "import os,pathlib\nfor p in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n" \
            " if b'fakecloud\\0serve' in p.read_bytes() and p.parent.name != '1':" \
            " os.kill(int(p.parent.name), 9)"  # fmt: skip
        run("docker", "exec", kind_cloud.CONTAINER, "python", "-c", script)
        time.sleep(2)
        kind_cloud.await_ready()
    traffic.whole()


@pytest.mark.parametrize("how", ["kill", "restart", "replace"])
def test_a_container_that_is_back_has_the_same_addresses(case: Case, how: str):
    ip = served(case)
    node = case.nodes()[0]["metadata"]["name"]
    with steady(ip, 80) as traffic:
        began = time.monotonic()
        if how == "kill":
            run("docker", "kill", kind_cloud.CONTAINER)
            run("docker", "start", kind_cloud.CONTAINER)
        elif how == "restart":
            run("docker", "restart", kind_cloud.CONTAINER, timeout_s=90)
        else:
            environment = kind_cloud.compose_environment(kind_cloud.network_of(node))
            run(*kind_cloud.compose(), "up", "--detach", "--no-build", "--force-recreate",
                env=environment, timeout_s=120)  # fmt: skip
        kind_cloud.await_ready()
        back_s = time.monotonic() - began
        eventually(lambda: get(ip, 80))
    say(f"{how}: ready after {back_s:.1f} s, no answer for {traffic.gap_s:.2f} s")
    assert case.addresses() == [ip]
    assert eventually(lambda: from_node(node, ip, 80))
    assert eventually(lambda: case.from_pod(ip, 80))


def test_a_node_that_stands_still_gets_no_request_after_its_probes_fail(case: Case):
    workers = case.workers()
    if len(workers) < 2:
        pytest.skip("the cluster has one node")
    # Local: with Cluster, the other node's kube-proxy sends to this one's pods for 40 s more.
    ip = served(case, 4, externalTrafficPolicy="Local")
    node = workers[0]
    eventually(lambda: len({one["spec"]["nodeName"] for one in case.pods()}) == 2)
    try:
        run("docker", "pause", node)
        eventually(lambda: all(get(ip, 80, timeout_s=1) for _ in range(10)), 20)
    finally:
        run("docker", "unpause", node)
    eventually(lambda: get(ip, 80))
