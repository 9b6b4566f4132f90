"""What a Node becomes; the address vectors are upstream's (U-11)."""

from __future__ import annotations

import msgspec
import pytest

from ccm import errors
from ccm.cloud.documents import InstanceAddress
from ccm.kube import objects
from ccm.node import changes
from tests.fakes.ccm_instances import instance
from tests.unit.ccm import builders

OURS = "fakecloud://local-1/i_node-1"


def node(*, provider_id="", taints=(), provided=None, addresses=None, labels=None):
    made = builders.node("node-1", taints=taints, labels=labels)
    meta = msgspec.structs.replace(
        made.metadata, annotations={changes.PROVIDED_IP: provided} if provided else None
    )
    status = made.status
    if addresses is not None:
        status = objects.NodeStatus(tuple(objects.NodeAddress(*one) for one in addresses))
    spec = msgspec.structs.replace(made.spec, provider_id=provider_id)
    return msgspec.structs.replace(made, metadata=meta, spec=spec, status=status)


@pytest.mark.parametrize(
    ("one", "key"),
    [
        (node(), ""),
        (node(taints=(changes.UNINITIALIZED,)), "node-1"),
        (node(provider_id=OURS), "i_node-1"),
        (node(provider_id="kind://docker/kind/node-1"), ""),
        (node(provider_id="kind://docker/kind/node-1", taints=(changes.UNINITIALIZED,)), ""),
        (node(provider_id="fakecloud://nowhere", taints=(changes.UNINITIALIZED,)), ""),
    ],
)
def test_l_08_ki_02_foreign_nodes_have_no_instance(one, key):
    assert changes.instance_key(one) == key


def test_n_07_one_patch_for_provider_id_labels_and_taint():
    wanted = changes.changes(node(taints=(changes.UNINITIALIZED, "other")), instance())
    assert wanted.status == {}
    assert wanted.node == {
        "spec": {"providerID": OURS, "taints": [{"key": "other"}]},
        "metadata": {
            "labels": {
                "node.kubernetes.io/instance-type": "standard-2",
                "beta.kubernetes.io/instance-type": "standard-2",
                "topology.kubernetes.io/zone": "local-1a",
                "failure-domain.beta.kubernetes.io/zone": "local-1a",
                "topology.kubernetes.io/region": "local-1",
                "failure-domain.beta.kubernetes.io/region": "local-1",
            }
        },
    }


def test_n_05_a_12_provider_id_is_never_overwritten():
    other = "fakecloud://local-1/i_else"
    wanted = changes.changes(node(provider_id=other, taints=(changes.UNINITIALIZED,)), instance())
    assert "providerID" not in wanted.node["spec"]


def test_n_15_b_11_n_10_ki_01_labels_follow_the_cloud_for_good():
    stale = {"topology.kubernetes.io/zone": "old", "mine": "stays"}
    wanted = changes.changes(node(provider_id=OURS, labels=stale), instance(type="", zone="new"))
    labels = wanted.node["metadata"]["labels"]
    assert labels["topology.kubernetes.io/zone"] == "new"
    assert labels["failure-domain.beta.kubernetes.io/zone"] == "new"
    assert not any("instance-type" in key for key in labels)
    assert "mine" not in labels


def test_a_label_that_the_api_server_would_refuse_keeps_no_node_waiting():
    wanted = changes.changes(node(provider_id=OURS), instance(zone="rack 7, left"))
    assert not any("zone" in key for key in wanted.node["metadata"]["labels"])


INTERNAL, EXTERNAL = "InternalIP", "ExternalIP"


@pytest.mark.parametrize(
    ("provided", "known", "expected"),
    [
        pytest.param(None, [(INTERNAL, "10.0.0.1")], [0], id="not provided"),
        pytest.param("10.0.0.1", [(INTERNAL, "10.0.0.1"), (EXTERNAL, "5.0.0.1")], [0, 1], id="one"),
        pytest.param("10.0.0.2", [(INTERNAL, "10.0.0.1"), (INTERNAL, "10.0.0.2")], [1], id="type"),
        pytest.param("5.0.0.1", [(INTERNAL, "10.0.0.1"), (EXTERNAL, "5.0.0.1")], [1, 0], id="ext"),
        pytest.param(
            "10.0.0.1", [(EXTERNAL, "10.0.0.1"), (INTERNAL, "10.0.0.1")], [0, 1], id="both types"
        ),
        pytest.param(
            "fd00::1,10.0.0.1", [(INTERNAL, "10.0.0.1"), (INTERNAL, "fd00:0::1")], [1, 0], id="dual"
        ),
        pytest.param(
            "10.0.0.1", [(INTERNAL, "10.0.0.1"), (INTERNAL, "fd00::1")], [0], id="one of dual"
        ),
        pytest.param("10.0.0.1", [(INTERNAL, "10.0.0.1"), (INTERNAL, "10.0.0.1")], [0], id="twice"),
    ],
)
def test_n_06_u_11_addresses_that_the_kubelet_was_told_come_first(provided, known, expected):
    machine = instance(addresses=tuple(InstanceAddress(*one) for one in known))
    got = changes.addresses(node(provided=provided, addresses=[]), machine)
    assert got == tuple(objects.NodeAddress(*known[one]) for one in expected)


@pytest.mark.parametrize("provided", ["10.0.0.9", "10.0.0.1,fd00::9", "nonsense"])
def test_n_06_ip_that_is_not_the_instances_is_refused(provided):
    with pytest.raises(errors.Rejected, match=provided.rpartition(",")[2]):
        changes.addresses(node(provided=provided), instance())


def test_n_11_host_name_of_the_kubelet_stays_if_the_cloud_has_none():
    before = [(INTERNAL, "10.9.9.9"), ("Hostname", "worker")]
    wanted = changes.changes(node(provider_id=OURS, addresses=before), instance())
    assert wanted.status == {
        "addresses": [
            {"type": INTERNAL, "address": "10.0.0.1"},
            {"type": "Hostname", "address": "worker"},
        ]
    }
    assert changes.addresses(node(addresses=before), instance(addresses=())) == ()


def test_n_12_n_13_b_12_unchanged_dual_stack_addresses_are_no_change():
    both = [(INTERNAL, "10.0.0.1"), (INTERNAL, "fd00::1")]
    machine = instance(addresses=tuple(InstanceAddress(*one) for one in both))
    assert changes.changes(node(provider_id=OURS, addresses=both), machine).status == {}
    less = changes.changes(node(provider_id=OURS, addresses=both[:1]), machine)
    assert len(less.status["addresses"]) == 2  # the list whole
