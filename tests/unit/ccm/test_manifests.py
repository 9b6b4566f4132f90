"""The Deployment that is shipped: what a controller needs to run before the cluster does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ccm import settings

BASE = Path(__file__).parents[3] / "manifests" / "base"


@pytest.fixture
def deployment() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((BASE / "deployment.yaml").read_text())
    return found


@pytest.fixture
def pod(deployment) -> dict[str, Any]:
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return found


def test_d_01_one_deployment_whose_instances_may_overlap(deployment):
    """No host port is taken, so a successor may stand by before its predecessor goes."""
    assert deployment["kind"] == "Deployment"
    assert deployment["spec"]["replicas"] == 1
    update = deployment["spec"]["strategy"]["rollingUpdate"]
    assert update == {"maxSurge": 1, "maxUnavailable": 0}


def test_d_02_b_28_it_runs_on_nodes_that_wait_for_it(pod):
    """A node is tainted until a controller has seen it: the controller must not wait for that."""
    tolerated = {(one["key"], one.get("effect", "")) for one in pod["tolerations"]}
    assert all(one["operator"] == "Exists" for one in pod["tolerations"])
    assert tolerated >= {
        ("node.cloudprovider.kubernetes.io/uninitialized", "NoSchedule"),
        ("node-role.kubernetes.io/control-plane", "NoSchedule"),
        ("node-role.kubernetes.io/master", "NoSchedule"),
        ("node.kubernetes.io/not-ready", "NoSchedule"),
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/network-unavailable", "NoSchedule"),
        ("CriticalAddonsOnly", ""),
    }


def test_d_05_it_is_critical_to_the_cluster(pod):
    assert pod["priorityClassName"] == "system-cluster-critical"
    assert yaml.safe_load((BASE / "kustomization.yaml").read_text())["namespace"] == "kube-system"


def test_d_06_probes_ask_the_secure_port_and_the_end_has_its_time(pod):
    [container] = pod["containers"]
    assert container["ports"] == [{"name": "https", "containerPort": 10258}]
    for probe, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "https", "scheme": "HTTPS"}
    defaults = settings.Settings("http://127.0.0.1", Path("token"))
    assert pod["terminationGracePeriodSeconds"] > 2 * defaults.shutdown_grace_s


def test_d_07_it_has_no_rights_on_its_node(pod):
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "requests" in container["resources"]
    assert not any(pod.get(one) for one in ("hostNetwork", "hostPID", "hostIPC"))


def test_d_03_it_runs_on_the_control_plane_where_its_image_is():
    deployment = yaml.safe_load((BASE / "deployment.yaml").read_text())
    selector = deployment["spec"]["template"]["spec"]["nodeSelector"]
    assert selector == {"node-role.kubernetes.io/control-plane": ""}
