"""Wire models of what isn't a whole load balancer: short requests, addresses, instances, lists."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from fakecloud.api import schemas
from fakecloud.api.schemas import Ip, LabelKey, LabelValue, Port, Target
from fakecloud.domain import routing

# Without "_", which every id has: a name is never another resource's id.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=253)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
Family = Literal["ipv4", "ipv6"]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PostLoadBalancer(schemas.PutLoadBalancer):
    """A new load balancer; without a name the cloud makes one."""

    name: Name | None = None


class Names(_Wire):
    """Names to read at once."""

    names: list[Annotated[str, StringConstraints(max_length=63)]] = Field(max_length=500)


class Ids(_Wire):
    """Ids to read at once."""

    ids: list[Annotated[str, StringConstraints(max_length=63)]] = Field(max_length=500)


class TargetSet(_Wire):
    """The new targets of one group."""

    name: schemas.Name
    targets: list[Target] = Field(max_length=1000)

    @model_validator(mode="after")
    def _distinct_targets(self) -> Self:
        schemas.distinct("targets", (f"{t.ip} port {t.port}" for t in self.targets))
        return self


class PutTargets(_Wire):
    """Groups whose targets are replaced; those not named keep theirs."""

    target_groups: list[TargetSet] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _distinct_groups(self) -> Self:
        schemas.distinct("target_groups: names", (group.name for group in self.target_groups))
        return self


class Endpoint(_Wire):
    """A target by its address; without a port every target there."""

    ip: Ip
    port: Port | None = None


class Drain(_Wire):
    """Which targets are drained: of a node, those listed, or all when nothing is said."""

    node: Text | None = None
    targets: list[Endpoint] = Field(default=[], max_length=1000)


class PostAddress(_Wire):
    """An address to keep."""

    name: Name
    family: Family = "ipv4"
    pool: schemas.Name = "default"
    ip: Ip | None = None
    labels: Labels = {}

    @model_validator(mode="after")
    def _family(self) -> Self:
        if self.ip is not None and (":" in self.ip) is (self.family == "ipv4"):
            raise ValueError(f"ip {self.ip} is not of family {self.family}")
        return self


class Assign(_Wire):
    """Who shall use a reserved address."""

    load_balancer: Annotated[str, StringConstraints(min_length=1, max_length=63)]


class Address(BaseModel):
    """A reserved address."""

    id: str
    name: str
    labels: dict[str, str]
    ip: str
    family: Family
    pool: str
    state: Literal["RESERVED", "ASSIGNED"]
    load_balancer: str | None
    resource_version: str
    created_at: str
    updated_at: str


class Pool(BaseModel):
    """A range of addresses; what is resting is free again a minute after its release."""

    name: str
    family: Family
    kind: Literal["loopback", "interface", "docker"]
    cidr: str
    interface: str | None
    capacity: int
    used: int
    reserved: int
    resting: int


class InstanceAddress(_Wire):
    """One address of an instance."""

    type: Literal["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"]
    address: Text


class PutInstance(_Wire):
    """What is said of an instance."""

    type: Text = "standard-2"
    region: Literal["local-1"] = "local-1"
    zone: Text = "local-1a"
    addresses: list[InstanceAddress] = Field(default=[], max_length=32)
    labels: Labels = {}
    power_state: Literal["running", "stopped"] = "running"


class PostInstance(PutInstance):
    """A new instance."""

    name: Name


class Instance(PutInstance):
    """An instance."""

    id: str
    name: str
    provider_id: str = Field(examples=["fakecloud://local-1/i_0193a7d2c4f0a1b2c3d4e5f6"])
    resource_version: str
    created_at: str
    updated_at: str


PrivateCidr = Annotated[str, AfterValidator(routing.private), Field(examples=["10.244.0.0/16"])]


class PutNetwork(_Wire):
    """What is said of a network: private ranges that overlap no pool and no other network."""

    ranges: list[PrivateCidr] = Field(min_length=1, max_length=16)
    labels: Labels = {}

    @model_validator(mode="after")
    def _apart(self) -> Self:
        for index, one in enumerate(self.ranges):
            if shared := routing.overlapping([one], self.ranges[:index]):
                raise ValueError(f"ranges: {shared[0]} overlaps {shared[1]}")
        return self


class Network(PutNetwork):
    """A network."""

    id: str
    name: str
    resource_version: str
    created_at: str
    updated_at: str


class PutRoute(_Wire):
    """What is said of a route: the part of a network, and the machine that leads there."""

    network: Name
    destination: PrivateCidr
    next_hop: Ip
    labels: Labels = {}

    @model_validator(mode="after")
    def _leads_there(self) -> Self:
        routing.check_next_hop(self.destination, self.next_hop)
        return self


class RouteError(BaseModel):
    """Why a host can't have the route."""

    code: str
    message: str
    host: str


