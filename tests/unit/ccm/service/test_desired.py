"""Service and nodes in, document out."""

from __future__ import annotations

import msgspec
import pytest

from ccm import errors
from ccm.cloud import documents
from ccm.kube import objects
from ccm.service import desired, nodes
from tests.unit.ccm import builders

NODES = (
    nodes.Backend("node-1", ("10.0.0.1", "fd00::1")),
    nodes.Backend("node-2", ("10.0.0.2", "fd00::2")),
)


def build(service, backends=NODES):
    return desired.build(service, backends, builders.ownership())


def test_faults_asked_for_on_the_service_are_passed_on():
    asked = {"chaos.fakecloud.dev/provision": "delay=90s", "team": "a"}
    found = build(builders.service(annotations=asked)).annotations
    assert found == {"chaos.fakecloud.dev/provision": "delay=90s"}


def test_document_on_the_wire():
    """The whole body of the PUT for a plain Service, byte for byte in meaning."""
    body = msgspec.json.decode(msgspec.json.encode(build(builders.service(), NODES[:1])))
    assert body == {
        "annotations": {},
        "labels": {
            "cluster": "kind",
            "cluster-uid": builders.CLUSTER_UID,
            "namespace": "shop",
            "service": "web",
            "service-uid": "u-1",
        },
        "spec": {
            "addresses": [{"family": "ipv4", "ip": None}],
            "admin_up": True,
            "listeners": [
                {
                    "name": "tcp-80",
                    "protocol": "tcp",
                    "port": 80,
                    "target_group": "tcp-80",
                    "accept_proxy_protocol": False,
                }
            ],
            "target_groups": [
                {
                    "name": "tcp-80",
                    "algorithm": "round_robin",
                    "affinity": {"kind": "none"},
                    "send_proxy_protocol": "none",
                    "health_check": {
                        "protocol": "http",
                        "port": 10256,
                        "path": "/healthz",
                        "interval_s": 2,
                    },
                    "targets": [
                        {
                            "ip": "10.0.0.1",
                            "port": 30080,
                            "weight": 1,
                            "node": "node-1",
                            "drain": False,
                        }
                    ],
                }
            ],
            "source_ranges": ["0.0.0.0/0", "::/0"],
        },
    }


def test_each_port_has_its_own_group():
    spec = build(builders.service(ports=(builders.port(80), builders.port(443)))).spec
    assert [one.target_group for one in spec.listeners] == ["tcp-80", "tcp-443"]
    assert [[t.port for t in group.targets] for group in spec.target_groups] == [
        [30080, 30080],
        [30443, 30443],
    ]


def test_tcp_and_udp_on_one_port_stay_apart():
    ports = (builders.port(53), builders.port(53, protocol="UDP", node_port=31053))
    spec = build(builders.service(ports=ports)).spec
    assert [(one.name, one.protocol) for one in spec.listeners] == [
        ("tcp-53", "tcp"),
        ("udp-53", "udp"),
    ]


def test_renamed_port_changes_nothing():
    one = build(builders.service(ports=(builders.port(name="a"),)))
    other = build(builders.service(ports=(builders.port(name="b"),)))
    assert one == other


def test_local_policy_is_checked_at_the_health_check_node_port():
    service = builders.service(external_traffic_policy="Local", health_check_node_port=32000)
    check = build(service).spec.target_groups[0].health_check
    assert check == documents.HealthCheck("http", 32000, "/healthz", 2)


def test_client_ip_affinity_has_the_timeout_of_the_service():
    config = objects.SessionAffinityConfig(objects.ClientIPConfig(60))
    service = builders.service(session_affinity="ClientIP", session_affinity_config=config)
    assert build(service).spec.target_groups[0].affinity == documents.Affinity("client_ip", 60)


def test_dual_stack_has_two_addresses_and_targets_of_the_first_family():
    spec = build(builders.service(ip_families=("IPv6", "IPv4"))).spec
    assert [one.family for one in spec.addresses] == ["ipv6", "ipv4"]
    assert [one.ip for one in spec.target_groups[0].targets] == ["fd00::1", "fd00::2"]


