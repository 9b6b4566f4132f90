"""What the cloud is asked for and what it answers: the one JSON document, as values."""

from __future__ import annotations

from sys import intern
from typing import Any

import msgspec
from msgspec import structs

from ccm import interning


class Address(msgspec.Struct, frozen=True, gc=False):
    """An address asked for, or (in a status) assigned."""

    family: str
    ip: str | None = None
    pool: str = "default"


class Tls(msgspec.Struct, frozen=True, gc=False):
    """Where TLS ends."""

    certificates: tuple[str, ...] = ()
    min_version: str = "1.2"


class Listener(msgspec.Struct, frozen=True, gc=False):
    """A port of the load balancer and the target group behind it."""

    name: str
    protocol: str
    port: int
    target_group: str
    idle_timeout_s: int = 350
    max_connections: int | None = None
    accept_proxy_protocol: bool = False
    tls: Tls | None = None
    routes: tuple[Any, ...] = ()
    redirect_https: bool = False


class Affinity(msgspec.Struct, frozen=True, gc=False):
    """How a client comes back to the same target; kind none | client_ip | cookie."""

    kind: str = "none"
    timeout_s: int = 10800


class HealthCheck(msgspec.Struct, frozen=True, gc=False):
    """How targets are probed; protocol http | tcp | none, port None = the target's own."""

    protocol: str
    port: int | None = None
    path: str = "/"
    interval_s: int = 10
    timeout_s: int = 2
    rise: int = 2
    fall: int = 2
    expected_status: int = 200


class Target(msgspec.Struct, frozen=True, gc=False):
    """Where connections go; weight 0-256."""

    ip: str
    port: int
    weight: int = 1
    node: str | None = None
    drain: bool = False


class TargetGroup(msgspec.Struct, frozen=True, gc=False):
    """Targets that share an algorithm and a health check."""

    name: str
    targets: tuple[Target, ...] = ()
    algorithm: str = "round_robin"
    affinity: Affinity = Affinity()
    send_proxy_protocol: str = "none"
    weights_from: str = "none"
    connect_timeout_s: int = 2
    drain_timeout_s: int = 300
    fail_open: bool = False
    preserve_client_ip: bool = False
    health_check: HealthCheck = HealthCheck("tcp")


class LoadBalancerSpec(msgspec.Struct, frozen=True, gc=False):
    """What is asked of the cloud: every field written out, so that equal means in sync."""

    addresses: tuple[Address, ...] = ()
    listeners: tuple[Listener, ...] = ()
    target_groups: tuple[TargetGroup, ...] = ()
    source_ranges: tuple[str, ...] = ()
    type: str = "lb-s"
    admin_up: bool = True
    deletion_protection: bool = False


class Document(msgspec.Struct, frozen=True, gc=False):
    """The whole desired load balancer: the body of a PUT."""

    labels: dict[str, str]
    spec: LoadBalancerSpec
    annotations: dict[str, str] = {}


class HostPort(msgspec.Struct, frozen=True, gc=False):
    """A port of the machine around the cloud's container that leads to a listener."""

    listener: str
    transport: str
    port: int


class Rate(msgspec.Struct, frozen=True, gc=False):
    """What a load balancer of one shape costs in an hour. protocols: of TCP and UDP, how many."""

    type: str
    ports: int
    protocols: int
    ipv4: int
    hourly: str


class Rates(msgspec.Struct, frozen=True):
    """The cloud's price list of load balancers."""

    currency: str
    price_book: str
    items: tuple[Rate, ...] = ()


class LastError(msgspec.Struct, frozen=True, gc=False):
    """Why the cloud failed to put a load balancer into effect."""

    code: str = ""
    message: str = ""
    detail: str = ""


class CloudStatus(msgspec.Struct, frozen=True, gc=False):
    """What the cloud made of it."""

    id: str = ""
    state: str = ""
    operating_state: str = ""
    addresses: tuple[Address, ...] = ()
    host_ports: tuple[HostPort, ...] = ()
    generation: int = 0
    observed_generation: int = 0
    resource_version: str = ""
    last_error: LastError | str | None = None


class TargetHealth(msgspec.Struct, frozen=True, gc=False):
    """What the cloud's probes say of a target; health healthy | unhealthy | unknown."""

    ip: str
    port: int
    health: str
    reason: str = ""
    since: str = ""


class Operation(msgspec.Struct, frozen=True, gc=False):
    """How far the cloud's latest work on a load balancer is."""

    id: str
    type: str = ""
    status: str = ""
    done: bool = False
    phase: str | None = None
    progress: int = 0
    eta: str | None = None


class LoadBalancer(msgspec.Struct, frozen=True, gc=False):
    """A load balancer as the cloud describes it."""

    name: str
    labels: dict[str, str] = {}
    spec: LoadBalancerSpec = LoadBalancerSpec()
    status: CloudStatus = CloudStatus()
    annotations: dict[str, str] = {}

    @property
    def is_applied(self) -> bool:
        """Return whether traffic flows according to the latest spec."""
        status = self.status
        return status.state == "ACTIVE" and status.observed_generation >= status.generation

    @property
    def problem(self) -> str:
        """Return the cloud's last error as one line, "" if there is none."""
        match self.status.last_error:
            case None:
                return ""
            case str(text):
                return text
            case error:
                text = error.message or error.detail
                return f"{error.code}: {text}" if error.code and text else error.code or text


class InstanceAddress(msgspec.Struct, frozen=True, gc=False):
    """One address of an instance; types as Kubernetes has them for nodes."""

    type: str
    address: str


class Instance(msgspec.Struct, frozen=True, gc=False):
    """A machine of the cloud; power_state running | stopped."""

    id: str
    name: str
    provider_id: str = ""
    type: str = ""
    region: str = ""
    zone: str = ""
    addresses: tuple[InstanceAddress, ...] = ()
    power_state: str = "running"


class RouteDocument(msgspec.Struct, frozen=True, gc=False):
    """The body of a PUT of a route: which part of a network, and the machine that leads there."""

    network: str
    destination: str
    next_hop: str
    labels: dict[str, str] = {}


class Route(msgspec.Struct, frozen=True, gc=False):
    """A route as the cloud describes it; state PENDING | ACTIVE | ERROR."""

    name: str
    network: str = ""
    destination: str = ""
    next_hop: str = ""
    labels: dict[str, str] = {}
    state: str = ""
    last_error: LastError | None = None


class Inspection(msgspec.Struct, frozen=True, gc=False):
    """All that the cloud tells of a load balancer: more than is kept in memory of each."""

    load_balancer: LoadBalancer
    targets: tuple[TargetHealth, ...] = ()
    operation: Operation | None = None


def compact(pool: interning.Pool, item: LoadBalancer) -> LoadBalancer:
    """Return `item` as a cache keeps it: equal parts once."""
    spec, status = item.spec, item.status
    return structs.replace(
        item,
        labels={intern(key): intern(value) for key, value in item.labels.items()},
        spec=pool.one(
            structs.replace(
                spec,
                addresses=pool.one(spec.addresses),
                listeners=pool.one(spec.listeners),
                target_groups=pool.one(spec.target_groups),
                source_ranges=pool.one(spec.source_ranges),
            )
        ),
        status=structs.replace(
            status,
            state=intern(status.state),
            operating_state=intern(status.operating_state),
            addresses=tuple(
                Address(intern(one.family), one.ip, intern(one.pool)) for one in status.addresses
            ),
        ),
    )
