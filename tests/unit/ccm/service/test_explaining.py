"""Why it is pending: each cause is found and named."""

from __future__ import annotations

from typing import Any

import pytest

from ccm import errors
from ccm.cloud import documents
from ccm.kube import objects
from ccm.service import desired, explaining, nodes
from ccm.service.explaining import Level
from tests.unit.ccm import builders

READY = objects.EndpointSlice(
    objects.ObjectMeta("web-x", "shop"), "IPv4", (objects.Endpoint(("10.244.0.5",)),), ()
)
HEALTHY = documents.TargetHealth("10.0.0.1", 30080, "healthy", "http_200")
DOWN = documents.TargetHealth("10.0.0.1", 30080, "unhealthy", "connection_refused")


def found(state="ACTIVE", targets=(HEALTHY,), operation=None, labels=None, **status: Any):
    values = {"generation": 1, "observed_generation": 1, "state": state, **status}
    marks = builders.ownership().labels(builders.service()) if labels is None else labels
    one = documents.LoadBalancer("k8s-u-1", marks, status=documents.CloudStatus(**values))
    return documents.Inspection(one, targets, operation)


def explained(**changes: Any) -> list[explaining.Finding]:
    service = changes.pop("service", builders.service())
    owner = builders.ownership()
    cluster_nodes = changes.pop("nodes", (builders.node(),))
    try:
        plan: Any = desired.build(service, nodes.backends(cluster_nodes), owner)
    except errors.Rejected as rejected:
        plan = rejected
    values = {
        "plan": plan,
        "slices": (READY,),
        "found": found(),
        "cloud_problem": "",
        "holder": "host_1",
        **changes,
    }
    return explaining.explain(
        explaining.Situation(service=service, owner=owner, nodes=cluster_nodes, **values)
    )


def problems(findings):
    return [one for one in findings if one.level is Level.PROBLEM]


def test_what_serves_has_no_problem():
    assert explaining.is_serving(explained())


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        pytest.param(
            {"nodes": (builders.node(labels={nodes.EXCLUDE_LABEL: ""}),)},
            f"node-1: label {nodes.EXCLUDE_LABEL}",
            id="excluded",
        ),
        pytest.param(
            {"nodes": (builders.node(taints=(nodes.AUTOSCALER_TAINT,)),)},
            f"node-1: taint {nodes.AUTOSCALER_TAINT}",
            id="tainted",
        ),
        pytest.param({"nodes": ()}, "the cluster has none", id="no nodes"),
        pytest.param(
            {"nodes": (builders.node("a", "fd00::1"),)}, "no InternalIP of IPv4", id="family"
        ),
        pytest.param(
            {"service": builders.service(annotations={"fakecloud.dev/node-selector": "a=b"})},
            "node-selector leaves it out",
            id="selector",
        ),
        pytest.param(
            {"service": builders.service(ports=(builders.port(protocol="SCTP"),)), "found": None},
            "SCTP is not supported",
            id="unsupported",
        ),
        pytest.param({"slices": ()}, "no pod is ready", id="no endpoints"),
        pytest.param(
            {"found": None, "cloud_problem": "http://127.0.0.1:1: refused"}, "refused", id="cloud"
        ),
        pytest.param({"found": None, "holder": ""}, "none holds the Lease", id="nobody works"),
        pytest.param(
            {"found": found(labels={"cluster-uid": "x"})}, "another cluster", id="foreign"
        ),
        pytest.param(
            {"found": found("ERROR", last_error=documents.LastError("bind_failed", "taken"))},
            "bind_failed: taken",
            id="error",
        ),
        pytest.param(
            {"found": found(targets=(DOWN,))}, "1 connection_refused (10.0.0.1", id="unhealthy"
        ),
        pytest.param(
            {"service": builders.service(load_balancer_class="example.com/x")},
            "leaves alone",
            id="class",
        ),
    ],
)
def test_b_23_ki_03_each_cause_is_named(changes, word):
    found_problems = problems(explained(**changes))
    assert any(word in one.text for one in found_problems), found_problems


def told(reason, message):
    condition = objects.Condition("LoadBalancerProvisioning", "False", reason, message)
    return builders.service(status=objects.ServiceStatus(conditions=(condition,)))


def test_what_the_controller_wrote_is_repeated():
    service = told("Unsupported", "quota_exceeded: 3 of 3 used")
    assert "quota_exceeded: 3 of 3 used" in problems(explained(service=service, found=None))[0].text


def test_waiting_has_its_phase_and_eta():
    operation = documents.Operation(
        "op_1", phase="allocate", progress=40, eta="2026-01-01T00:01:30Z"
    )
    waiting = [
        one
        for one in explained(found=found("PENDING", (), operation, observed_generation=0))
        if one.level is Level.WAIT
    ]
    assert "phase allocate, 40 %, ready at about 2026-01-01T00:01:30Z" in waiting[0].text


def test_with_policy_local_nodes_without_a_pod_are_no_problem():
    service = builders.service(external_traffic_policy="Local", health_check_node_port=32000)
    findings = explained(service=service, found=found(targets=(HEALTHY, DOWN)))
    assert problems(findings) == []


def test_published_addresses_and_facts_are_said():
    status = objects.ServiceStatus(
        objects.LoadBalancerStatus(
            (
                objects.Ingress(
                    "127.77.0.1", ports=(objects.PortStatus(132, "SCTP", "fakecloud.dev/X"),)
                ),
            )
        ),
        (
            objects.Condition("Reachable", "False", "NoConnection", "no answer"),
            objects.Condition("SourceIPPreserved", "False", "Proxied", "pods see a node"),
        ),
    )
    texts = [one.text for one in explained(service=builders.service(status=status))]
    assert "published: 127.77.0.1" in texts
    assert "port 132/SCTP is not served: fakecloud.dev/X" in texts
    assert "NoConnection: no answer" in texts


def test_deletion_names_who_is_waited_for():
    service = builders.service(
        deletion_timestamp="2026-01-01T00:00:00Z",
        finalizers=(objects.CLEANUP_FINALIZER, "example.com/keep"),
    )
    texts = [one.text for one in explained(service=service) if one.level is Level.WAIT]
    assert "example.com/keep" in texts[1]


def test_another_type_asks_for_nothing():
    (only,) = explained(service=builders.service(type="ClusterIP"))
    assert "asks for no load balancer" in only.text


def test_ports_of_the_machine_are_named():
    service = builders.service(annotations={"fakecloud.dev/host-ports": "80/tcp=20000"})
    texts = [one.text for one in explained(service=service)]
    assert any("127.0.0.1:20000 → 80/tcp" in text for text in texts)
    assert not any("not known" in text for text in texts)
