"""The parts of Kubernetes objects that the controller reads.

Unknown fields are skipped while decoding, so a cache of thousands of objects stays small; and
what was read is never sent back: writes are patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

CLEANUP_FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
SERVICE_NAME = "kubernetes.io/service-name"
"""The label by which an EndpointSlice says whose it is."""

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


class Reference(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What an event is about."""

    kind: str
    name: str
    uid: str
    namespace: str = ""
    api_version: str = "v1"


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
    def reference(self) -> Reference:
        """Return what an event about the Service refers to."""
        meta = self.metadata
        return Reference("Service", meta.name, meta.uid, meta.namespace)

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


class Taint(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="camel"):
    """One taint of a Node, all of its fields: a patch sends the list whole."""

    key: str = ""
    value: str = ""
    effect: str = ""
    time_added: str | None = None


class NodeSpec(
    msgspec.Struct,
    frozen=True,
    gc=False,
    rename={"provider_id": "providerID", "pod_cidrs": "podCIDRs"},
):
    """spec of a Node."""

    provider_id: str = ""
    taints: tuple[Taint, ...] | None = None
    pod_cidrs: tuple[str, ...] | None = None


class NodeAddress(msgspec.Struct, frozen=True, gc=False):
    """One address of a Node."""

    type: str = ""
    address: str = ""


class NodeCondition(msgspec.Struct, frozen=True, gc=False):
    """One condition of a Node; its heartbeat is of no interest."""

    type: str = ""
    status: str = ""
    reason: str = ""


class NodeStatus(msgspec.Struct, frozen=True, gc=False):
    """status of a Node."""

    addresses: tuple[NodeAddress, ...] | None = None
    conditions: tuple[NodeCondition, ...] | None = None


class Node(msgspec.Struct, frozen=True, gc=False):
    """A Node as far as clouds are concerned."""

    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def reference(self) -> Reference:
        """Return what an event about the Node refers to."""
        return Reference("Node", self.metadata.name, self.metadata.uid)

    @property
    def taints(self) -> tuple[Taint, ...]:
        """Return the taints, empty if there are none."""
        return self.spec.taints or ()


class EndpointConditions(msgspec.Struct, frozen=True, gc=False):
    """None counts as true for ready and serving, as false for terminating."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A pod, as one slice has it."""

    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions | None = None
    node_name: str | None = None


class EndpointPort(msgspec.Struct, frozen=True, gc=False):
    """A port of all endpoints of a slice."""

    name: str | None = None
    protocol: str = "TCP"
    port: int | None = None


class EndpointSlice(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Endpoints of one Service and one family; a Service may have several."""

    metadata: ObjectMeta
    address_type: str = ""
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[EndpointPort, ...] | None = None

    @property
    def service_key(self) -> str:
        """Return namespace/name of the Service that it belongs to, "" if it names none."""
        name = (self.metadata.labels or {}).get(SERVICE_NAME, "")
        return f"{self.metadata.namespace}/{name}" if name else ""


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


class Namespace(msgspec.Struct, frozen=True, gc=False):
    """A Namespace; that of kube-system is as old as the cluster, and its UID names the cluster."""

    metadata: ObjectMeta
