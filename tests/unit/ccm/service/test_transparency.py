"""When targets see the client's own address, and what is said when they can't."""

from __future__ import annotations

import pytest

from ccm.kube import objects
from ccm.service import desired, nodes
from tests.unit.ccm import builders

NODES = (nodes.Backend("node-1", ("10.0.0.1",)),)
LOCAL = {"external_traffic_policy": "Local", "health_check_node_port": 32000}
UDP = objects.ServicePort(name="dns", protocol="UDP", port=53, node_port=30053)
HTTP = objects.ServicePort(name="http", protocol="TCP", port=80, node_port=30080)
ASKED = {"fakecloud.dev/preserve-client-ip": "true"}


def plan(service, *, transparent=True):
    return desired.build(service, NODES, builders.ownership(), transparent=transparent)


def shown(found):
    return [group.preserve_client_ip for group in found.document.spec.target_groups]


def service(annotations=None, **fields):
    return builders.service(annotations=annotations, **{**LOCAL, **fields})


def test_local_policy_is_enough_where_it_is_offered():
    found = plan(service())
    assert shown(found) == [True]
    assert found.ip_mode == "VIP", "traffic of nodes and pods must not come to the load balancer"
    assert (found.source_ip.status, found.source_ip.reason) == ("True", "Transparent")


@pytest.mark.parametrize(
    "service",
    [
        service({"fakecloud.dev/preserve-client-ip": "false"}),
        service(external_traffic_policy="Cluster"),
        service(ip_families=("IPv4", "IPv6")),
        service({"fakecloud.dev/proxy-protocol": "v2"}),
        service({"fakecloud.dev/ip-mode": "Proxy"}),
        service({"fakecloud.dev/hostname": "web.example.com"}),
        service(ports=(UDP,)),
    ],
    ids=["not wanted", "cluster", "dual-stack", "header", "ip mode", "hostname", "udp"],
)
def test_otherwise_nothing_changes(service):
    assert plan(service) == plan(service, transparent=False)


@pytest.mark.parametrize(
    ("service", "transparent", "reason"),
    [
        (service(ASKED), False, "NotOffered"),
        (service(ASKED, external_traffic_policy="Cluster"), True, "Masqueraded"),
        (service(ASKED, ip_families=("IPv4", "IPv6")), True, "TwoFamilies"),
        (service(ASKED, ports=(UDP,)), True, "NotOffered"),
        (service({**ASKED, "fakecloud.dev/ip-mode": "Proxy"}), True, "IpModeConflict"),
    ],
    ids=["not offered", "cluster", "dual-stack", "udp", "ip mode"],
)
def test_who_asks_is_told_why_not_and_served_without(service, transparent, reason):
    found = plan(service, transparent=transparent)
    assert not any(shown(found))
    assert found.ip_mode == "Proxy"
    assert (found.source_ip.status, found.source_ip.reason) == ("False", reason)


def test_udp_ports_beside_are_served_as_ever():
    found = plan(service(ports=(HTTP, UDP)))
    assert shown(found) == [True, False]
    assert "datagrams from the load balancer's" in found.source_ip.message
