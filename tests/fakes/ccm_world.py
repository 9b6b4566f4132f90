"""A cluster and a cloud in memory, as the reconciler's two doors, with a switch to crash at.

Every write is recorded in `World.writes`, in order over both; `crash_before` makes the process
"die" in front of the n-th write. `World.steps` has events and reads as well, and `dies_at` says in
front of which of them it dies, once for each number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from ccm import errors
from ccm.cloud import documents
from ccm.kube import objects
from ccm.service import nodes, ownership, sharing


class Crash(Exception):
    """The process died here."""


@dataclass
class World:
    """What cluster and cloud share: the order of writes, and when to crash."""

    writes: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    crash_before: int | None = None
    dies_at: list[int] = field(default_factory=list)

    def step(self, what: str) -> None:
        """Note what the process does next, or die in front of it."""
        if self.dies_at and len(self.steps) >= self.dies_at[0]:
            self.dies_at.pop(0)
            raise Crash(what)
        self.steps.append(what)

    def write(self, what: str) -> None:
        """Record a write, or die in front of it."""
        if self.crash_before is not None and len(self.writes) >= self.crash_before:
            self.crash_before = None
            raise Crash(what)
        self.step(what)
        self.writes.append(what)


class FakeKube:
    """The Kube protocol on a dict; versions and conflicts as the API server has them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._versions = itertools.count(100)
        self.store: dict[str, objects.Service] = {}
        self.node_backends: tuple[nodes.Backend, ...] = (
            nodes.Backend("node-1", ("10.0.0.1",)),
            nodes.Backend("node-2", ("10.0.0.2",)),
        )
        self.finalizers_by_us: set[str] = set()
        self.events: list[tuple[str, str, str]] = []
        self.fail_next: list[errors.KubeError] = []
        self.stale: objects.Service | None = None
        self.slices: dict[str, list[objects.EndpointSlice]] = {}

    def create(self, service: objects.Service) -> objects.Service:
        """Put a Service there, or change it, as its owner would."""
        meta = msgspec.structs.replace(service.metadata, resource_version=str(next(self._versions)))
        stored = msgspec.structs.replace(service, metadata=meta)
        self.store[service.key] = stored
        return stored

    def delete(self, key: str) -> None:
        """Mark as deleted, or remove at once if there are no finalizers."""
        service = self.store[key]
        if not service.finalizers:
            del self.store[key]
            return
        meta = msgspec.structs.replace(service.metadata, deletion_timestamp="2026-01-01T00:00:00Z")
        self.create(msgspec.structs.replace(service, metadata=meta))

    def service(self, key: str) -> objects.Service | None:
        """Return the Service; `stale` stands for a cache that is behind."""
        return self.stale if self.stale is not None else self.store.get(key)

    def endpoints(self, key: str) -> tuple[objects.EndpointSlice, ...]:
        """Return the EndpointSlices of a Service."""
        return tuple(self.slices.get(key, ()))

    def sharing(self, group: str) -> tuple[objects.Service, ...]:
        """Return the Services that ask to share."""
        return tuple(one for one in self.store.values() if sharing.share_of(one) == group)

    def backends(self) -> tuple[nodes.Backend, ...]:
        """Return the nodes that take traffic."""
        return self.node_backends

    async def live_service(self, key: str) -> tuple[objects.Service, bool] | None:
        """Return the Service and whether we wrote its finalizer."""
        self._world.step("kube:read")
        service = self.store.get(key)
        return (service, service.metadata.uid in self.finalizers_by_us) if service else None

    async def write(
        self,
        service: objects.Service,
        *,
        finalizers: tuple[str, ...] | None = None,
        ingress: tuple[objects.Ingress, ...] | None = None,
        conditions: tuple[objects.Condition, ...] | None = None,
        annotations: Mapping[str, str | None] | None = None,
    ) -> objects.Service:
        """Write against the version of `service`."""
        what = [
            name
            for name, value in (
                ("finalizers", finalizers),
                ("ingress", ingress),
                ("conditions", conditions),
                ("annotations", annotations),
            )
            if value is not None
        ]
        self._world.write("kube:" + "+".join(what))
        if self.fail_next:
            raise self.fail_next.pop(0)
        stored = self.store.get(service.key)
        if stored is None:
            raise errors.KubeNotFound(404, "NotFound", "no such service")
        if stored.metadata.resource_version != service.metadata.resource_version:
            raise errors.KubeConflict(409, "Conflict", "the object has been modified")
        return self._store_written(_annotated(stored, annotations), finalizers, ingress, conditions)

    def record(self, service: objects.Service, type_: str, reason: str, note: str) -> None:
        """Keep the event."""
        self._world.step(f"event:{reason}")
        self.events.append((type_, reason, note))

    def reasons(self) -> list[str]:
        """Return the reasons of all events, in order."""
        return [reason for _, reason, _ in self.events]

    def _store_written(
        self,
        stored: objects.Service,
        finalizers: tuple[str, ...] | None,
        ingress: tuple[objects.Ingress, ...] | None,
        conditions: tuple[objects.Condition, ...] | None,
    ) -> objects.Service:
        if finalizers is not None:
            if objects.CLEANUP_FINALIZER in finalizers:
                self.finalizers_by_us.add(stored.metadata.uid)
            stored = msgspec.structs.replace(
                stored, metadata=msgspec.structs.replace(stored.metadata, finalizers=finalizers)
            )
            if stored.metadata.deletion_timestamp and not finalizers:
                del self.store[stored.key]
                return stored
        status = stored.status
        if ingress is not None:
            assert not ingress or stored.spec.type == "LoadBalancer", "the API server refuses this"
            status = msgspec.structs.replace(
                status, load_balancer=objects.LoadBalancerStatus(ingress)
            )
        if conditions is not None:
            status = msgspec.structs.replace(status, conditions=conditions)
        return self.create(msgspec.structs.replace(stored, status=status))


