"""Values: the parts of Kubernetes objects and of cloud documents that the controller reads.

Unknown fields are skipped while decoding, so a cache of thousands of objects stays small; and
what was read is never sent back: writes are patches, or a document made from scratch.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

CLEANUP_FINALIZER = "service.kubernetes.io/load-balancer-cleanup"

_EMPTY: Mapping[str, str] = MappingProxyType({})


class ObjectMeta(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """metadata of any object."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: tuple[str, ...] | None = None


class ServicePort(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One port of a Service; node_port 0 = none allocated."""

    port: int = 0
    name: str = ""
    protocol: str = "TCP"
    node_port: int = 0
    app_protocol: str | None = None


class ClientIPConfig(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """sessionAffinityConfig.clientIP."""

    timeout_seconds: int | None = None


class SessionAffinityConfig(
    msgspec.Struct, frozen=True, gc=False, rename={"client_ip": "clientIP"}
):
    """sessionAffinityConfig."""

    client_ip: ClientIPConfig | None = None


class ServiceSpec(
    msgspec.Struct,
    frozen=True,
    gc=False,
    rename={
        "ip_families": "ipFamilies",
        "load_balancer_ip": "loadBalancerIP",
        "load_balancer_class": "loadBalancerClass",
        "load_balancer_source_ranges": "loadBalancerSourceRanges",
        "external_traffic_policy": "externalTrafficPolicy",
        "health_check_node_port": "healthCheckNodePort",
        "session_affinity": "sessionAffinity",
        "session_affinity_config": "sessionAffinityConfig",
        "allocate_node_ports": "allocateLoadBalancerNodePorts",
    },
):
    """spec of a Service."""

    type: str = "ClusterIP"
    ports: tuple[ServicePort, ...] | None = None
    ip_families: tuple[str, ...] | None = None
    load_balancer_ip: str = ""
    load_balancer_class: str | None = None
    load_balancer_source_ranges: tuple[str, ...] | None = None
    external_traffic_policy: str = "Cluster"
    health_check_node_port: int = 0
    session_affinity: str = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    allocate_node_ports: bool | None = None


class PortStatus(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One entry of status.loadBalancer.ingress[].ports."""

    port: int
    protocol: str
    error: str | None = None


class Ingress(
    msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename={"ip_mode": "ipMode"}
):
    """One address of a Service."""

    ip: str = ""
    hostname: str = ""
    ip_mode: str | None = None
    ports: tuple[PortStatus, ...] | None = None


class LoadBalancerStatus(msgspec.Struct, frozen=True, gc=False):
    """status.loadBalancer."""

    ingress: tuple[Ingress, ...] | None = None


class Condition(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """metav1.Condition, all of its fields: a merge patch sends the list whole."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    observed_generation: int = 0


class ServiceStatus(
    msgspec.Struct, frozen=True, gc=False, rename={"load_balancer": "loadBalancer"}
):
    """status of a Service."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: tuple[Condition, ...] | None = None


class Service(msgspec.Struct, frozen=True, gc=False):
    """A Service as far as load balancing goes."""

    metadata: ObjectMeta
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()

    @property
    def key(self) -> str:
        """Return namespace/name, the key of the work queue."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def annotations(self) -> Mapping[str, str]:
        """Return the annotations, empty if there are none."""
        return self.metadata.annotations or _EMPTY

    @property
    def finalizers(self) -> tuple[str, ...]:
        """Return the finalizers, empty if there are none."""
        return self.metadata.finalizers or ()

    @property
    def ports(self) -> tuple[ServicePort, ...]:
        """Return the ports, empty if there are none."""
        return self.spec.ports or ()

    @property
    def ingress(self) -> tuple[Ingress, ...]:
        """Return the published addresses, empty if there are none."""
        return self.status.load_balancer.ingress or ()

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Return the conditions, empty if there are none."""
        return self.status.conditions or ()


class Taint(msgspec.Struct, frozen=True, gc=False):
    """One taint of a Node."""

    key: str = ""


class NodeSpec(msgspec.Struct, frozen=True, gc=False, rename={"provider_id": "providerID"}):
    """spec of a Node."""

    provider_id: str = ""
    taints: tuple[Taint, ...] | None = None


class NodeAddress(msgspec.Struct, frozen=True, gc=False):
    """One address of a Node."""

    type: str = ""
    address: str = ""


class NodeStatus(msgspec.Struct, frozen=True, gc=False):
    """status of a Node."""

    addresses: tuple[NodeAddress, ...] | None = None


class Node(msgspec.Struct, frozen=True, gc=False):
    """A Node as far as load balancing goes."""

    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class LeaseSpec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """spec of a Lease; times as the API server wrote them."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(msgspec.Struct, frozen=True, gc=False):
    """A Lease of coordination.k8s.io/v1."""

    metadata: ObjectMeta
    spec: LeaseSpec = LeaseSpec()


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
