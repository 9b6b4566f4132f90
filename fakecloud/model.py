"""Frozen values of the cloud: what a customer asks for, and what the data plane is told.

The JSON document of the API is `Spec` inside {labels, annotations, spec}; the defaults here are
the API's defaults. Units stand at the end of each name. The wire models of the API check limits;
these types assume a checked document. All are immutable;
unknown fields of stored JSON are ignored and missing ones take the default.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, Literal

import msgspec

Family = Literal["ipv4", "ipv6"]
Protocol = Literal["tcp", "udp", "http", "https"]


class AddressRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An address the customer wants: of a family, from a pool, perhaps a certain one."""

    family: Family = "ipv4"
    ip: str | None = None
    pool: str = "default"


class Tls(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Termination of TLS at a listener: certificates by name, lowest accepted version."""

    certificates: tuple[str, ...] = ()
    min_version: str = "1.2"


class Route(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Requests for `host` and `path_prefix` go to `target_group` (HTTP listeners)."""

    target_group: str
    host: str | None = None
    path_prefix: str | None = None


class Listener(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A port that accepts connections; `name` is unique in the load balancer."""

    name: str
    protocol: Protocol
    port: int
    target_group: str
    idle_timeout_s: int = 350
    max_connections: int | None = None
    accept_proxy_protocol: bool = False
    tls: Tls | None = None
    routes: tuple[Route, ...] = ()
    redirect_https: bool = False


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How targets are probed. `port` None: the target's own port."""

    protocol: Literal["http", "tcp", "none"] = "tcp"
    port: int | None = None
    path: str = "/"
    interval_s: int = 10
    timeout_s: int = 2
    rise: int = 2
    fall: int = 2
    expected_status: int = 200


class Affinity(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whether a client returns to the same target."""

    kind: Literal["none", "client_ip", "cookie"] = "none"
    timeout_s: int = 10800


class Target(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where connections go. `drain`: keep what is there, take nothing new."""

    ip: str
    port: int
    weight: int = 100
    node: str | None = None
    drain: bool = False


class TargetGroup(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Targets that share an algorithm and a health check; `name` is unique."""

    name: str
    targets: tuple[Target, ...]
    algorithm: Literal["round_robin", "least_connections", "source_hash"] = "round_robin"
    affinity: Affinity = Affinity()
    send_proxy_protocol: Literal["none", "v1", "v2"] = "none"
    weights_from: Literal["none", "health_header"] = "none"
    connect_timeout_s: int = 2
    drain_timeout_s: int = 300
    fail_open: bool = False
    preserve_client_ip: bool = False
    health_check: HealthCheck = HealthCheck()


class Spec(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The whole desired load balancer, as the customer PUT it."""

    listeners: tuple[Listener, ...]
    target_groups: tuple[TargetGroup, ...]
    type: str = "lb-s"
    region: str = "local-1"
    admin_up: bool = True
    deletion_protection: bool = False
    addresses: tuple[AddressRequest, ...] = (AddressRequest(),)
    source_ranges: tuple[str, ...] = ("0.0.0.0/0", "::/0")


class Address(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An address that the cloud has given to a load balancer."""

    family: Family
    ip: str
    pool: str


class State(StrEnum):
    """Provisioning state; `lifecycle` alone decides it (cloud-api §6)."""

    PENDING = "PENDING"
    PROVISIONING = "PROVISIONING"
    ACTIVE = "ACTIVE"
    UPDATING = "UPDATING"
    ERROR = "ERROR"
    DELETING = "DELETING"
    DELETED = "DELETED"


class OperatingState(StrEnum):
    """What traffic meets: independent of the provisioning state."""

    UNKNOWN = "UNKNOWN"
    ONLINE = "ONLINE"
    DEGRADED = "DEGRADED"
    OFFLINE = "OFFLINE"
    NO_TARGETS = "NO_TARGETS"
    ADMIN_DOWN = "ADMIN_DOWN"
    SUSPENDED = "SUSPENDED"


class OperationStatus(StrEnum):
    """Progress of asynchronous work; all but RUNNING are final."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SUPERSEDED = "SUPERSEDED"


class ProbeKey(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing to probe. Targets with an equal key share one probe, whoever uses them."""

    ip: str
    port: int
    check: HealthCheck


@lru_cache(16_384)
def _canonical(ip: str) -> str:
    return str(ip_address(ip))


def probe_key(target: Target, check: HealthCheck) -> ProbeKey | None:
    """Return what to probe for `target`, None when the group is not probed."""
    if check.protocol == "none":
        return None
    ip = _canonical(target.ip)
    return ProbeKey(ip=ip, port=check.port or target.port, check=check)


class CertificateChain(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate as the data plane needs it: chain and key in PEM, leaf first, no blank line.

    fingerprint: SHA-1 of the leaf, capital hexadecimal. Its representation tells no key.
    """

    name: str
    pem: str
    fingerprint: str

    def __repr__(self) -> str:
        """Return no part of the key."""
        return f"CertificateChain(name={self.name!r}, fingerprint={self.fingerprint!r})"


class ProbeWeight(msgspec.Struct, frozen=True, gc=False):
    """The weight, 0 to 256, that a target gave itself in its last good answer."""

    key: ProbeKey
    weight: int


class HostPort(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A port of the machine around the container that leads to a listener, by name."""

    listener: str
    transport: Literal["tcp", "udp"]
    port: int


def transport(protocol: str) -> Literal["tcp", "udp"]:
    """Return what carries a listener's protocol."""
    return "udp" if protocol == "udp" else "tcp"


class Desired(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the data plane is told to run for one load balancer.

    `epoch`: the caller's fence; a data plane that saw a higher one refuses (StaleEpoch).
    `down`: probes that currently fail; a target whose probe key is in it gets no new
    connection. `weights`: what targets of groups with `weights_from: health_header` said; one
    that said nothing keeps the weight of the spec. `certificates`: those that the spec names.
    Equal values mean an equal data plane: applying twice changes nothing.
    """

    lb_id: str
    epoch: int
    generation: int
    spec: Spec
    addresses: tuple[Address, ...]
    down: frozenset[ProbeKey] = frozenset()
    weights: frozenset[ProbeWeight] = frozenset()
    certificates: tuple[CertificateChain, ...] = ()
    host_ports: tuple[HostPort, ...] = ()


BILLING_OK: Final = "BillingOK"
"""The condition that is False while a project is suspended."""


def operating_state(
    spec: Spec,
    down: frozenset[ProbeKey],
    unknown: frozenset[ProbeKey],
    *,
    suspended: bool = False,
) -> OperatingState:
    """Return what clients of an active load balancer meet, from the probes' results.

    A draining target isn't meant to serve, so it counts only while nothing else is there. A
    group that fails open still serves when all of its targets fail: DEGRADED, not OFFLINE.
    """
    if suspended or not spec.admin_up:
        return OperatingState.SUSPENDED if suspended else OperatingState.ADMIN_DOWN
    targets = [(t, g) for g in spec.target_groups for t in g.targets]
    targets = [(t, g) for t, g in targets if not t.drain] or targets
    if not targets:
        return OperatingState.NO_TARGETS
    keys = [probe_key(target, group.health_check) for target, group in targets]
    if any(key in unknown for key in keys):
        return OperatingState.UNKNOWN
    failing = sum(key in down for key in keys)
    if not failing:
        return OperatingState.ONLINE
    if failing == len(keys) and not any(group.fail_open for _, group in targets):
        return OperatingState.OFFLINE
    return OperatingState.DEGRADED


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What the data plane has counted of a `listener`, `target_group` or `target`.

    connections: now; totals (also bytes and requests) never fall while `epoch` stays the same,
    across updates, crashes and restarts; a new epoch counts from 0. requests_total: HTTP
    requests. denied_total: refused by source ranges or limits. failed_total: connections to
    targets that failed. connect_ms, response_ms: average of the latest 1024, targets only, None
    when there was none. gaps: how many processes of the epoch died before they were read to the
    end; what such a one carried since its last reading is missing.
    """

    kind: Literal["listener", "target_group", "target"]
    name: str
    connections: int
    connections_total: int
    bytes_in: int
    bytes_out: int
    requests_total: int = 0
    denied_total: int = 0
    failed_total: int = 0
    connect_ms: int | None = None
    response_ms: int | None = None
    epoch: str = ""
    gaps: int = 0


class LoadBalancer(msgspec.Struct, frozen=True, kw_only=True):
    """One load balancer as the cloud knows it: the wish, the promise and how far it is.

    resource_version grows with every change of anything; generation only with the spec.
    `due_at` None: nothing to do. The lease fields are the provisioner's (owner, end, fence).
    `host`: which one runs it, None: whichever claims it next. `ready_at`: wall time before which
    the cloud pretends to be still at work.
    """

    pk: int
    id: str
    project: str
    name: str
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: Spec
    addresses: tuple[Address, ...]
    generation: int
    observed_generation: int
    resource_version: int
    state: State
    operating_state: OperatingState
    conditions: tuple[Condition, ...]
    targets: tuple[TargetStatus, ...]
    last_error: ErrorNote | None
    operation: str
    was_active: bool
    attempts: int
    due_at: datetime | None
    lease_epoch: int
    asked_at: datetime
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    host: str | None = None
    ready_at: datetime | None = None
    host_ports: tuple[HostPort, ...] = ()

    @property
    def suspended(self) -> bool:
        """Say whether its project is suspended, so that it must answer nobody."""
        return any((one.type, one.status) == (BILLING_OK, "False") for one in self.conditions)

    @property
    def served(self) -> Spec:
        """Return what the data plane runs of the spec: of a suspended one no listeners."""
        return msgspec.structs.replace(self.spec, admin_up=False) if self.suspended else self.spec


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to "is it ready, and if not, why", in the manner of Kubernetes conditions."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: datetime


class TargetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Health of one target: healthy, unhealthy or unknown, why, and since when."""

    ip: str
    port: int
    health: Literal["healthy", "unhealthy", "unknown"]
    reason: str
    since: datetime


class ErrorNote(msgspec.Struct, frozen=True, kw_only=True):
    """Why the last attempt failed; `code` is stable."""

    code: str
    message: str
    at: datetime


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an operation: `allocate` waits for a worker, `apply` works, `wait` pretends to."""

    name: str
    started_at: datetime
    ended_at: datetime | None = None


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of one asynchronous change, most often of a load balancer.

    progress: percent. eta: business time at which it should be done, None: soon; `ready_at` is
    the same moment in wall time.
    """

    id: str
    project: str
    type: str  # create, update, delete, system.recover, system.failover, clock.advance
    target: str  # name of what changes
    target_id: str
    target_generation: int
    status: OperationStatus
    resource_version: int
    error: ErrorNote | None
    created_at: datetime
    updated_at: datetime
    phase: str | None = None
    phases: tuple[Phase, ...] = ()
    progress: int = 0
    eta: datetime | None = None
    ready_at: datetime | None = None


PoolKey = tuple[str, str]
"""Name and address family of a pool: a name may have one of each."""
