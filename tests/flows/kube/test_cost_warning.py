"""The shipped policy on a real API server: who makes a load balancer is told what it costs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cluster.embedded import EmbeddedCluster
from tests.flows.conftest import eventually

pytestmark = [pytest.mark.kube, pytest.mark.timeout(120)]

POLICY = Path(__file__).parents[3] / "manifests" / "components" / "cost-warning" / "policy.yaml"
MESSAGE = "this makes a billable load balancer: about 20.08 USD a month with prices of"


def said(cluster: EmbeddedCluster, *arguments: str) -> str:
    """Return what kubectl says beside its output; it must succeed."""
    command = [cluster.control_plane.kubectl, f"--kubeconfig={cluster.kubeconfig}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return done.stderr


def test_a_load_balancer_is_warned_of_and_nothing_else(
    cluster: EmbeddedCluster, namespace: str
) -> None:
    cluster.kubectl("apply", "-f", str(POLICY))
    make = ("create", "service", "-n", namespace)
    dry = ("--tcp=80:80", "--dry-run=server")
    try:
        eventually(lambda: MESSAGE in said(cluster, *make, "loadbalancer", "web", *dry), 60)
        assert MESSAGE not in said(cluster, *make, "clusterip", "web", "--tcp=80:80")
        patch = ("patch", "service", "web", "-n", namespace, "--dry-run=server", "-p")
        assert MESSAGE in said(cluster, *patch, '{"spec": {"type": "LoadBalancer"}}')
        other = '{"spec": {"type": "LoadBalancer", "loadBalancerClass": "example.com/other"}}'
        assert MESSAGE not in said(cluster, *patch, other)
    finally:
        cluster.kubectl("delete", "-f", str(POLICY), "--ignore-not-found")
