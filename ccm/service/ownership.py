"""Which Services are ours to serve, and which load balancers are ours to change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ccm import identity
from ccm.cloud import documents
from ccm.kube import objects

GROUP: Final = "share:"
MEMBERS: Final = "fakecloud.dev/members"
"""On a shared load balancer: which Services it serves, so that a restart knows who has left."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """Which Services are ours, and how their load balancers are marked in the cloud."""

    cluster: identity.Identity
    classes: tuple[str, ...]
    handle_unclassed: bool

    def class_is_ours(self, service: objects.Service) -> bool:
        """Return whether the Service's class, or the lack of one, is ours to serve."""
        wanted = service.spec.load_balancer_class
        return self.handle_unclassed if wanted is None else wanted in self.classes

    def wants(self, service: objects.Service) -> bool:
        """Return whether the Service should have a load balancer of ours."""
        return (
            service.spec.type == "LoadBalancer"
            and service.metadata.deletion_timestamp is None
            and self.class_is_ours(service)
        )

    def owns(self, load_balancer: documents.LoadBalancer) -> bool:
        """Return whether this cluster made `load_balancer`."""
        return self.cluster.owns(load_balancer.labels)

    def is_foreign(self, load_balancer: documents.LoadBalancer) -> bool:
        """Return whether another cluster made `load_balancer`; without marks nobody did."""
        return "cluster-uid" in load_balancer.labels and not self.owns(load_balancer)

    def labels(self, service: objects.Service) -> dict[str, str]:
        """Return the labels that mark a load balancer as belonging to `service`."""
        return {
            **self.cluster.labels,
            "namespace": service.metadata.namespace,
            "service": service.metadata.name,
            "service-uid": service.metadata.uid,
        }


def load_balancer_name(service_uid: str) -> str:
    """Return the load balancer's name: from the UID, since a name can be given away again."""
    return f"k8s-{service_uid}"


def keys_of(load_balancer: documents.LoadBalancer) -> tuple[str, ...]:
    """Return the keys to look at when `load_balancer` changes: its Service, or group and members."""
    labels = load_balancer.labels
    namespace = labels.get("namespace", "")
    if share := labels.get("share"):
        return (group_key(namespace, share), *members_of(load_balancer))
    return (f"{namespace}/{labels.get('service', '')}",)


def group_key(namespace: str, share: str) -> str:
    """Return the queue's key of the Services that share a load balancer."""
    return f"{GROUP}{namespace}/{share}"


def members_of(load_balancer: documents.LoadBalancer) -> dict[str, str]:
    """Return the Services that a shared load balancer was made for: key → UID."""
    written = load_balancer.annotations.get(MEMBERS, "")
    return dict(part.split("=", 1) for part in written.split(",") if "=" in part)


def write_members(members: Mapping[str, str]) -> str:
    """Return the text that members_of() reads."""
    return ",".join(f"{key}={uid}" for key, uid in sorted(members.items()))