def test_asked_address_goes_to_its_family_only():
    service = builders.service(ip_families=("IPv4", "IPv6"), load_balancer_ip="127.77.0.9")
    assert [one.ip for one in build(service).spec.addresses] == ["127.77.0.9", None]


def test_no_nodes_is_a_document_without_targets():
    document = build(builders.service(), ())
    assert not desired.has_targets(document)


@pytest.mark.parametrize(
    ("field", "annotation", "expected"),
    [
        pytest.param(None, None, ("0.0.0.0/0", "::/0"), id="open to both families"),
        pytest.param((" 10.0.0.0/8 ",), None, ("10.0.0.0/8",), id="padded"),
        pytest.param(("10.0.0.7/8",), None, ("10.0.0.0/8",), id="host bits"),
        pytest.param(None, "10.1.0.0/16, 10.2.0.0/16", ("10.1.0.0/16", "10.2.0.0/16"), id="note"),
        pytest.param(("10.0.0.0/8",), "10.1.0.0/16", ("10.0.0.0/8",), id="field wins"),
        pytest.param(("b::/16", "10.0.0.0/8"), None, ("10.0.0.0/8", "b::/16"), id="sorted"),
    ],
)
def test_source_ranges(field, annotation, expected):
    key = "service.beta.kubernetes.io/load-balancer-source-ranges"
    service = builders.service(
        load_balancer_source_ranges=field, annotations={key: annotation} if annotation else None
    )
    assert build(service).spec.source_ranges == expected


@pytest.mark.parametrize(
    ("service", "reason", "word"),
    [
        pytest.param(
            builders.service(ports=(builders.port(protocol="SCTP"),)),
            "UnsupportedProtocol",
            "SCTP",
            id="sctp",
        ),
        pytest.param(
            builders.service(ports=(builders.port(node_port=0),)),
            "NoNodePort",
            "allocateLoadBalancerNodePorts",
            id="no nodePort",
        ),
        pytest.param(
            builders.service(external_traffic_policy="Local"),
            "NoHealthCheckNodePort",
            "healthCheckNodePort",
            id="no health check port",
        ),
        pytest.param(
            builders.service(load_balancer_source_ranges=("10.0.0.0/33",)),
            "InvalidSourceRanges",
            "spec.loadBalancerSourceRanges",
            id="bad range",
        ),
    ],
)
def test_what_cannot_be_served_is_rejected_with_the_field(service, reason, word):
    with pytest.raises(errors.Rejected, match=word) as caught:
        build(service)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("class_", "type_", "changes", "wanted"),
    [
        pytest.param(None, "LoadBalancer", {}, True, id="unclassed"),
        pytest.param(None, "LoadBalancer", {"handle_unclassed": False}, False, id="not handled"),
        pytest.param("fakecloud.dev/haproxy", "LoadBalancer", {}, True, id="ours"),
        pytest.param("example.com/x", "LoadBalancer", {}, False, id="foreign"),
        pytest.param(None, "ClusterIP", {}, False, id="other type"),
    ],
)
def test_which_services_are_wanted(class_, type_, changes, wanted):
    service = builders.service(load_balancer_class=class_, type=type_)
    assert builders.ownership(**changes).wants(service) is wanted


def test_ingress_is_proxied_and_lists_the_ports():
    status = documents.CloudStatus(addresses=(documents.Address("ipv4", "127.77.0.1", "default"),))
    ingress = desired.ingress(builders.service(), documents.LoadBalancer("k8s-u-1", status=status))
    assert ingress == (
        objects.Ingress("127.77.0.1", ip_mode="Proxy", ports=(objects.PortStatus(80, "TCP"),)),
    )


def test_values_that_the_cloud_fills_in_are_no_difference():
    wanted = build(builders.service()).spec
    body = msgspec.json.decode(msgspec.json.encode(wanted))
    body["addresses"][0] |= {"pool": "default"}
    body["target_groups"][0]["affinity"]["timeout_s"] = 10800
    body["target_groups"][0]["connect_timeout_s"] = 2
    observed = msgspec.convert(body, documents.LoadBalancerSpec)
    assert documents.satisfies(observed, wanted)
    body["target_groups"][0]["targets"][0]["weight"] = 7
    assert not documents.satisfies(msgspec.convert(body, documents.LoadBalancerSpec), wanted)
