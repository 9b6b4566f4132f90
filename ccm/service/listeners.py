"""The ports of a Service as listeners and target groups: protocol, TLS, affinity, health."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ccm import errors
from ccm.cloud import documents
from ccm.kube import objects
from ccm.service import annotations as annotations_

KUBE_PROXY_HEALTH_PORT: Final = 10256  # /healthz is 503 on a node that is being drained (KEP-3836)
HEALTH_PATH: Final = "/healthz"
CLIENT_IP_TIMEOUT_S: Final = 10800  # the API server's default
_NAMED: Final = (
    ("https", annotations_.HTTPS_PORTS),
    ("http", annotations_.HTTP_PORTS),
    ("tls", annotations_.TLS_PORTS),
)
_WITH_TLS: Final = frozenset({"https", "tls"})
_HTTP_PROTOCOLS: Final = frozenset({"http", "kubernetes.io/ws"})
_HTTPS_PROTOCOLS: Final = frozenset({"https", "kubernetes.io/wss"})


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that are served, each with its protocol: tcp, udp, http, https or tls.

    tls: a TCP listener where TLS ends. transparent: targets see the client's address, over TCP.
    """

    service: objects.Service
    wishes: annotations_.Wishes
    protocols: tuple[tuple[objects.ServicePort, str], ...]
    transparent: bool = False

    @property
    def has_http(self) -> bool:
        """Return whether any port is served as HTTP."""
        return any(protocol.startswith("http") for _, protocol in self.protocols)

    @property
    def has_udp(self) -> bool:
        """Return whether any port is served as UDP."""
        return any(protocol == "udp" for _, protocol in self.protocols)

    @property
    def is_all_http(self) -> bool:
        """Return whether every port is served as HTTP."""
        return all(protocol.startswith("http") for _, protocol in self.protocols)


def name_of(port: objects.ServicePort) -> str:
    """Return the name of a port's listener; not the port's own: a new name changes nothing."""
    return f"{port.protocol.lower()}-{port.port}"


def sort(
    service: objects.Service,
    wishes: annotations_.Wishes,
    served: Iterable[objects.ServicePort],
    *,
    transparent: bool,
) -> Ports:
    """Return `served` with the protocols that annotations and appProtocol give them.

    Raises: Rejected if TLS is asked for without a certificate.
    """
    protocols = tuple((port, _protocol(port, wishes)) for port in served)
    ports = Ports(service, wishes, protocols, transparent)
    if any(protocol in _WITH_TLS for _, protocol in protocols) and not wishes.get(
        annotations_.CERTIFICATES
    ):
        raise errors.Rejected(
            "NoCertificate",
            "TLS can't end at the load balancer without a certificate; name one of the cloud's "
            f"in {annotations_.CERTIFICATES.name}",
        )
    return ports


def listener(ports: Ports, port: objects.ServicePort, protocol: str) -> documents.Listener:
    """Return the listener of one port."""
    wishes = ports.wishes
    tls = None
    if protocol in _WITH_TLS:
        tls = documents.Tls(
            wishes.get(annotations_.CERTIFICATES), wishes.get(annotations_.TLS_MIN_VERSION)
        )
    return documents.Listener(
        name_of(port),
        "tcp" if protocol == "tls" else protocol,
        port.port,
        name_of(port),
        idle_timeout_s=wishes.get(annotations_.IDLE_TIMEOUT),
        max_connections=wishes.get(annotations_.MAX_CONNECTIONS),
        accept_proxy_protocol=protocol != "udp" and wishes.get(annotations_.ACCEPT_PROXY_PROTOCOL),
        tls=tls,
        redirect_https=protocol == "http" and wishes.get(annotations_.REDIRECT_HTTPS),
    )


def target_group(
    ports: Ports,
    port: objects.ServicePort,
    protocol: str,
    targets: tuple[documents.Target, ...],
    *,
    are_pods: bool,
) -> documents.TargetGroup:
    """Return the target group of one port. are_pods: targets are pods, not nodes."""
    wishes = ports.wishes
    is_local = ports.service.spec.external_traffic_policy == "Local" and not are_pods
    return documents.TargetGroup(
        name_of(port),
        targets,
        algorithm=wishes.get(annotations_.ALGORITHM),
        affinity=_affinity(ports, protocol),
        send_proxy_protocol="none"
        if protocol == "udp"
        else wishes.get(annotations_.PROXY_PROTOCOL),
        weights_from="health_header" if is_local else "none",
        connect_timeout_s=wishes.get(annotations_.CONNECT_TIMEOUT),
        drain_timeout_s=wishes.get(annotations_.DRAIN_TIMEOUT),
        fail_open=wishes.get(annotations_.FAIL_OPEN),
        preserve_client_ip=ports.transparent and protocol != "udp",
        health_check=_health_check(ports, are_pods=are_pods),
    )


def _protocol(port: objects.ServicePort, wishes: annotations_.Wishes) -> str:
    if port.protocol != "TCP":
        return port.protocol.lower()
    for protocol, ports in _NAMED:
        if _is_named(port, wishes.get(ports)):
            return protocol
    if wishes.get(annotations_.APP_PROTOCOL):
        if port.app_protocol in _HTTPS_PROTOCOLS:
            return "https"
        if port.app_protocol in _HTTP_PROTOCOLS:
            return "http"
    return "tcp"


def _is_named(port: objects.ServicePort, names: tuple[str, ...]) -> bool:
    return any(one in ("*", str(port.port), port.name) for one in names)


def _affinity(ports: Ports, protocol: str) -> documents.Affinity:
    cookie_s = ports.wishes.get(annotations_.STICKY_COOKIE)
    if cookie_s is not None and protocol.startswith("http"):
        return documents.Affinity("cookie", cookie_s)
    spec = ports.service.spec
    if spec.session_affinity != "ClientIP":
        return documents.Affinity()
    config = spec.session_affinity_config
    timeout = config.client_ip.timeout_seconds if config and config.client_ip else None
    return documents.Affinity("client_ip", timeout or CLIENT_IP_TIMEOUT_S)


def _health_check(ports: Ports, *, are_pods: bool) -> documents.HealthCheck:
    wishes, spec = ports.wishes, ports.service.spec
    protocol = wishes.get(annotations_.HEALTH_PROTOCOL)
    port = wishes.get(annotations_.HEALTH_PORT)
    path = wishes.get(annotations_.HEALTH_PATH)
    if spec.external_traffic_policy == "Local" and not are_pods:
        protocol, port, path = "http", spec.health_check_node_port, HEALTH_PATH
    elif protocol is None:
        protocol = "tcp" if are_pods and path is None else "http"
    if protocol == "http" and port is None and not are_pods:
        port = KUBE_PROXY_HEALTH_PORT
    return documents.HealthCheck(
        protocol,
        port,
        (path or HEALTH_PATH) if protocol == "http" else "/",
        interval_s=wishes.get(annotations_.HEALTH_INTERVAL),
        timeout_s=wishes.get(annotations_.HEALTH_TIMEOUT),
        rise=wishes.get(annotations_.HEALTH_RISE),
        fall=wishes.get(annotations_.HEALTH_FALL),
        expected_status=wishes.get(annotations_.HEALTH_STATUS),
    )
