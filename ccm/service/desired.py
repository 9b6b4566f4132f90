"""A Service and its targets in, what to ask the cloud for and what to say about it out.

Order of the decisions: can it be served (raises Rejected), which ports, then the document.
Nothing here looks at what exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ccm import errors
from ccm.cloud import documents
from ccm.kube import objects
from ccm.service import annotations as annotations_
from ccm.service import (
    conditions,
    dialects,
    endpoints,
    listeners,
    nodes,
    ownership,
    transparency,
    values,
)

OPEN_TO_ALL: Final = ("0.0.0.0/0", "::/0")
SUPPORTED_PROTOCOLS: Final = ("TCP", "UDP")
UNSUPPORTED_PORT: Final = "fakecloud.dev/UnsupportedProtocol"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask the cloud for, and what to publish and say once it is so.

    ports: every port of the Service, with an error where it isn't served (KEP-1435).
    """

    document: documents.Document
    ports: tuple[objects.PortStatus, ...]
    source_ip: objects.Condition
    hostname: str = ""
    ip_mode: str = "Proxy"
    share: str = ""
    advice: tuple[annotations_.Advice, ...] = ()

    @property
    def refused_ports(self) -> tuple[objects.PortStatus, ...]:
        """Return the ports that are not served."""
        return tuple(one for one in self.ports if one.error)


def build(
    service: objects.Service,
    backends: tuple[nodes.Backend, ...],
    owner: ownership.Ownership,
    pods: endpoints.Pods | None = None,
    *,
    transparent: bool = False,
) -> Plan:
    """Return the plan for `service`, with one target group per port.

    pods: targets of ports without a nodePort; None if load balancers don't reach pods.
    transparent: targets can be reached from the client's address.
    Raises: Rejected if the Service can't be served as written.
    """
    translated = dialects.translate(service.annotations)
    wishes = annotations_.read(translated.annotations)
    served = _served(service)
    _refuse_contradictions(service, wishes)
    shown = transparency.decide(service, wishes, served, offered=transparent)
    ports = listeners.sort(service, wishes, served, transparent=shown.is_on)
    groups = tuple(
        _group(ports, port, protocol, backends, pods) for port, protocol in ports.protocols
    )
    spec = documents.LoadBalancerSpec(
        addresses=_addresses(service, wishes),
        listeners=tuple(listeners.listener(ports, *one) for one in ports.protocols),
        target_groups=groups,
        source_ranges=_source_ranges(service, wishes),
        type=wishes.get(annotations_.TYPE),
    )
    pairs = wishes.get(annotations_.LABELS)
    document = documents.Document(
        labels=dict(pairs) | owner.labels(service),
        spec=spec,
        annotations=annotations_.for_the_cloud(service.annotations),
    )
    return Plan(
        document,
        tuple(_port_status(port) for port in service.ports),
        _source_ip(ports, shown),
        hostname=wishes.get(annotations_.HOSTNAME),
        # Nodes and pods would meet their own addresses there: kube-proxy takes them past it.
        ip_mode="VIP" if shown.is_on else wishes.get(annotations_.IP_MODE),
        share=wishes.get(annotations_.SHARE),
        advice=(
            *translated.advice,
            *wishes.advice,
            *_without_effect(ports),
            *_unsupported_ports(service),
        ),
    )


def host_ports(service: objects.Service, load_balancer: documents.LoadBalancer) -> str:
    """Return which ports of the machine lead to the Service's: 80/tcp=20000,53/udp=20001."""
    leads = {(one.listener, one.transport): one.port for one in load_balancer.status.host_ports}
    found = {
        (one.port, transport): leads[one.name, transport]
        for one in load_balancer.spec.listeners
        if (one.name, transport := "udp" if one.protocol == "udp" else "tcp") in leads
    }
    wanted = [(one.port, one.protocol.lower()) for one in service.ports]
    return ",".join(
        f"{port}/{kind}={found[port, kind]}" for port, kind in wanted if (port, kind) in found
    )