class Route(PutRoute):
    """A route; ACTIVE when load balancers can use it."""

    id: str
    name: str
    state: Literal["PENDING", "ACTIVE", "ERROR"]
    last_error: RouteError | None
    resource_version: str
    created_at: str
    updated_at: str


class PutCertificate(_Wire):
    """A certificate chain, leaf first, and the key of the leaf; both in PEM.

    The key is sealed and never returned.
    """

    certificate: Annotated[str, Field(min_length=1, max_length=65536)]
    private_key: Annotated[
        str, Field(min_length=1, max_length=16384, json_schema_extra={"writeOnly": True})
    ]
    labels: Labels = {}


class PostCertificate(PutCertificate):
    """A new certificate."""

    name: Name


class Certificate(BaseModel):
    """A certificate; `fingerprint` is the SHA-256 of the leaf."""

    id: str
    name: str
    labels: dict[str, str]
    certificate: str
    hosts: list[str] = Field(examples=[["shop.example", "*.shop.example"]])
    not_before: str
    not_after: str
    fingerprint: str
    resource_version: str
    created_at: str
    updated_at: str


class UsedCertificate(Certificate):
    """A certificate and the load balancers that use it."""

    used_by: list[str]


class LoadBalancerType(BaseModel):
    """A size of load balancer and its limits."""

    name: str
    description: str
    max_listeners: int
    max_targets: int
    max_certificates: int
    max_connections: int


class Region(BaseModel):
    """A place with its zones."""

    name: str
    description: str
    zones: list[str]


class Violation(BaseModel):
    """A promise of the cloud that does not hold."""

    invariant: str = Field(examples=["I4"])
    object: str
    message: str


class Check(BaseModel):
    """What a check of all invariants found."""

    ok: bool
    checked: list[str]
    violations: list[Violation]


class Reset(BaseModel):
    """What is on its way out."""

    load_balancers: int
    addresses: int
    instances: int
    networks: int
    routes: int
    certificates: int
    operations: list[str]


class Snapshot(BaseModel):
    """A copy of the whole database as a file beside it."""

    id: str
    file: str
    bytes: int
    created_at: str


class _Page(BaseModel):
    next_page_token: str | None
    resource_version: str


class AddressList(_Page):
    """One page of reserved addresses."""

    items: list[Address]


class CertificateList(_Page):
    """One page of certificates."""

    items: list[Certificate]


class InstanceList(_Page):
    """One page of instances."""

    items: list[Instance]


class NetworkList(_Page):
    """One page of networks."""

    items: list[Network]


class RouteList(_Page):
    """One page of routes."""

    items: list[Route]


class PoolList(BaseModel):
    """All pools."""

    items: list[Pool]


class TypeList(BaseModel):
    """All types."""

    items: list[LoadBalancerType]


class RegionList(BaseModel):
    """All regions."""

    items: list[Region]


class SnapshotList(BaseModel):
    """All snapshots, newest first."""

    items: list[Snapshot]


class LoadBalancerBatch(BaseModel):
    """Those that exist, in the order they were asked for."""

    items: list[schemas.LoadBalancer]
    missing: list[str]
    resource_version: str


class OperationBatch(BaseModel):
    """Those that exist, in the order they were asked for."""

    items: list[schemas.Operation]
    missing: list[str]
    resource_version: str


class ExportLine(BaseModel):
    """One line of an export."""

    kind: str
    object: dict[str, Any]
