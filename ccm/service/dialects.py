"""Annotations of other controllers in terms of ours, so that manifests run unchanged.

Read from the sources of cloud-provider-aws and aws-load-balancer-controller, hcloud and
digitalocean cloud controller managers, cloud-provider-openstack and MetalLB (2026). Ours win over
theirs; what can't be had here is said in an Event, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ccm import errors
from ccm.service import annotations as ours
from ccm.service import conversions, values

AWS: Final = conversions.AWS
HETZNER: Final = "load-balancer.hetzner.cloud/"
DIGITALOCEAN: Final = "service.beta.kubernetes.io/do-loadbalancer-"
OPENSTACK: Final = "loadbalancer.openstack.org/"
METALLB: Final = ("metallb.io/", "metallb.universe.tf/")
PREFIXES: Final = (AWS, HETZNER, DIGITALOCEAN, OPENSTACK, *METALLB)


@dataclass(frozen=True, slots=True)
class Foreign:
    """A row of the table. becomes: for the reference; "" if it needs nothing here."""

    name: str
    becomes: str
    convert: conversions.Convert


@dataclass(frozen=True, slots=True)
class Translated:
    """All annotations in terms of ours, and what couldn't be translated."""

    annotations: Mapping[str, str]
    advice: tuple[ours.Advice, ...] = ()


def translate(written: Mapping[str, str]) -> Translated:
    """Return `written` with the annotations of others translated.

    Raises: Rejected for a value that its own controller wouldn't take either.
    """
    result: dict[str, str] = {}
    advice: list[ours.Advice] = []
    for name, text in sorted(written.items()):
        if not name.startswith(PREFIXES):
            continue
        row = _TABLE.get(name)
        if row is None:
            advice.append(_unknown(name))
            continue
        reading = conversions.Reading(text.strip(), written, [])
        result |= _converted(row, reading)
        advice += [
            ours.Advice("UnsupportedAnnotation", f"annotation {name}: {note}")
            for note in reading.notes
        ]
    return Translated({**result, **written}, tuple(advice))


def _converted(row: Foreign, reading: conversions.Reading) -> dict[str, str]:
    try:
        found = row.convert(reading)
        for name, text in found.items():
            _KINDS[name].read(text)
    except ValueError as error:
        raise errors.Rejected(
            "InvalidAnnotation", f"annotation {row.name} must be {error}, not {reading.text!r}"
        ) from error
    return found


def _unknown(name: str) -> ours.Advice:
    prefix = next(one for one in PREFIXES if name.startswith(one))
    known = [one.removeprefix(prefix) for one in _TABLE if one.startswith(prefix)]
    meant = values.nearest(name.removeprefix(prefix), known)
    hint = f"; did you mean {prefix}{meant}?" if meant else ""
    text = f"annotation {name} is not understood and has no effect{hint}"
    return ours.Advice("UnsupportedAnnotation", text)


_ONE_PLACE: Final = conversions.unsupported("there is one place")
_ONE_NETWORK: Final = conversions.unsupported("the address pool decides about the network")
_ALGORITHMS: Final = {one: one for one in ("round_robin", "least_connections")}
_NOT_HERE: Final = conversions.unsupported("the cloud has no such feature")