def ingress(plan: Plan, load_balancer: documents.LoadBalancer) -> tuple[objects.Ingress, ...]:
    """Return what to publish for a load balancer that serves.

    ipMode is Proxy unless asked otherwise: packets reach the nodes with the node's address as
    their destination (KEP-1860), and traffic from pods has to pass the load balancer too. It is
    VIP where targets see the client's address.
    """
    if plan.hostname:
        return (objects.Ingress(hostname=plan.hostname, ports=plan.ports),)
    families = {one.family for one in plan.document.spec.addresses}
    return tuple(
        objects.Ingress(ip=address.ip, ip_mode=plan.ip_mode, ports=plan.ports)
        for address in load_balancer.status.addresses
        if address.ip and address.family in families
    )


def has_targets(document: documents.Document) -> bool:
    """Return whether anything takes new traffic."""
    return any(not one.drain for group in document.spec.target_groups for one in group.targets)


def only_targets_differ(
    observed: documents.LoadBalancerSpec, wanted: documents.LoadBalancerSpec
) -> bool:
    """Return whether changing the set of nodes is all that has to be done."""
    return (observed.addresses, observed.listeners, observed.source_ranges) == (
        wanted.addresses,
        wanted.listeners,
        wanted.source_ranges,
    )


def _served(service: objects.Service) -> tuple[objects.ServicePort, ...]:
    served = tuple(one for one in service.ports if one.protocol in SUPPORTED_PROTOCOLS)
    if not served:
        wrong = service.ports[0] if service.ports else objects.ServicePort()
        raise errors.Rejected(
            "UnsupportedProtocol",
            f"port {wrong.port}: protocol {wrong.protocol} is not supported; "
            "use TCP or UDP, or a Service of type NodePort",
        )
    return served


def _port_status(port: objects.ServicePort) -> objects.PortStatus:
    error = None if port.protocol in SUPPORTED_PROTOCOLS else UNSUPPORTED_PORT
    return objects.PortStatus(port.port, port.protocol, error)


def _unsupported_ports(service: objects.Service) -> tuple[annotations_.Advice, ...]:
    return tuple(
        annotations_.Advice(
            "UnsupportedProtocol",
            f"port {port.port}: protocol {port.protocol} is not supported; "
            "the other ports are served",
        )
        for port in service.ports
        if port.protocol not in SUPPORTED_PROTOCOLS
    )


def _refuse_contradictions(service: objects.Service, wishes: annotations_.Wishes) -> None:
    spec = service.spec
    if spec.external_traffic_policy == "Local" and not spec.health_check_node_port:
        raise errors.Rejected(
            "NoHealthCheckNodePort",
            "spec.externalTrafficPolicy is Local but spec.healthCheckNodePort is not set, "
            "so nodes without endpoints can't be told apart",
        )
    sends_header = wishes.get(annotations_.PROXY_PROTOCOL) != "none"
    if wishes.get(annotations_.IP_MODE) == "VIP" and sends_header:
        raise errors.Rejected(
            "IpModeConflict",
            f"{annotations_.IP_MODE.name} VIP would let traffic from pods arrive without the "
            f"header that {annotations_.PROXY_PROTOCOL.name} promises; leave it at Proxy",
        )


def _group(
    ports: listeners.Ports,
    port: objects.ServicePort,
    protocol: str,
    backends: tuple[nodes.Backend, ...],
    pods: endpoints.Pods | None,
) -> documents.TargetGroup:
    families = ports.service.spec.ip_families or ("IPv4",)
    if port.node_port:
        selector = ports.wishes.get(annotations_.NODE_SELECTOR)
        chosen = [(one, one.ip_of(families)) for one in backends if one.matches(selector)]
        targets = tuple(
            documents.Target(ip=ip, port=port.node_port, node=one.name, drain=one.drain)
            for one, ip in chosen
            if ip
        )
        return listeners.target_group(ports, port, protocol, targets, are_pods=False)
    if pods is None:
        raise errors.Rejected(
            "NoNodePort",
            f"port {port.port} has no nodePort, and load balancers reach nodes only; set "
            "spec.allocateLoadBalancerNodePorts to true, or start the controller with "
            "--pod-networks if load balancers reach pods",
        )
    targets = endpoints.targets(pods, port, families[0])
    return listeners.target_group(ports, port, protocol, targets, are_pods=True)


