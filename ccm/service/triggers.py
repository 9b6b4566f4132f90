"""What makes the controller look at a Service: the Service, a Node, the cloud, and time.

Triggers only add keys; what is to be done is found out by looking.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

from ccm import clock as clocks
from ccm.cloud import documents
from ccm.kube import objects, workqueue
from ccm.service import nodes, nodesyncs, ownership, sharing


class Sources(Protocol):
    """Where all Services are."""

    def service(self, key: str) -> objects.Service | None:
        """Return the Service in the cache."""

    def services(self) -> tuple[objects.Service, ...]:
        """Return all Services in the cache."""


class Triggers:
    """Handlers for the caches, and the two loops that turn time into keys."""

    def __init__(
        self,
        queue: workqueue.WorkQueue,
        sources: Sources,
        has_load_balancer: Callable[[str], bool],
        owner: ownership.Ownership,
        clock: clocks.Clock,
        node_syncs: nodesyncs.NodeSyncs,
        rng: random.Random | None = None,
    ) -> None:
        self._queue = queue
        self._sources = sources
        self._has_load_balancer = has_load_balancer
        self._owner = owner
        self._clock = clock
        self._node_syncs = node_syncs
        self._rng = rng or random.Random()
        self._nodes_changed = asyncio.Event()

    def service_changed(
        self, key: str, old: objects.Service | None, new: objects.Service | None
    ) -> None:
        """Add the key if the Service is, was, or may have been ours."""
        both = [one for one in (old, new) if one is not None]
        if any(self._concerns(one) for one in both):
            self._queue.add(key)
        for group in {sharing.share_of(one) for one in both} - {""}:
            self._queue.add(group)

    def slice_changed(
        self, _: str, old: objects.EndpointSlice | None, new: objects.EndpointSlice | None
    ) -> None:
        """Add the Services whose pods changed, if load balancers reach pods directly."""
        for key in {one.service_key for one in (old, new) if one is not None}:
            service = self._sources.service(key)
            if service is not None and any(not port.node_port for port in service.ports):
                self._add(service, 0.0)

    def node_changed(self, key: str, old: objects.Node | None, new: objects.Node | None) -> None:
        """Note a change of the nodes that take traffic; heartbeats are none."""
        if (old and nodes.backend(old)) != (new and nodes.backend(new)):
            self._nodes_changed.set()

    def load_balancer_changed(
        self, old: documents.LoadBalancer | None, new: documents.LoadBalancer | None
    ) -> None:
        """Add the key of the Service that the load balancer was made for."""
        both = [one for one in (old, new) if one is not None and not self._owner.is_foreign(one)]
        if _tells_more(old, new):
            for key in {key for one in both for key in ownership.keys_of(one)}:
                self._queue.add(key)

    async def run_nodes(self, debounce_s: float) -> None:
        """Turn node changes into keys; changes within `debounce_s` are one."""
        while True:
            await self._nodes_changed.wait()
            await self._clock.sleep(debounce_s)
            self._nodes_changed.clear()
            self._node_syncs.begin(self._add_wanted(spread_s=0.0))

    async def run_resync(self, period_s: float) -> None:
        """Add every Service of ours once per period, spread over it."""
        while True:
            await self._clock.sleep(period_s)
            self._add_wanted(spread_s=period_s / 2)

    def _add_wanted(self, spread_s: float) -> list[str]:
        found = [one for one in self._sources.services() if self._concerns(one)]
        for service in found:
            self._add(service, self._rng.uniform(0.0, spread_s) if spread_s else 0.0)
        return [one.key for one in found]

    def _add(self, service: objects.Service, pause_s: float) -> None:
        self._queue.add_after(service.key, pause_s)
        if group := sharing.share_of(service):
            self._queue.add_after(group, pause_s)

    def _concerns(self, service: objects.Service) -> bool:
        return (
            self._owner.wants(service)
            or objects.CLEANUP_FINALIZER in service.finalizers
            or self._has_load_balancer(ownership.load_balancer_name(service.metadata.uid))
        )


def _tells_more(old: documents.LoadBalancer | None, new: documents.LoadBalancer | None) -> bool:
    """Return whether the change matters; health of targets is the cloud's business."""
    if old is None or new is None:
        return True
    before, after = old.status, new.status
    return (
        (before.state, before.generation, before.observed_generation, before.addresses)
        != (after.state, after.generation, after.observed_generation, after.addresses)
        or before.last_error != after.last_error
        or old.spec != new.spec
        or old.labels != new.labels
        or old.annotations != new.annotations
    )
