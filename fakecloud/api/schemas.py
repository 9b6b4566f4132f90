"""Wire models: the document's limits and defaults, checked before anything is stored.

The defaults are those of `model`; a test compares them. What takes two fields to see is in
`rules`.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Annotated, Literal, Self

import msgspec
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from fakecloud import model
from fakecloud.api import problems

MAX_NOTES_BYTES = 64 * 1024
CODES: list[JsonValue] = [*sorted(kind.code for kind in problems.catalogue())]


def _ip(value: str) -> str:
    address = ip_address(value)
    if address.is_unspecified or address.is_multicast or value == "255.255.255.255" or "%" in value:
        raise ValueError("must be the address of one host, without a zone")
    if address.version == 6 and address.ipv4_mapped:
        raise ValueError(f"must be the IPv4 address itself: {address.ipv4_mapped}")
    return str(address)


def _network(value: str) -> str:
    address, slash, length = value.partition("/")
    # ip_network also takes zones and masks, which HAProxy reads otherwise or not at all.
    if "%" in address or (slash and not (length.isascii() and length.isdigit())):
        raise ValueError("must be an address with a prefix length, such as 10.0.0.0/8")
    return str(ip_network(value, strict=False))


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")]
Ip = Annotated[str, AfterValidator(_ip), Field(examples=["127.0.3.1"])]
Cidr = Annotated[str, AfterValidator(_network), Field(examples=["10.0.0.0/8"])]
Port = Annotated[int, Field(ge=1, le=65535)]
Words = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=253)]
LabelValue = Annotated[str, StringConstraints(max_length=1024)]


Host = Annotated[
    str,
    StringConstraints(
        max_length=253,
        pattern=r"^(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
        r"(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$",
    ),
    Field(examples=["shop.example", "*.example"]),
]
PathPrefix = Annotated[
    str,
    StringConstraints(max_length=1000, pattern=r"^/[A-Za-z0-9._~%@:+,=/-]*$"),
    Field(examples=["/cart"]),
]


class _Wire(BaseModel):
    """Unknown fields and other types are refused: a wish silently changed is a lie."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AddressRequest(_Wire):
    """An address that the load balancer wants."""

    family: Literal["ipv4", "ipv6"] = "ipv4"
    ip: Ip | None = None
    pool: Name = "default"

    @model_validator(mode="after")
    def _family(self) -> Self:
        if self.ip is not None and f"ipv{ip_address(self.ip).version}" != self.family:
            raise ValueError(f"ip {self.ip} is not of family {self.family}")
        return self


class Tls(_Wire):
    """Termination of TLS at a listener."""

    certificates: list[Name] = Field(default=[], max_length=100)
    min_version: Literal["1.2", "1.3"] = "1.2"


class Route(_Wire):
    """Where requests go: for a host and a path with all below it.

    `*.example` is every host with one more name, as in certificates: a.example, not a.b.example.
    The host decides before the path; `host` alone means every path, `path_prefix` every host.
    """

    target_group: Name
    host: Host | None = None
    path_prefix: PathPrefix | None = None


class Listener(_Wire):
    """A port that accepts connections."""

    name: Name
    protocol: Literal["tcp", "udp", "http", "https"]
    port: Port
    target_group: Name
    idle_timeout_s: int = Field(default=350, ge=1, le=86400)
    max_connections: int | None = Field(default=None, ge=1, le=40000)
    accept_proxy_protocol: bool = False
    tls: Tls | None = None
    routes: list[Route] = Field(default=[], max_length=100)
    redirect_https: bool = False


class HealthCheck(_Wire):
    """How targets are probed."""

    protocol: Literal["http", "tcp", "none"] = "tcp"
    port: Port | None = None
    path: str = Field(default="/", max_length=1024, pattern=r"^/[!-~]*$")
    interval_s: int = Field(default=10, ge=1, le=60)
    timeout_s: int = Field(default=2, ge=1, le=60)
    rise: int = Field(default=2, ge=1, le=10)
    fall: int = Field(default=2, ge=1, le=10)
    expected_status: int = Field(default=200, ge=100, le=599)


class Affinity(_Wire):
    """Whether a client returns to the same target."""

    kind: Literal["none", "client_ip", "cookie"] = "none"
    timeout_s: int = Field(default=10800, ge=1, le=86400)


class Target(_Wire):
    """Where connections go."""

    ip: Ip
    port: Port
    weight: int = Field(default=100, ge=0, le=256)
    node: str | None = Field(default=None, max_length=253)
    drain: bool = False


class TargetGroup(_Wire):
    """Targets that share an algorithm and a health check."""

    name: Name
    targets: list[Target] = Field(max_length=1000)
    algorithm: Literal["round_robin", "least_connections", "source_hash"] = "round_robin"
    affinity: Affinity = Affinity()
    send_proxy_protocol: Literal["none", "v1", "v2"] = "none"
    weights_from: Literal["none", "health_header"] = "none"
    connect_timeout_s: int = Field(default=2, ge=1, le=60)
    drain_timeout_s: int = Field(default=300, ge=0, le=3600)
    fail_open: bool = False
    preserve_client_ip: bool = False
    health_check: HealthCheck = HealthCheck()

    @model_validator(mode="after")
    def _distinct_targets(self) -> Self:
        distinct("targets", (f"{t.ip} port {t.port}" for t in self.targets))
        return self