def _annotated(
    stored: objects.Service, annotations: Mapping[str, str | None] | None
) -> objects.Service:
    merged = {**(stored.metadata.annotations or {}), **(annotations or {})}
    kept = {name: text for name, text in merged.items() if text is not None}
    metadata = msgspec.structs.replace(stored.metadata, annotations=kept or None)
    return msgspec.structs.replace(stored, metadata=metadata)


class FakeReach:
    """The Reach protocol: every address answers unless `problems` says why not."""

    def __init__(self) -> None:
        self.here = "test-host"
        self.problems: dict[str, str | None] = {}
        self.wakes: list[Callable[[], None]] = []

    async def soon(self, ip: str, port: int, wake: Callable[[], None]) -> str | None:
        """Return what the test set."""
        self.wakes.append(wake)
        return self.problems.get(ip, "")


class FakeCloudDoor:
    """The Cloud protocol on a dict. PUT leaves PENDING; finish() is the cloud's own work."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._number = itertools.count(1)
        self.store: dict[str, documents.LoadBalancer] = {}
        self.fail_next: list[Exception] = []
        self.deletes_at_once = False
        self.documents: list[documents.Document] = []
        self.writes_ranges_as: tuple[str, ...] | None = None
        self.seen: dict[str, documents.LoadBalancer] = {}

    def observed(self, name: str) -> documents.LoadBalancer | None:
        """Return the load balancer; `seen` stands for a stream that lost an event."""
        return self.seen.get(name) or self.store.get(name)

    def made_for(self, key: str) -> tuple[documents.LoadBalancer, ...]:
        """Return those made for the key."""
        return tuple(one for one in self.store.values() if key in ownership.keys_of(one))

    async def look_up(self, name: str) -> documents.LoadBalancer | None:
        """Return the load balancer."""
        self._world.step("cloud:read")
        return self.store.get(name)

    async def put(self, name: str, document: documents.Document) -> documents.LoadBalancer:
        """Take the document; the generation grows if the spec differs."""
        self._world.write("cloud:put")
        if self.fail_next:
            raise self.fail_next.pop(0)
        self.documents.append(document)
        before = self.store.get(name)
        if before is None:
            number = next(self._number)
            status = documents.CloudStatus(
                id=f"lb_{number}",
                state="PENDING",
                generation=1,
                addresses=tuple(
                    documents.Address(
                        one.family,
                        f"127.77.0.{number}" if one.family == "ipv4" else f"fd00::{number}",
                        "default",
                    )
                    for one in document.spec.addresses
                ),
            )
        elif before.spec == document.spec or self.writes_ranges_as is not None:
            status = before.status
        else:
            status = msgspec.structs.replace(
                before.status, state="UPDATING", generation=before.status.generation + 1
            )
        spec = document.spec
        if self.writes_ranges_as is not None:
            spec = msgspec.structs.replace(spec, source_ranges=self.writes_ranges_as)
        self.store[name] = documents.LoadBalancer(
            name, document.labels, spec, status, document.annotations
        )
        return self.store[name]

    async def delete(self, name: str) -> bool:
        """Begin deletion; drop() ends it."""
        self._world.write("cloud:delete")
        if self.fail_next:
            raise self.fail_next.pop(0)
        if name not in self.store:
            return False
        if self.deletes_at_once:
            del self.store[name]
        else:
            self._set(name, state="DELETING")
        return True

    def finish(self, name: str) -> None:
        """Let the cloud reach ACTIVE."""
        self._set(name, state="ACTIVE", observed_generation=self.store[name].status.generation)

    def fail(self, name: str, message: str) -> None:
        """Let the cloud reach ERROR."""
        error = documents.LastError("bind_failed", message)
        self._set(name, state="ERROR", last_error=error)

    def drop(self, name: str) -> None:
        """Let the load balancer be gone."""
        del self.store[name]

    def _set(self, name: str, **status: object) -> None:
        one = self.store[name]
        self.store[name] = msgspec.structs.replace(
            one, status=msgspec.structs.replace(one.status, **status)
        )