_ROWS: Final[dict[str, dict[str, tuple[str, conversions.Convert]]]] = {
    AWS: {
        "type": conversions.granted("every load balancer does layer 4 and 7"),
        "scheme": _ONE_NETWORK,
        "internal": _ONE_NETWORK,
        "nlb-target-type": conversions.granted("targets follow allocateLoadBalancerNodePorts"),
        "subnets": _ONE_PLACE,
        "name": conversions.unsupported("names come from the Service's UID"),
        "cross-zone-load-balancing-enabled": conversions.granted("there is one zone"),
        "ip-address-type": conversions.granted("spec.ipFamilies decides"),
        "backend-protocol": (ours.HTTP_PORTS.name, conversions.aws_backend),
        "ssl-cert": (ours.CERTIFICATES.name, conversions.certificates),
        "ssl-ports": (
            f"{ours.TLS_PORTS.name}, {ours.HTTPS_PORTS.name}",
            conversions.aws_ssl_ports,
        ),
        "ssl-negotiation-policy": (
            ours.TLS_MIN_VERSION.name,
            lambda it: {ours.TLS_MIN_VERSION.name: "1.3" if "TLS13-1-3" in it.text else "1.2"},
        ),
        "proxy-protocol": (ours.PROXY_PROTOCOL.name, conversions.aws_proxy_protocol),
        "connection-idle-timeout": conversions.seconds(ours.IDLE_TIMEOUT),
        "connection-draining-enabled": (ours.DRAIN_TIMEOUT.name, conversions.aws_draining),
        "connection-draining-timeout": conversions.seconds(ours.DRAIN_TIMEOUT),
        "target-group-attributes": (
            f"{ours.PRESERVE_CLIENT_IP.name}, {ours.PROXY_PROTOCOL.name}, "
            f"{ours.DRAIN_TIMEOUT.name}",
            conversions.aws_attributes,
        ),
        "healthcheck-protocol": (ours.HEALTH_PROTOCOL.name, conversions.health_protocol),
        "healthcheck-port": (ours.HEALTH_PORT.name, conversions.health_port),
        "healthcheck-path": conversions.same(ours.HEALTH_PATH),
        "healthcheck-interval": conversions.seconds(ours.HEALTH_INTERVAL),
        "healthcheck-timeout": conversions.seconds(ours.HEALTH_TIMEOUT),
        "healthcheck-healthy-threshold": conversions.count(ours.HEALTH_RISE),
        "healthcheck-unhealthy-threshold": conversions.count(ours.HEALTH_FALL),
        "healthcheck-success-codes": (ours.HEALTH_STATUS.name, conversions.status),
        "additional-resource-tags": conversions.same(ours.LABELS),
        "target-node-labels": conversions.same(ours.NODE_SELECTOR),
        "private-ipv4-addresses": conversions.same(ours.ADDRESSES),
        "eip-allocations": conversions.unsupported(f"name the address in {ours.ADDRESSES.name}"),
        "security-groups": conversions.unsupported("use spec.loadBalancerSourceRanges"),
        "extra-security-groups": conversions.unsupported("use spec.loadBalancerSourceRanges"),
        "manage-backend-security-group-rules": conversions.granted("there are no security groups"),
        "attributes": _NOT_HERE,
        "access-log-enabled": conversions.unsupported("logs are read from the cloud's API"),
        "access-log-emit-interval": _NOT_HERE,
        "access-log-s3-bucket-name": _NOT_HERE,
        "access-log-s3-bucket-prefix": _NOT_HERE,
    },
    HETZNER: {
        "name": conversions.unsupported("names come from the Service's UID"),
        "type": conversions.mapped(ours.TYPE, {"lb11": "lb-s", "lb21": "lb-m", "lb31": "lb-l"}),
        "location": _ONE_PLACE,
        "network-zone": _ONE_PLACE,
        "hostname": conversions.same(ours.HOSTNAME),
        "node-selector": conversions.same(ours.NODE_SELECTOR),
        "uses-proxyprotocol": conversions.when_true(ours.PROXY_PROTOCOL, "v2"),
        "algorithm-type": conversions.mapped(ours.ALGORITHM, _ALGORITHMS),
        "protocol": (f"{ours.HTTP_PORTS.name}, {ours.HTTPS_PORTS.name}", conversions.protocol),
        "http-certificates": (ours.CERTIFICATES.name, conversions.certificates),
        "certificate-type": conversions.granted("certificates are uploaded"),
        "http-managed-certificate-name": _NOT_HERE,
        "http-managed-certificate-domains": _NOT_HERE,
        "http-redirect-http": conversions.same(ours.REDIRECT_HTTPS),
        "http-sticky-sessions": (
            ours.STICKY_COOKIE.name,
            conversions.cookie(f"{HETZNER}http-cookie-lifetime", "300", "true"),
        ),
        "http-cookie-lifetime": conversions.read_elsewhere("http-sticky-sessions"),
        "http-cookie-name": conversions.unsupported("the cookie's name is fixed"),
        "http-timeout-idle": conversions.seconds(ours.IDLE_TIMEOUT),
        "health-check-protocol": (ours.HEALTH_PROTOCOL.name, conversions.health_protocol),
        "health-check-port": conversions.same(ours.HEALTH_PORT),
        "health-check-interval": conversions.seconds(ours.HEALTH_INTERVAL),
        "health-check-timeout": conversions.seconds(ours.HEALTH_TIMEOUT),
        "health-check-retries": conversions.count(ours.HEALTH_FALL),
        "health-check-http-path": conversions.same(ours.HEALTH_PATH),
        "health-check-http-domain": _NOT_HERE,
        "health-check-http-validate-certificate": _NOT_HERE,
        "http-status-codes": (ours.HEALTH_STATUS.name, conversions.status),
        "private-ipv4": conversions.same(ours.ADDRESSES),
        "private-subnet-ip-range": _ONE_NETWORK,
        "disable-public-network": _ONE_NETWORK,
        "disable-private-ingress": _ONE_NETWORK,
        "use-private-ip": conversions.granted("nodes are reached by their InternalIP"),
        "ipv6-disabled": conversions.granted("spec.ipFamilies decides"),
        "ipv4-rdns": _NOT_HERE,
        "ipv6-rdns": _NOT_HERE,
    },
    DIGITALOCEAN: {
        "name": conversions.unsupported("names come from the Service's UID"),
        "type": conversions.granted("every load balancer does layer 4 and 7"),
        "size-slug": conversions.mapped(
            ours.TYPE, {"lb-small": "lb-s", "lb-medium": "lb-m", "lb-large": "lb-l"}
        ),
        "size-unit": (ours.TYPE.name, conversions.do_size),
        "protocol": (f"{ours.HTTP_PORTS.name}, {ours.HTTPS_PORTS.name}", conversions.protocol),
        "http-ports": conversions.same(ours.HTTP_PORTS),
        "tls-ports": conversions.same(ours.HTTPS_PORTS),
        "http2-ports": conversions.same(ours.HTTPS_PORTS),
        "http3-port": _NOT_HERE,
        "tls-passthrough": conversions.granted(
            "ports that no certificate is for are passed through"
        ),
        "certificate-id": (ours.CERTIFICATES.name, conversions.certificates),
        "certificate-name": (ours.CERTIFICATES.name, conversions.certificates),
        "redirect-http-to-https": conversions.same(ours.REDIRECT_HTTPS),
        "sticky-sessions-type": (
            ours.STICKY_COOKIE.name,
            conversions.cookie(f"{DIGITALOCEAN}sticky-sessions-cookie-ttl", "300", "cookies"),
        ),
        "sticky-sessions-cookie-ttl": conversions.read_elsewhere("sticky-sessions-type"),
        "sticky-sessions-cookie-name": conversions.unsupported("the cookie's name is fixed"),
        "algorithm": conversions.mapped(ours.ALGORITHM, _ALGORITHMS),
        "enable-proxy-protocol": conversions.when_true(ours.PROXY_PROTOCOL, "v1"),
        "hostname": conversions.same(ours.HOSTNAME),
        "http-idle-timeout-seconds": conversions.seconds(ours.IDLE_TIMEOUT),
        "healthcheck-protocol": (ours.HEALTH_PROTOCOL.name, conversions.health_protocol),
        "healthcheck-port": conversions.same(ours.HEALTH_PORT),
        "healthcheck-path": conversions.same(ours.HEALTH_PATH),
        "healthcheck-check-interval-seconds": conversions.seconds(ours.HEALTH_INTERVAL),
        "healthcheck-response-timeout-seconds": conversions.seconds(ours.HEALTH_TIMEOUT),
        "healthcheck-healthy-threshold": conversions.count(ours.HEALTH_RISE),
        "healthcheck-unhealthy-threshold": conversions.count(ours.HEALTH_FALL),
        "override-health-check": conversions.granted("what is set is used"),
        "allow-rules": (ours.SOURCE_RANGES.name, conversions.do_allow),
        "deny-rules": conversions.unsupported(
            "use spec.loadBalancerSourceRanges to say who may connect"
        ),
        "ip": conversions.same(ours.ADDRESSES),
        "network": _ONE_NETWORK,
        "network-stack": conversions.granted("spec.ipFamilies decides"),
        "subnet-uuid": _ONE_NETWORK,
        "enable-backend-keepalive": _NOT_HERE,
    },
    OPENSTACK: {
        "proxy-protocol": conversions.mapped(
            ours.PROXY_PROTOCOL, {"true": "v1", "false": "none", "v1": "v1", "v2": "v2"}
        ),
        "hostname": conversions.same(ours.HOSTNAME),
        "node-selector": conversions.same(ours.NODE_SELECTOR),
        "lb-method": conversions.mapped(
            ours.ALGORITHM,
            {
                "ROUND_ROBIN": "round_robin",
                "LEAST_CONNECTIONS": "least_connections",
                "SOURCE_IP": "source_hash",
            },
        ),
        "timeout-client-data": conversions.seconds(ours.IDLE_TIMEOUT, per_second=1000),
        "timeout-member-connect": conversions.seconds(ours.CONNECT_TIMEOUT, per_second=1000),
        "timeout-member-data": conversions.granted("one idle timeout for both sides"),
        "timeout-tcp-inspect": _NOT_HERE,
        "connection-limit": (ours.MAX_CONNECTIONS.name, conversions.openstack_limit),
        "enable-health-monitor": (ours.HEALTH_PROTOCOL.name, conversions.openstack_monitor),
        "health-monitor-delay": conversions.seconds(ours.HEALTH_INTERVAL),
        "health-monitor-timeout": conversions.seconds(ours.HEALTH_TIMEOUT),
        "health-monitor-max-retries": conversions.count(ours.HEALTH_RISE),
        "health-monitor-max-retries-down": conversions.count(ours.HEALTH_FALL),
        "x-forwarded-for": conversions.when_true(ours.HTTP_PORTS, "*"),
        "default-tls-container-ref": (ours.CERTIFICATES.name, conversions.certificates),
        "load-balancer-id": conversions.unsupported(f"use {ours.SHARE.name} to share one"),
        "class": conversions.unsupported(f"use {ours.POOL.name} and {ours.TYPE.name}"),
        "flavor-id": conversions.unsupported(f"use {ours.TYPE.name}"),
        "availability-zone": _ONE_PLACE,
        "keep-floatingip": conversions.unsupported("an address goes back to its pool"),
        "floating-network-id": _ONE_NETWORK,
        "floating-subnet": _ONE_NETWORK,
        "floating-subnet-id": _ONE_NETWORK,
        "floating-subnet-tags": _ONE_NETWORK,
        "subnet-id": _ONE_NETWORK,
        "network-id": _ONE_NETWORK,
        "member-subnet-id": _ONE_NETWORK,
        "port-id": _ONE_NETWORK,
    },
    **{
        prefix: {
            "loadBalancerIPs": conversions.same(ours.ADDRESSES),
            "address-pool": conversions.same(ours.POOL),
            "allow-shared-ip": conversions.same(ours.SHARE),
        }
        for prefix in METALLB
    },
}

TABLE: Final = tuple(
    Foreign(prefix + name, becomes, convert)
    for prefix, rows in _ROWS.items()
    for name, (becomes, convert) in rows.items()
)
_TABLE: Final = {one.name: one for one in TABLE}
_KINDS: Final = {one.name: one.kind for one in ours.TABLE}