class Spec(_Wire):
    """The whole desired load balancer."""

    listeners: list[Listener] = Field(max_length=100)
    target_groups: list[TargetGroup] = Field(max_length=100)
    type: Literal["lb-s", "lb-m", "lb-l"] = "lb-s"
    region: Literal["local-1"] = "local-1"
    admin_up: bool = True
    deletion_protection: bool = False
    addresses: list[AddressRequest] = Field(default=[AddressRequest()], min_length=1, max_length=8)
    source_ranges: list[Cidr] = Field(default=["0.0.0.0/0", "::/0"], max_length=1000)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        distinct("listeners: names", (one.name for one in self.listeners))
        distinct("target_groups: names", (group.name for group in self.target_groups))
        distinct("addresses: ips", (a.ip for a in self.addresses if a.ip is not None))
        return self


class PutLoadBalancer(_Wire):
    """What a client PUTs. `name` and `status` may be there, as in what it read, and are ignored."""

    labels: dict[LabelKey, LabelValue] = Field(default={}, max_length=64)
    annotations: dict[LabelKey, LabelValue] = Field(default={}, max_length=64)
    spec: Spec
    name: object = Field(default=None, exclude=True)
    status: object = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _small(self) -> Self:
        """Every change of a load balancer is kept whole in the event history."""
        notes = (*self.labels.items(), *self.annotations.items())
        size = sum(len(key.encode()) + len(value.encode()) for key, value in notes)
        if size > MAX_NOTES_BYTES:
            raise ValueError(
                f"labels and annotations hold {size} bytes together; {MAX_NOTES_BYTES} are allowed"
            )
        return self


def to_model(body: PutLoadBalancer) -> model.Spec:
    """Return the checked spec as the value that the cloud works with."""
    return msgspec.convert(body.spec.model_dump(), model.Spec)


def distinct(what: str, values: Iterable[str]) -> None:
    """Let values pass that are all different. Raises: ValueError that names one that is not."""
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{what} must be distinct; {value!r} is there twice")
        seen.add(value)


class FieldError(BaseModel):
    """One field that is wrong."""

    pointer: str = Field(examples=["/spec/listeners/0/port"])
    code: str
    message: str


class Problem(BaseModel):
    """RFC 9457 problem details; `code` is stable."""

    type: str = Field(examples=["/problems/validation_failed"])
    title: str
    status: int
    detail: str
    code: str = Field(json_schema_extra={"enum": CODES})
    request_id: str
    retryable: bool
    retry_after_ms: int | None = None
    errors: list[FieldError] = []


class ErrorNote(BaseModel):
    """Why the last attempt failed."""

    code: str
    message: str
    at: str


class Condition(BaseModel):
    """One answer to "is it ready, and if not, why"."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    last_transition_time: str


class AssignedAddress(BaseModel):
    """An address that the load balancer has."""

    family: Literal["ipv4", "ipv6"]
    ip: str
    pool: str


class TargetStatus(BaseModel):
    """Health of one target."""

    ip: str
    port: int
    health: Literal["healthy", "unhealthy", "unknown"]
    reason: str
    since: str


class HostPort(BaseModel):
    """A port of the machine around the container that leads to a listener."""

    listener: str
    transport: Literal["tcp", "udp"]
    port: int = Field(examples=[20000])


class Status(BaseModel):
    """How far the load balancer is."""

    id: str
    state: model.State
    operating_state: model.OperatingState
    conditions: list[Condition]
    addresses: list[AssignedAddress]
    host_ports: list[HostPort]
    generation: int
    observed_generation: int
    resource_version: str
    last_error: ErrorNote | None
    operation: str
    targets: list[TargetStatus]
    created_at: str
    updated_at: str


class LoadBalancer(BaseModel):
    """A load balancer: the wish with every default, and its status."""

    name: str
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: Spec
    status: Status


class Phase(BaseModel):
    """A part of an operation."""

    name: str = Field(examples=["apply"])
    started_at: str
    ended_at: str | None


class Operation(BaseModel):
    """Progress of one asynchronous change."""

    id: str
    type: str
    target: str
    target_id: str
    target_generation: int
    status: model.OperationStatus
    done: bool
    error: ErrorNote | None
    phase: str | None
    progress: int = Field(ge=0, le=100)
    phases: list[Phase]
    eta: str | None
    resource_version: str
    created_at: str
    updated_at: str


class LoadBalancerList(BaseModel):
    """One page of load balancers."""

    items: list[LoadBalancer]
    next_page_token: str | None
    resource_version: str


class Partial(BaseModel):
    """The parts of a document that `fields` or `view` asked for."""

    model_config = ConfigDict(extra="allow")


class PartialList(BaseModel):
    """One page of parts of documents."""

    items: list[Partial]
    next_page_token: str | None
    resource_version: str


class OperationList(BaseModel):
    """One page of operations."""

    items: list[Operation]
    next_page_token: str | None
    resource_version: str
