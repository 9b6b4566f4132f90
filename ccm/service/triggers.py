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
from ccm.service import nodes, ownership


class Sources(Protocol):
    """Where all Services are."""

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
        rng: random.Random | None = None,
    ) -> None:
        self._queue = queue
        self._sources = sources
        self._has_load_balancer = has_load_balancer
        self._owner = owner
        self._clock = clock
        self._rng = rng or random.Random()
        self._nodes_changed = asyncio.Event()

    def service_changed(
        self, key: str, old: objects.Service | None, new: objects.Service | None
    ) -> None:
        """Add the key if the Service is, was, or may have been ours."""
        if any(one is not None and self._concerns(one) for one in (old, new)):
            self._queue.add(key)

    def node_changed(self, key: str, old: objects.Node | None, new: objects.Node | None) -> None:
        """Note a change of the nodes that take traffic; heartbeats are none."""
        if (old and nodes.backend(old)) != (new and nodes.backend(new)):
            self._nodes_changed.set()

    def load_balancer_changed(
        self, old: documents.LoadBalancer | None, new: documents.LoadBalancer | None
    ) -> None:
        """Add the key of the Service that the load balancer was made for."""
        one = new or old
        if one is not None and self._owner.owns(one) and _tells_more(old, new):
            self._queue.add(ownership.service_key(one))

    async def run_nodes(self, debounce_s: float) -> None:
        """Turn node changes into keys; changes within `debounce_s` are one."""
        while True:
            await self._nodes_changed.wait()
            await self._clock.sleep(debounce_s)
            self._nodes_changed.clear()
            self._add_wanted(spread_s=0.0)

    async def run_resync(self, period_s: float) -> None:
        """Add every Service of ours once per period, spread over it."""
        while True:
            await self._clock.sleep(period_s)
            self._add_wanted(spread_s=period_s / 2)

    def _add_wanted(self, spread_s: float) -> None:
        for service in self._sources.services():
            if self._concerns(service):
                pause = self._rng.uniform(0.0, spread_s) if spread_s else 0.0
                self._queue.add_after(service.key, pause)

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
    )
