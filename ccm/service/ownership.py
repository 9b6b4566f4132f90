"""Which Services are ours to serve, and which load balancers are ours to change."""

from __future__ import annotations

from dataclasses import dataclass

from ccm import identity
from ccm.cloud import documents
from ccm.kube import objects


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


def service_key(load_balancer: documents.LoadBalancer) -> str:
    """Return namespace/name of the Service that `load_balancer` was made for."""
    labels = load_balancer.labels
    return f"{labels.get('namespace', '')}/{labels.get('service', '')}"
