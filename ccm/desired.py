"""Service and nodes in, the whole load balancer to ask the cloud for out.

Order of the decisions: is it ours (`Ownership`), can it be served (`_refuse…`, raises Rejected),
then the document. Nothing here looks at what exists.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from ccm import annotations as annotations_
from ccm import errors, model, nodes

OPEN_TO_ALL: Final = ("0.0.0.0/0", "::/0")
HEALTH_INTERVAL_S: Final = 2
KUBE_PROXY_HEALTH_PORT: Final = 10256  # /healthz is 503 on a node that is being drained (KEP-3836)
CLIENT_IP_TIMEOUT_S: Final = 10800  # the API server's default
SUPPORTED_PROTOCOLS: Final = ("TCP", "UDP")


@dataclass(frozen=True, slots=True)
class Ownership:
    """Which Services are ours, and how their load balancers are marked in the cloud.

    cluster_uid: UID of the kube-system namespace; names of clusters repeat.
    """

    cluster_name: str
    cluster_uid: str
    classes: tuple[str, ...]
    handle_unclassed: bool

    def class_is_ours(self, service: model.Service) -> bool:
        """Return whether the Service's class, or the lack of one, is ours to serve."""
        wanted = service.spec.load_balancer_class
        return self.handle_unclassed if wanted is None else wanted in self.classes

    def wants(self, service: model.Service) -> bool:
        """Return whether the Service should have a load balancer of ours."""
        return (
            service.spec.type == "LoadBalancer"
            and service.metadata.deletion_timestamp is None
            and self.class_is_ours(service)
        )

    def owns(self, load_balancer: model.LoadBalancer) -> bool:
        """Return whether this cluster made `load_balancer`."""
        return load_balancer.labels.get("cluster-uid") == self.cluster_uid

    def labels(self, service: model.Service) -> dict[str, str]:
        """Return the labels that mark a load balancer as belonging to `service`."""
        return {
            "cluster": self.cluster_name,
            "cluster-uid": self.cluster_uid,
            "namespace": service.metadata.namespace,
            "service": service.metadata.name,
            "service-uid": service.metadata.uid,
        }


def load_balancer_name(service_uid: str) -> str:
    """Return the load balancer's name: from the UID, since a name can be given away again."""
    return f"k8s-{service_uid}"


def service_key(load_balancer: model.LoadBalancer) -> str:
    """Return namespace/name of the Service that `load_balancer` was made for."""
    labels = load_balancer.labels
    return f"{labels.get('namespace', '')}/{labels.get('service', '')}"


def build(
    service: model.Service, backends: tuple[nodes.Backend, ...], ownership: Ownership
) -> model.Document:
    """Return the document to PUT for `service`, with one target group per port.

    Raises: Rejected if the Service can't be served as written.
    """
    _refuse_unsupported(service)
    families = service.spec.ip_families or ("IPv4",)
    affinity = _affinity(service)
    health_check = _health_check(service)
    addressed = [(one.name, one.ip_of(families)) for one in backends]
    groups = tuple(
        model.TargetGroup(
            name=_port_name(port),
            targets=tuple(
                model.Target(ip=ip, port=port.node_port, node=name) for name, ip in addressed if ip
            ),
            affinity=affinity,
            health_check=health_check,
        )
        for port in service.ports
    )
    spec = model.LoadBalancerSpec(
        addresses=tuple(_address(family, service) for family in families),
        listeners=tuple(
            model.Listener(_port_name(port), port.protocol.lower(), port.port, _port_name(port))
            for port in service.ports
        ),
        target_groups=groups,
        source_ranges=_source_ranges(service),
    )
    passed_on = annotations_.for_the_cloud(service.annotations)
    return model.Document(labels=ownership.labels(service), spec=spec, annotations=passed_on)


def ingress(service: model.Service, load_balancer: model.LoadBalancer) -> tuple[model.Ingress, ...]:
    """Return what to publish for a load balancer that serves.

    ipMode is Proxy: packets reach the nodes with the node's address as their destination
    (KEP-1860), and traffic from pods has to pass the load balancer too.
    """
    ports = tuple(model.PortStatus(port.port, port.protocol) for port in service.ports)
    return tuple(
        model.Ingress(ip=address.ip, ip_mode="Proxy", ports=ports)
        for address in load_balancer.status.addresses
        if address.ip
    )


def has_targets(document: model.Document) -> bool:
    """Return whether any node takes the traffic."""
    return any(group.targets for group in document.spec.target_groups)


def only_targets_differ(observed: model.LoadBalancerSpec, wanted: model.LoadBalancerSpec) -> bool:
    """Return whether changing the set of nodes is all that has to be done."""
    return (
        model.satisfies(observed.addresses, wanted.addresses)
        and model.satisfies(observed.listeners, wanted.listeners)
        and model.satisfies(observed.source_ranges, wanted.source_ranges)
    )


def _refuse_unsupported(service: model.Service) -> None:
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


def _port_name(port: model.ServicePort) -> str:
    # Not the port's own name: renaming a port must not rebuild anything.
    return f"{port.protocol.lower()}-{port.port}"


def _affinity(service: model.Service) -> model.Affinity:
    if service.spec.session_affinity != "ClientIP":
        return model.Affinity()
    config = service.spec.session_affinity_config
    timeout = config.client_ip.timeout_seconds if config and config.client_ip else None
    return model.Affinity("client_ip", timeout or CLIENT_IP_TIMEOUT_S)


def _health_check(service: model.Service) -> model.HealthCheck:
    is_local = service.spec.external_traffic_policy == "Local"
    port = service.spec.health_check_node_port if is_local else KUBE_PROXY_HEALTH_PORT
    return model.HealthCheck("http", port, "/healthz", HEALTH_INTERVAL_S)


def _address(family: str, service: model.Service) -> model.Address:
    asked = service.spec.load_balancer_ip
    is_of_family = bool(asked) and (":" in asked) == (family == "IPv6")
    return model.Address(family.lower(), ip=asked if is_of_family else None)


def _source_ranges(service: model.Service) -> tuple[str, ...]:
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
