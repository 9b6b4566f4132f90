"""Service and nodes in, document out."""

from __future__ import annotations

import msgspec
import pytest

from ccm import errors
from ccm.cloud import documents
from ccm.kube import objects
from ccm.service import desired, endpoints, nodes
from tests.unit.ccm import builders

NODES = (
    nodes.Backend("node-1", ("10.0.0.1", "fd00::1")),
    nodes.Backend("node-2", ("10.0.0.2", "fd00::2")),
)


def plan(service, backends=NODES, pods=None):
    return desired.build(service, backends, builders.ownership(), pods)


def build(service, backends=NODES, pods=None):
    return plan(service, backends, pods).document


def test_faults_asked_for_on_the_service_are_passed_on():
    asked = {"chaos.fakecloud.dev/provision": "delay=90s", "team": "a"}
    found = build(builders.service(annotations=asked)).annotations
    assert found == {"chaos.fakecloud.dev/provision": "delay=90s"}


def test_s_53_document_on_the_wire():
    """The whole body of the PUT for a plain Service: every field, so that equal is in sync."""
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
            "type": "lb-s",
            "addresses": [{"family": "ipv4", "ip": None, "pool": "default"}],
            "admin_up": True,
            "deletion_protection": False,
            "listeners": [
                {
                    "name": "tcp-80",
                    "protocol": "tcp",
                    "port": 80,
                    "target_group": "tcp-80",
                    "idle_timeout_s": 350,
                    "max_connections": None,
                    "accept_proxy_protocol": False,
                    "tls": None,
                    "routes": [],
                    "redirect_https": False,
                }
            ],
            "target_groups": [
                {
                    "name": "tcp-80",
                    "algorithm": "round_robin",
                    "affinity": {"kind": "none", "timeout_s": 10800},
                    "send_proxy_protocol": "none",
                    "weights_from": "none",
                    "connect_timeout_s": 2,
                    "drain_timeout_s": 300,
                    "fail_open": False,
                    "preserve_client_ip": False,
                    "health_check": {
                        "protocol": "http",
                        "port": 10256,
                        "path": "/healthz",
                        "interval_s": 2,
                        "timeout_s": 2,
                        "rise": 2,
                        "fall": 2,
                        "expected_status": 200,
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


def test_a_09_e_02_tcp_and_udp_on_one_port_stay_apart():
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


LOCAL = {"external_traffic_policy": "Local", "health_check_node_port": 32000}


def test_s_56_k_01_local_policy_is_checked_at_the_health_check_node_port():
    check = build(builders.service(**LOCAL)).spec.target_groups[0].health_check
    assert check == documents.HealthCheck("http", 32000, "/healthz", 2)


def test_k_04_k_05_cluster_policy_is_checked_at_kube_proxy():
    check = build(builders.service()).spec.target_groups[0].health_check
    assert check == documents.HealthCheck("http", 10256, "/healthz", 2)


def test_b_18_local_policy_weights_nodes_by_their_endpoints():
    assert build(builders.service(**LOCAL)).spec.target_groups[0].weights_from == "health_header"
    assert build(builders.service()).spec.target_groups[0].weights_from == "none"


def test_s_44_local_and_cluster_have_the_same_targets():
    one, other = build(builders.service(**LOCAL)), build(builders.service())
    assert one.spec.target_groups[0].targets == other.spec.target_groups[0].targets


def test_a_11_client_ip_affinity_has_the_timeout_of_the_service():
    config = objects.SessionAffinityConfig(objects.ClientIPConfig(60))
    service = builders.service(session_affinity="ClientIP", session_affinity_config=config)
    assert build(service).spec.target_groups[0].affinity == documents.Affinity("client_ip", 60)


def test_a_13_dual_stack_has_two_addresses_and_targets_of_the_first_family():
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
def test_s_55_b_17_a_10_source_ranges(field, annotation, expected):
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
def test_b_10_e_14_what_cannot_be_served_is_rejected_with_the_field(service, reason, word):
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
def test_s_03_b_26_e_03_which_services_are_wanted(class_, type_, changes, wanted):
    service = builders.service(load_balancer_class=class_, type=type_)
    assert builders.ownership(**changes).wants(service) is wanted


def loaded(*addresses):
    status = documents.CloudStatus(
        addresses=tuple(
            documents.Address("ipv6" if ":" in ip else "ipv4", ip, "default") for ip in addresses
        )
    )
    return documents.LoadBalancer("k8s-u-1", status=status)


def test_e_01_k_07_ki_06_ingress_is_proxied_and_lists_the_ports():
    ingress = desired.ingress(plan(builders.service()), loaded("127.77.0.1"))
    assert ingress == (
        objects.Ingress("127.77.0.1", ip_mode="Proxy", ports=(objects.PortStatus(80, "TCP"),)),
    )


def test_s_52_e_02_refused_port_is_said_in_its_status():
    ports = (builders.port(80), builders.port(132, protocol="SCTP"))
    found = plan(builders.service(ports=ports))
    assert [one.port for one in found.document.spec.listeners] == [80]
    assert desired.ingress(found, loaded("127.77.0.1"))[0].ports == (
        objects.PortStatus(80, "TCP"),
        objects.PortStatus(132, "SCTP", "fakecloud.dev/UnsupportedProtocol"),
    )
    assert "SCTP" in found.advice[0].text


def test_s_32_hostname_is_published_instead_of_addresses():
    service = builders.service(annotations={"fakecloud.dev/hostname": "web.example.com"})
    (entry,) = desired.ingress(plan(service), loaded("127.77.0.1"))
    assert (entry.hostname, entry.ip, entry.ip_mode) == ("web.example.com", "", None)


def test_a_13_address_of_a_family_given_up_is_not_published():
    ingress = desired.ingress(plan(builders.service()), loaded("127.77.0.1", "fd00:77::1"))
    assert [one.ip for one in ingress] == ["127.77.0.1"]


def test_b_31_address_asked_for_and_given_up_are_different_documents():
    asked = build(builders.service(load_balancer_ip="127.77.0.9"))
    assert asked != build(builders.service())
    assert build(builders.service(load_balancer_ip="127.77.0.9")) == asked


def test_annotation_of_addresses_wins_over_the_field():
    service = builders.service(
        load_balancer_ip="127.77.0.9",
        ip_families=("IPv4", "IPv6"),
        annotations={"fakecloud.dev/addresses": "fd00:77::9, 127.77.0.8"},
    )
    assert [one.ip for one in build(service).spec.addresses] == ["127.77.0.8", "fd00:77::9"]


def annotated(ports=None, **annotations):
    named = {f"fakecloud.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return builders.service(annotations=named, ports=ports)


def test_annotations_reach_listeners_and_groups():
    spec = build(
        annotated(
            idle_timeout="10m",
            max_connections="100",
            accept_proxy_protocol="true",
            proxy_protocol="v2",
            algorithm="least_connections",
            connect_timeout="5",
            drain_timeout="0",
            fail_open="true",
            type="lb-m",
            pool="edge",
        )
    ).spec
    assert (spec.type, spec.addresses[0].pool) == ("lb-m", "edge")
    (listener,), (group,) = spec.listeners, spec.target_groups
    assert (listener.idle_timeout_s, listener.max_connections) == (600, 100)
    assert listener.accept_proxy_protocol
    assert (group.send_proxy_protocol, group.algorithm) == ("v2", "least_connections")
    assert (group.connect_timeout_s, group.drain_timeout_s) == (5, 0)
    assert group.fail_open


def test_health_check_can_be_chosen_but_not_with_local_policy():
    chosen = {"health_check_protocol": "tcp", "health_check_interval": "5s"}
    check = build(annotated(**chosen)).spec.target_groups[0].health_check
    assert (check.protocol, check.port, check.interval_s) == ("tcp", None, 5)
    local = builders.service(annotations=annotated(**chosen).metadata.annotations, **LOCAL)
    found = plan(local)
    check = found.document.spec.target_groups[0].health_check
    assert (check.protocol, check.port, check.interval_s) == ("http", 32000, 5)
    assert [one.reason for one in found.advice] == ["AnnotationWithoutEffect"]


WEB = (
    builders.port(80, name="plain"),
    builders.port(443, name="secure"),
    builders.port(53, name="dns", protocol="UDP"),
)


def test_http_and_https_ports_are_named_by_number_or_name():
    spec = build(annotated(WEB, http_ports="80", https_ports="secure", certificates="web")).spec
    assert [one.protocol for one in spec.listeners] == ["http", "https", "udp"]
    assert spec.listeners[1].tls == documents.Tls(("web",), "1.2")


def test_tls_can_end_where_tcp_goes_on():
    (listener, *_) = build(annotated(WEB, tls_ports="80", certificates="web")).spec.listeners
    assert (listener.protocol, listener.tls) == ("tcp", documents.Tls(("web",), "1.2"))


def test_app_protocol_decides_only_when_asked_to():
    ports = (
        objects.ServicePort(80, "a", "TCP", 30080, "http"),
        objects.ServicePort(81, "b", "TCP", 30081, "https"),
        objects.ServicePort(82, "c", "TCP", 30082, "kubernetes.io/h2c"),
    )
    assert {one.protocol for one in build(annotated(ports)).spec.listeners} == {"tcp"}
    asked = build(annotated(ports, use_app_protocol="true", certificates="web"))
    assert [one.protocol for one in asked.spec.listeners] == ["http", "https", "tcp"]


def test_cookies_are_for_http_ports():
    groups = build(annotated(WEB, http_ports="80", sticky_cookie="1h")).spec.target_groups
    assert [one.affinity.kind for one in groups] == ["cookie", "none", "none"]
    assert plan(annotated(sticky_cookie="1h")).advice


def test_proxy_protocol_is_not_for_udp():
    found = plan(annotated(WEB, proxy_protocol="v1"))
    groups = found.document.spec.target_groups
    assert [one.send_proxy_protocol for one in groups] == ["v1", "v1", "none"]
    assert found.advice


def test_node_selector_keeps_other_nodes_out():
    backends = (
        nodes.Backend("a", ("10.0.0.1",), labels={"zone": "x"}),
        nodes.Backend("b", ("10.0.0.2",), labels={"zone": "y"}),
    )
    spec = build(annotated(node_selector="zone=y"), backends).spec
    assert [one.node for one in spec.target_groups[0].targets] == ["b"]


def test_labels_are_for_the_bill_and_never_ours():
    labels = build(annotated(labels="team=web, cluster-uid=stolen")).labels
    assert (labels["team"], labels["cluster-uid"]) == ("web", builders.CLUSTER_UID)


def test_s_39_b_19_node_on_its_way_out_is_drained():
    leaving = builders.node(taints=("ToBeDeletedByClusterAutoscaler",))
    spec = build(builders.service(), nodes.backends([leaving])).spec
    assert [one.drain for one in spec.target_groups[0].targets] == [True]
    assert not desired.has_targets(build(builders.service(), nodes.backends([leaving])))


@pytest.mark.parametrize(
    ("service", "status", "reason"),
    [
        pytest.param(annotated(), "False", "Proxied", id="plain"),
        pytest.param(annotated(proxy_protocol="v1"), "True", "ProxyProtocol", id="header"),
        pytest.param(annotated(http_ports="*"), "True", "ForwardedFor", id="http"),
        pytest.param(annotated(preserve_client_ip="true"), "False", "Masqueraded", id="cluster"),
        pytest.param(
            builders.service(
                annotations={"fakecloud.dev/preserve-client-ip": "true"},
                external_traffic_policy="Local",
                health_check_node_port=32000,
            ),
            "False",
            "NotOffered",
            id="local",
        ),
    ],
)
def test_b_21_what_becomes_of_the_clients_address(service, status, reason):
    found = plan(service).source_ip
    assert (found.status, found.reason) == (status, reason)


def slice_(*endpoints, port=8080, family="IPv4", name=""):
    return objects.EndpointSlice(
        objects.ObjectMeta("web-x", "shop", labels={"kubernetes.io/service-name": "web"}),
        family,
        endpoints,
        (objects.EndpointPort(name, "TCP", port),),
    )


def pod(ip, **conditions):
    return objects.Endpoint((ip,), objects.EndpointConditions(**conditions), "node-1")


NO_NODE_PORTS = builders.service(ports=(builders.port(node_port=0),), allocate_node_ports=False)


def pods(*slices):
    return endpoints.Pods(slices, ("10.244.0.0/16",))


def test_e_04_a_06_pods_are_the_targets_without_node_ports():
    found = build(NO_NODE_PORTS, NODES, pods(slice_(pod("10.244.0.5"), pod("10.244.1.5"))))
    (group,) = found.spec.target_groups
    assert [(one.ip, one.port) for one in group.targets] == [
        ("10.244.0.5", 8080),
        ("10.244.1.5", 8080),
    ]
    assert (group.health_check.protocol, group.health_check.port) == ("tcp", None)


def test_e_07_k_02_terminating_pods_are_drained_and_a_fallback():
    ready = pod("10.244.0.5", ready=True)
    leaving = pod("10.244.0.6", ready=False, serving=True, terminating=True)
    broken = pod("10.244.0.7", ready=False, serving=False)

    def targets(*given):
        (group,) = build(NO_NODE_PORTS, NODES, pods(slice_(*given))).spec.target_groups
        return [(one.ip, one.drain) for one in group.targets]

    assert targets(ready, leaving, broken) == [("10.244.0.5", False), ("10.244.0.6", True)]
    assert targets(leaving, broken) == [("10.244.0.6", False)]


def test_endpoints_of_other_families_and_ports_are_not_targets():
    others = (
        slice_(pod("fd00::5"), family="IPv6"),
        slice_(pod("10.244.0.5"), name="other"),
    )
    assert not desired.has_targets(build(NO_NODE_PORTS, NODES, pods(*others)))


@pytest.mark.parametrize(
    ("service", "given", "reason", "word"),
    [
        pytest.param(
            NO_NODE_PORTS,
            pods(slice_(pod("10.9.0.5"))),
            "PodsUnreachable",
            "--pod-networks",
            id="pod elsewhere",
        ),
        pytest.param(NO_NODE_PORTS, None, "NoNodePort", "--pod-networks", id="no pod networks"),
        pytest.param(
            annotated(ip_mode="VIP", proxy_protocol="v2"),
            None,
            "IpModeConflict",
            "ip-mode",
            id="VIP and header",
        ),
        pytest.param(
            annotated(https_ports="*"), None, "NoCertificate", "certificates", id="no certificate"
        ),
        pytest.param(
            builders.service(load_balancer_ip="fd00::1"),
            None,
            "WrongFamily",
            "ipFamilies",
            id="other family",
        ),
        pytest.param(
            builders.service(load_balancer_ip="web"),
            None,
            "InvalidAddress",
            "loadBalancerIP",
            id="no address",
        ),
        pytest.param(
            annotated(algorithm="roundrobin"),
            None,
            "InvalidAnnotation",
            "did you mean round_robin",
            id="near miss",
        ),
    ],
)
def test_contradictions_are_refused_with_the_remedy(service, given, reason, word):
    with pytest.raises(errors.Rejected, match=word) as caught:
        build(service, NODES, given)
    assert caught.value.reason == reason
