"""Which nodes get traffic (ccm-contract S-36, S-37)."""

from __future__ import annotations

import pytest

from ccm.service import nodes
from tests.unit.ccm import builders


@pytest.mark.parametrize(
    ("node", "drain"),
    [
        pytest.param(builders.node(), False, id="plain"),
        pytest.param(builders.node(is_deleted=True), True, id="being deleted"),
        pytest.param(
            builders.node(taints=("ToBeDeletedByClusterAutoscaler",)), True, id="autoscaler taint"
        ),
        pytest.param(
            builders.node(taints=("node.kubernetes.io/unschedulable",)), False, id="other taint"
        ),
        pytest.param(
            builders.node(labels={"node-role.kubernetes.io/control-plane": ""}),
            False,
            id="control plane",
        ),
    ],
)
def test_s_36_e_05_u_03_nodes_that_take_traffic_or_are_drained(node, drain):
    found = nodes.backend(node)
    assert found is not None
    assert found.drain is drain


def test_ki_03_excluded_node_takes_no_traffic():
    assert nodes.backend(builders.node(labels={nodes.EXCLUDE_LABEL: ""})) is None


@pytest.mark.parametrize("value", ["", "true", "1", "yes", "no", "fALSE", " false"])
def test_s_37_u_03_exclude_label_excludes(value):
    assert nodes.is_excluded(builders.node(labels={nodes.EXCLUDE_LABEL: value}))


@pytest.mark.parametrize("value", ["0", "f", "F", "false", "FALSE", "False"])
def test_s_37_exclude_label_that_go_parses_as_false_does_not_exclude(value):
    assert not nodes.is_excluded(builders.node(labels={nodes.EXCLUDE_LABEL: value}))


def test_backends_are_sorted_and_only_nodes_with_an_address():
    found = nodes.backends(
        [
            builders.node("b", "10.0.0.2"),
            builders.node("a", "10.0.0.1", "fd00::1"),
            builders.node("c", "not an address"),
        ]
    )
    assert [one.name for one in found] == ["a", "b"]


def test_address_is_of_the_first_family_that_the_node_has():
    backend = nodes.Backend("a", ("10.0.0.1", "fd00::1"))
    assert backend.ip_of(("IPv6", "IPv4")) == "fd00::1"
    assert backend.ip_of(("IPv4",)) == "10.0.0.1"
    assert nodes.Backend("b", ("10.0.0.1",)).ip_of(("IPv6",)) is None
