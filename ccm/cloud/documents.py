"""What the cloud is asked for and what it answers: the one JSON document, as values."""

from __future__ import annotations

from typing import Any

import msgspec


class Address(msgspec.Struct, frozen=True, gc=False):
    """An address asked for, or (in a status) assigned."""

    family: str
    ip: str | None = None
    pool: str | msgspec.UnsetType = msgspec.UNSET


class Listener(msgspec.Struct, frozen=True, gc=False):
    """A port of the load balancer and the target group behind it."""

    name: str
    protocol: str
    port: int
    target_group: str
    accept_proxy_protocol: bool = False


class Affinity(msgspec.Struct, frozen=True, gc=False):
    """How a client comes back to the same target; kind none | client_ip | cookie."""

    kind: str = "none"
    timeout_s: int | msgspec.UnsetType = msgspec.UNSET


class HealthCheck(msgspec.Struct, frozen=True, gc=False):
    """How targets are probed; protocol http | tcp | none, interval in seconds."""

    protocol: str
    port: int | None = None
    path: str | msgspec.UnsetType = msgspec.UNSET
    interval_s: int | msgspec.UnsetType = msgspec.UNSET


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
    health_check: HealthCheck | msgspec.UnsetType = msgspec.UNSET


class LoadBalancerSpec(msgspec.Struct, frozen=True, gc=False):
    """What is asked of the cloud."""

    addresses: tuple[Address, ...] = ()
    listeners: tuple[Listener, ...] = ()
    target_groups: tuple[TargetGroup, ...] = ()
    source_ranges: tuple[str, ...] = ()
    admin_up: bool = True


class Document(msgspec.Struct, frozen=True, gc=False):
    """The whole desired load balancer: the body of a PUT. UNSET is left out: the cloud decides."""

    labels: dict[str, str]
    spec: LoadBalancerSpec
    annotations: dict[str, str] = {}


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
    generation: int = 0
    observed_generation: int = 0
    resource_version: str = ""
    last_error: LastError | str | None = None


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


def satisfies(observed: Any, wanted: Any) -> bool:
    """Return whether `observed` has every value that `wanted` sets.

    None and UNSET in `wanted` are left to the cloud and not compared; lists compare in order.
    """
    if wanted is None or wanted is msgspec.UNSET:
        return True
    if isinstance(wanted, msgspec.Struct):
        return type(observed) is type(wanted) and all(
            satisfies(getattr(observed, name), getattr(wanted, name))
            for name in wanted.__struct_fields__
        )
    if isinstance(wanted, tuple):
        return len(observed) == len(wanted) and all(map(satisfies, observed, wanted))
    return bool(observed == wanted)