def _addresses(
    service: objects.Service, wishes: annotations_.Wishes
) -> tuple[documents.Address, ...]:
    asked = wishes.get(annotations_.ADDRESSES)
    if not asked and service.spec.load_balancer_ip:
        asked = _asked_by_field(service.spec.load_balancer_ip)
    by_family = {"IPv6" if ":" in ip else "IPv4": ip for ip in asked}
    families = service.spec.ip_families or ("IPv4",)
    for family, ip in by_family.items():
        if family not in families:
            raise errors.Rejected(
                "WrongFamily", f"{ip} is asked for, but spec.ipFamilies is {', '.join(families)}"
            )
    pool = wishes.get(annotations_.POOL)
    return tuple(
        documents.Address(family.lower(), by_family.get(family), pool) for family in families
    )


def _asked_by_field(text: str) -> tuple[str, ...]:
    try:
        return values.Addresses().read(text)
    except ValueError as error:
        raise errors.Rejected(
            "InvalidAddress", f"spec.loadBalancerIP must be {error}, not {text!r}"
        ) from error


def _source_ranges(service: objects.Service, wishes: annotations_.Wishes) -> tuple[str, ...]:
    written = service.spec.load_balancer_source_ranges
    if not written:
        return wishes.get(annotations_.SOURCE_RANGES) or OPEN_TO_ALL
    try:
        return values.networks(written)
    except ValueError as error:
        text = f"spec.loadBalancerSourceRanges must be {error}"
        raise errors.Rejected("InvalidSourceRanges", text) from error


def _source_ip(ports: listeners.Ports, shown: transparency.Transparency) -> objects.Condition:
    """Return whether pods learn the client's address, and how."""
    wishes = ports.wishes
    kind = conditions.SOURCE_IP_PRESERVED
    if shown.is_on:
        but = ", datagrams from the load balancer's" if ports.has_udp else ""
        text = f"connections come from the client's address{but}"
        return objects.Condition(kind, "True", "Transparent", text)
    if shown.why_not and shown.reason != "ProxyProtocol":
        return objects.Condition(kind, "False", shown.reason, shown.why_not)
    if (version := wishes.get(annotations_.PROXY_PROTOCOL)) != "none":
        text = f"in the PROXY protocol header {version} of each connection"
        return objects.Condition(kind, "True", "ProxyProtocol", text)
    if ports.is_all_http:
        return objects.Condition(kind, "True", "ForwardedFor", "in the header X-Forwarded-For")
    text = (
        "pods see an address of the load balancer or of a node; "
        f"{annotations_.PROXY_PROTOCOL.name} passes the client's on"
    )
    return objects.Condition(kind, "False", "Proxied", text)


def _without_effect(ports: listeners.Ports) -> tuple[annotations_.Advice, ...]:
    wishes = ports.wishes
    found: list[tuple[str, str]] = []
    if wishes.has(annotations_.STICKY_COOKIE) and not ports.has_http:
        found.append((annotations_.STICKY_COOKIE.name, "no port is served as HTTP"))
    if wishes.get(annotations_.PROXY_PROTOCOL) != "none" and ports.has_udp:
        found.append((annotations_.PROXY_PROTOCOL.name, "UDP ports have no such header"))
    if ports.service.spec.external_traffic_policy == "Local":
        found += [
            (one.name, "with externalTrafficPolicy Local the nodes' healthCheckNodePort decides")
            for one in (
                annotations_.HEALTH_PROTOCOL,
                annotations_.HEALTH_PORT,
                annotations_.HEALTH_PATH,
            )
            if wishes.has(one)
        ]
    numbers = {name for port in ports.service.ports for name in ("*", str(port.port), port.name)}
    found += [
        (one.name, f"the Service has no port {name}")
        for one in (annotations_.HTTP_PORTS, annotations_.HTTPS_PORTS, annotations_.TLS_PORTS)
        for name in wishes.get(one)
        if name not in numbers
    ]
    return tuple(
        annotations_.Advice("AnnotationWithoutEffect", f"annotation {name}: {why}")
        for name, why in found
    )
