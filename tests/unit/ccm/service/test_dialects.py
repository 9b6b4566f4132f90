"""Manifests written for other controllers."""

from __future__ import annotations

import pytest

from ccm import errors
from ccm.service import annotations, desired, dialects, nodes
from tests.unit.ccm import builders

A, H = dialects.AWS, dialects.HETZNER
D, O = dialects.DIGITALOCEAN, dialects.OPENSTACK  # noqa: E741 - initials, as in the table's source


def ours(**values):
    return {f"fakecloud.dev/{key.replace('_', '-')}": value for key, value in values.items()}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({f"{A}proxy-protocol": "*"}, ours(proxy_protocol="v1")),
        (
            {f"{A}proxy-protocol": "*", f"{A}type": "nlb"},
            ours(proxy_protocol="v2"),
        ),
        (
            {
                f"{A}target-group-attributes": "preserve_client_ip.enabled=true,"
                "proxy_protocol_v2.enabled=false,deregistration_delay.timeout_seconds=120"
            },
            ours(preserve_client_ip="true", proxy_protocol="none", drain_timeout="120"),
        ),
        ({f"{A}ssl-ports": "443,https"}, ours(tls_ports="443,https")),
        (
            {f"{A}ssl-ports": "443", f"{A}backend-protocol": "http"},
            ours(http_ports="*", https_ports="443"),
        ),
        (
            {f"{A}ssl-negotiation-policy": "ELBSecurityPolicy-TLS13-1-3-2021-06"},
            ours(tls_min_version="1.3"),
        ),
        ({f"{A}additional-resource-tags": "team=web"}, ours(labels="team=web")),
        ({f"{A}connection-draining-enabled": "false"}, ours(drain_timeout="0")),
        ({f"{A}healthcheck-success-codes": "200"}, ours(health_check_status="200")),
        ({f"{A}healthcheck-port": "traffic-port"}, {}),
        (
            {f"{H}type": "lb21", f"{H}algorithm-type": "least_connections"},
            ours(type="lb-m", algorithm="least_connections"),
        ),
        ({f"{H}uses-proxyprotocol": "true"}, ours(proxy_protocol="v2")),
        ({f"{H}uses-proxyprotocol": "false"}, {}),
        (
            {f"{H}protocol": "https", f"{H}http-certificates": "web"},
            ours(https_ports="*", certificates="web"),
        ),
        (
            {f"{H}http-sticky-sessions": "true", f"{H}http-cookie-lifetime": "1200s"},
            ours(sticky_cookie="1200s"),
        ),
        ({f"{H}health-check-interval": "15s"}, ours(health_check_interval="15")),
        ({f"{D}size-unit": "3"}, ours(type="lb-m")),
        (
            {f"{D}allow-rules": "cidr:10.0.0.0/8,ip:192.0.2.7"},
            {annotations.SOURCE_RANGES.name: "10.0.0.0/8,192.0.2.7"},
        ),
        ({f"{D}sticky-sessions-type": "cookies"}, ours(sticky_cookie="300")),
        ({f"{D}http-idle-timeout-seconds": "90"}, ours(idle_timeout="90")),
        ({f"{O}timeout-client-data": "50000"}, ours(idle_timeout="50")),
        ({f"{O}lb-method": "SOURCE_IP"}, ours(algorithm="source_hash")),
        ({f"{O}connection-limit": "-1"}, {}),
        ({f"{O}proxy-protocol": "true"}, ours(proxy_protocol="v1")),
        ({f"{O}enable-health-monitor": "false"}, ours(health_check_protocol="none")),
        (
            {
                "metallb.io/loadBalancerIPs": "10.0.0.9,fd00::9",
                "metallb.universe.tf/address-pool": "edge",
                "metallb.io/allow-shared-ip": "web",
            },
            ours(addresses="10.0.0.9,fd00::9", pool="edge", share="web"),
        ),
    ],
)
def test_what_is_translated(written, expected):
    found = dialects.translate(written)
    assert {k: v for k, v in found.annotations.items() if k not in written} == expected
    assert found.advice == ()


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        (f"{A}security-groups", "sg-1", "loadBalancerSourceRanges"),
        (f"{A}ssl-cert", "arn:aws:acm:eu-west-1:1:certificate/x", "another cloud"),
        (f"{A}healthcheck-success-codes", "200-399", "one status"),
        (f"{A}helthcheck-path", "/", f"{A}healthcheck-path"),
        (f"{H}location", "fsn1", "one place"),
        (f"{H}health-check-interval", "300s", "60 s is used"),
        (f"{H}health-check-protocol", "https", "without TLS"),
        (f"{D}deny-rules", "cidr:10.0.0.0/8", "loadBalancerSourceRanges"),
        (f"{O}flavor-id", "x", "fakecloud.dev/type"),
    ],
)
def test_what_cannot_be_had_is_reported(name, text, word):
    (advice,) = dialects.translate({name: text}).advice
    assert advice.reason == "UnsupportedAnnotation"
    assert name in advice.text
    assert word in advice.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (f"{A}proxy-protocol", "v2"),
        (f"{A}connection-idle-timeout", "long"),
        (f"{H}type", "lb99"),
        (f"{D}size-unit", "0"),
        (f"{O}connection-limit", "many"),
        ("metallb.io/loadBalancerIPs", "web"),
    ],
)
def test_a_value_that_their_own_controller_refuses_is_refused_under_its_name(name, text):
    with pytest.raises(errors.Rejected, match=name.replace(".", r"\.")):
        dialects.translate({name: text})


def test_ours_win():
    written = {f"{H}algorithm-type": "round_robin", **ours(algorithm="source_hash")}
    found = dialects.translate(written).annotations
    assert found["fakecloud.dev/algorithm"] == "source_hash"


def test_every_row_says_what_becomes_of_it_and_its_target_exists():
    known = {one.name for one in annotations.TABLE}
    for row in dialects.TABLE:
        assert row.becomes, row.name
        if row.becomes.startswith("fakecloud.dev/"):
            names = [one.split(":")[0] for one in row.becomes.split(", ")]
            assert set(names) <= known, row.name


def test_a_production_manifest_runs_unchanged():
    """The example of the Hetzner controller's documentation, in spirit."""
    service = builders.service(
        ports=(builders.port(80, name="http"), builders.port(443, name="https")),
        annotations={
            f"{H}location": "fsn1",
            f"{H}name": "ingress",
            f"{H}use-private-ip": "true",
            f"{H}uses-proxyprotocol": "true",
            f"{H}hostname": "ingress.example.com",
        },
    )
    found = desired.build(service, (nodes.Backend("node-1", ("10.0.0.1",)),), builders.ownership())
    assert found.hostname == "ingress.example.com"
    assert {one.send_proxy_protocol for one in found.document.spec.target_groups} == {"v2"}
    assert len(found.advice) == 2
