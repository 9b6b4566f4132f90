"""What the reconciler needs of the world, and what it remembers between two looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ccm.cloud import documents
from ccm.kube import objects
from ccm.service import nodes


class Verdict(StrEnum):
    """What a look at a key came to."""

    IN_SYNC = "in_sync"
    WAITING = "waiting"
    REFUSED = "refused"
    NOT_OURS = "not_ours"
    REMOVED = "removed"
    SHARED = "shared"


class Kube(Protocol):
    """The cluster. Reads are from memory; awaited methods raise KubeError."""

    def service(self, key: str) -> objects.Service | None:
        """Return the Service in the cache."""

    def backends(self) -> tuple[nodes.Backend, ...]:
        """Return the nodes that take traffic."""

    def endpoints(self, key: str) -> tuple[objects.EndpointSlice, ...]:
        """Return the EndpointSlices of a Service; none if they are not watched."""

    def sharing(self, group: str) -> tuple[objects.Service, ...]:
        """Return the Services that ask to share the load balancer of `group`."""

    async def live_service(self, key: str) -> tuple[objects.Service, bool] | None:
        """Return the Service as it is now, and whether the finalizer on it is ours."""

    async def write(
        self,
        service: objects.Service,
        *,
        finalizers: tuple[str, ...] | None = None,
        ingress: tuple[objects.Ingress, ...] | None = None,
        conditions: tuple[objects.Condition, ...] | None = None,
        annotations: Mapping[str, str | None] | None = None,
    ) -> objects.Service:
        """Write in one patch, against the version of `service`; return the new Service."""

    def record(self, service: objects.Service, type_: str, reason: str, note: str) -> None:
        """Record an event; never blocks."""


class Cloud(Protocol):
    """The cloud. Reads are from memory; awaited methods raise CloudError."""

    def observed(self, name: str) -> documents.LoadBalancer | None:
        """Return the load balancer as last seen."""

    def made_for(self, key: str) -> tuple[documents.LoadBalancer, ...]:
        """Return the load balancers made for a Service or a group, of any cluster."""

    async def look_up(self, name: str) -> documents.LoadBalancer | None:
        """Return the load balancer as it is now."""

    async def put(self, name: str, document: documents.Document) -> documents.LoadBalancer:
        """Ask for `document`; return what the cloud made of it."""

    async def delete(self, name: str) -> bool:
        """Ask for deletion; return False if nothing is left."""


class Reach(Protocol):
    """Trying whether an address answers. here: where it is tried from."""

    here: str

    async def soon(self, ip: str, port: int, wake: Callable[[], None]) -> str | None:
        """Return why nothing answers, "" if something does, None if that isn't known yet.

        wake: called when it is.
        """


class Rates(Protocol):
    """What load balancers cost, from memory."""

    def rate_of(self, wanted: documents.LoadBalancerSpec) -> str | None:
        """Return what such a load balancer costs in an hour, 0.0275 USD; None: not known."""

    def words(self, rate: str) -> str:
        """Return a rate for people."""


@dataclass(slots=True)
class Memory:
    """What this process knows of one Service beyond the two caches; losing it costs little."""

    uid: str
    first_seen: float
    applied: documents.Document | None = None
    applied_generation: int = -1
    asked: int = 0  # hash of what the cloud accepted last
    announce: str = ""  # reason of the event that is due when the cloud is done
    refused: documents.Document | None = None
    refused_at: float = 0.0
    told: tuple[object, ...] | None = None
    advised: frozenset[str] = frozenset()
    delete_asked_at: float | None = None
    awaited_since: float | None = None
