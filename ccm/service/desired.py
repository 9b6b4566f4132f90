"""Service and nodes in, the whole load balancer to ask the cloud for out.

Order of the decisions: can it be served (`_refuse…`, raises Rejected), then the document. Nothing here looks at what exists.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from ccm import errors
from ccm.cloud import documents
from ccm.kube import objects
from ccm.service import annotations as annotations_
from ccm.service import nodes, ownership

OPEN_TO_ALL: Final = ("0.0.0.0/0", "::/0")
HEALTH_INTERVAL_S: Final = 2
KUBE_PROXY_HEALTH_PORT: Final = 10256  # /healthz is 503 on a node that is being drained (KEP-3836)
CLIENT_IP_TIMEOUT_S: Final = 10800  # the API server's default
SUPPORTED_PROTOCOLS: Final = ("TCP", "UDP")


def build(
    service: objects.Service, backends: tuple[nodes.Backend, ...], owner: ownership.Ownership
) -> documents.Document:
    """Return the document to PUT for `service`, with one target group per port.

    Raises: Rejected if the Service can't be served as written.
    """
    _refuse_unsupported(service)
    families = service.spec.ip_families or ("IPv4",)
    affinity = _affinity(service)
    health_check = _health_check(service)
    addressed = [(one.name, one.ip_of(families)) for one in backends]
    groups = tuple(
        documents.TargetGroup(
            name=_port_name(port),
            targets=tuple(
                documents.Target(ip=ip, port=port.node_port, node=name)
                for name, ip in addressed
                if ip
            ),
            affinity=affinity,
            health_check=health_check,
        )
        for port in service.ports
    )
    spec = documents.LoadBalancerSpec(
        addresses=tuple(_address(family, service) for family in families),
        listeners=tuple(
            documents.Listener(_port_name(port), port.protocol.lower(), port.port, _port_name(port))
            for port in service.ports
        ),
        target_groups=groups,
        source_ranges=_source_ranges(service),
    )
    passed_on = annotations_.for_the_cloud(service.annotations)
    return documents.Document(labels=owner.labels(service), spec=spec, annotations=passed_on)


def ingress(
    service: objects.Service, load_balancer: documents.LoadBalancer
) -> tuple[objects.Ingress, ...]:
    """Return what to publish for a load balancer that serves.

    ipMode is Proxy: packets reach the nodes with the node's address as their destination
    (KEP-1860), and traffic from pods has to pass the load balancer too.
    """
    ports = tuple(objects.PortStatus(port.port, port.protocol) for port in service.ports)
    return tuple(
        objects.Ingress(ip=address.ip, ip_mode="Proxy", ports=ports)
        for address in load_balancer.status.addresses
        if address.ip
    )


def has_targets(document: documents.Document) -> bool:
    """Return whether any node takes the traffic."""
    return any(group.targets for group in document.spec.target_groups)


def only_targets_differ(
    observed: documents.LoadBalancerSpec, wanted: documents.LoadBalancerSpec
) -> bool:
    """Return whether changing the set of nodes is all that has to be done."""
    return (
        documents.satisfies(observed.addresses, wanted.addresses)
        and documents.satisfies(observed.listeners, wanted.listeners)
        and documents.satisfies(observed.source_ranges, wanted.source_ranges)
    )


def _refuse_unsupported(service: objects.Service) -> None:
    for port in service.ports:
        if port.protocol not in SUPPORTED_PROTOCOLS:
            raise errors.Rejected(
                "UnsupportedProtocol",
                f"port {port.port}: protocol {port.protocol} is not supported; "
                "use TCP or UDP, or a Service of type NodePort",
            )
        if not port.node_port:
            raise errors.Rejected(
                "NoNodePort",
                f"port {port.port} has no nodePort, and nodes are reached by nodePort; "
                "set spec.allocateLoadBalancerNodePorts to true",
            )
    if service.spec.external_traffic_policy == "Local" and not service.spec.health_check_node_port:
        raise errors.Rejected(
            "NoHealthCheckNodePort",
            "spec.externalTrafficPolicy is Local but spec.healthCheckNodePort is not set, "
            "so nodes without endpoints can't be told apart",
        )


def _port_name(port: objects.ServicePort) -> str:
    # Not the port's own name: renaming a port must not rebuild anything.
    return f"{port.protocol.lower()}-{port.port}"


def _affinity(service: objects.Service) -> documents.Affinity:
    if service.spec.session_affinity != "ClientIP":
        return documents.Affinity()
    config = service.spec.session_affinity_config
    timeout = config.client_ip.timeout_seconds if config and config.client_ip else None
    return documents.Affinity("client_ip", timeout or CLIENT_IP_TIMEOUT_S)


def _health_check(service: objects.Service) -> documents.HealthCheck:
    is_local = service.spec.external_traffic_policy == "Local"
    port = service.spec.health_check_node_port if is_local else KUBE_PROXY_HEALTH_PORT
    return documents.HealthCheck("http", port, "/healthz", HEALTH_INTERVAL_S)


def _address(family: str, service: objects.Service) -> documents.Address:
    asked = service.spec.load_balancer_ip
    is_of_family = bool(asked) and (":" in asked) == (family == "IPv6")
    return documents.Address(family.lower(), ip=asked if is_of_family else None)


def _source_ranges(service: objects.Service) -> tuple[str, ...]:
    field = "spec.loadBalancerSourceRanges"
    written = tuple(part.strip() for part in service.spec.load_balancer_source_ranges or ())
    if not written:
        field = f"annotation {annotations_.SOURCE_RANGES.name}"
        written = annotations_.source_ranges(service.annotations)
    if not written:
        return OPEN_TO_ALL
    try:
        parsed = {ipaddress.ip_network(part, strict=False) for part in written}
    except ValueError as error:
        raise errors.Rejected("InvalidSourceRanges", f"{field}: {error}") from error
    return tuple(sorted(str(network) for network in parsed))
