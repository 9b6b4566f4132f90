"""What the reconciler needs of the world: one protocol for the cluster, one for the cloud."""

from __future__ import annotations

from typing import Protocol

from ccm import model, nodes


class Kube(Protocol):
    """The cluster. Reads are from memory; awaited methods raise KubeError."""

    def service(self, key: str) -> model.Service | None:
        """Return the Service in the cache."""

    def backends(self) -> tuple[nodes.Backend, ...]:
        """Return the nodes that take traffic."""

    async def live_service(self, key: str) -> tuple[model.Service, bool] | None:
        """Return the Service as it is now, and whether the finalizer on it is ours."""

    async def write(
        self,
        service: model.Service,
        *,
        finalizers: tuple[str, ...] | None = None,
        ingress: tuple[model.Ingress, ...] | None = None,
        conditions: tuple[model.Condition, ...] | None = None,
    ) -> model.Service:
        """Write in one patch, against the version of `service`; return the new Service."""

    def record(self, service: model.Service, type_: str, reason: str, note: str) -> None:
        """Record an event; never blocks."""


class Cloud(Protocol):
    """The cloud. Reads are from memory; awaited methods raise CloudError."""

    def observed(self, name: str) -> model.LoadBalancer | None:
        """Return the load balancer as last seen."""

    def made_for(self, key: str) -> tuple[model.LoadBalancer, ...]:
        """Return the load balancers labelled with a Service's key, of any cluster."""

    async def look_up(self, name: str) -> model.LoadBalancer | None:
        """Return the load balancer as it is now."""

    async def put(self, name: str, document: model.Document) -> model.LoadBalancer:
        """Ask for `document`; return what the cloud made of it."""

    async def delete(self, name: str) -> bool:
        """Ask for deletion; return False if nothing is left."""
