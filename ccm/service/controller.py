"""The service controller put together: queue, triggers, reconciler, workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Final

import structlog

from ccm import context, errors, selection
from ccm.cloud import documents
from ccm.kube import compacting, informer, objects, workers, workqueue
from ccm.service import cluster, inventory, nodesyncs, ownership, rates, reach, reconciler, triggers

SLICES: Final = "/apis/discovery.k8s.io/v1/endpointslices"
STUCK_AFTER_S: Final = 120.0
"""A key that is worked on for longer makes the process unhealthy; every call is bounded far below."""
CLOUD_GRACE_S: Final = 3.0
"""How long the cloud may take at the start before people are told what they wait for."""

_log = structlog.get_logger()


class ServiceController:
    """One load balancer for each Service of type LoadBalancer that is ours."""

    name = selection.SERVICE

    def __init__(self, given: context.Context) -> None:
        settings = given.settings
        self._given = given
        self._queue = workqueue.WorkQueue(
            given.clock, given.metrics, base_s=settings.retry_base_s, max_s=settings.retry_max_s
        )
        self._owner = ownership.Ownership(
            given.cluster, settings.classes, settings.handle_unclassed
        )
        self._slices = _slices(given) if settings.pod_networks else None
        self._kube = cluster.Cluster(
            given.transport,
            given.services,
            given.nodes,
            given.recorder,
            self._slices,
            may_write=given.may_write,
        )
        self._reach = reach.Reach(given.clock)
        self._rates = rates.Rates(given.prices, given.clock)
        self._reconciler = reconciler.Reconciler(
            self._kube,
            given.mirror,
            self._reach,
            self._rates,
            self._owner,
            settings,
            given.clock,
            given.metrics,
            self._queue.add,
        )
        self._node_syncs = nodesyncs.NodeSyncs(given.clock, given.metrics)
        self._triggers = triggers.Triggers(
            self._queue,
            self._kube,
            lambda name: given.mirror.observed(name) is not None,
            self._owner,
            given.clock,
            self._node_syncs,
            given.rng,
        )
        self._listen()
        self._workers = workers.Workers(self._queue, self, given.metrics, settings.service_workers)

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return the queue's timers, the loops that turn time into keys, the attempts to connect."""
        settings = self._given.settings
        loops = [
            self._queue.run_timers(),
            self._triggers.run_nodes(settings.node_debounce_s),
            self._triggers.run_resync(settings.resync_period_s),
            self._reach.run(),
            self._tell_inventory(),
        ]
        if settings.hourly_cost:
            loops.append(self._rates.run())
        return [*loops, self._slices.run()] if self._slices else loops

    async def work(self) -> None:
        """Reconcile until shut_down(). Raises: LeaseLost."""
        if self._slices is not None:
            await self._slices.synced.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._given.mirror.synced.wait(), CLOUD_GRACE_S)
        if not self._given.mirror.synced.is_set():
            await self._tell_unreachable()
        await self._given.mirror.synced.wait()
        if self._given.settings.hourly_cost:
            await (
                self._rates.step()
            )  # before any address, so that the price needs no patch of its own
        _log.info("service_controller_started", services=len(self._given.services.store))
        await self._workers.run()

    async def reconcile(self, key: str) -> workers.Outcome:
        """Do what can be done now for `key`."""
        try:
            return await self._reconciler.reconcile(key)
        finally:
            self._node_syncs.done(key)

    def shut_down(self) -> None:
        """Hand out no more keys."""
        self._queue.shut_down()

    def waiting(self) -> str:
        """Return "endpointslices" until they are listed, "" if they are or aren't needed."""
        slices = self._slices
        return "endpointslices" if slices is not None and not slices.synced.is_set() else ""

    def problem(self) -> str:
        """Return which wait has become too long, "" if none has."""
        age_s = self._queue.oldest_work_s()
        return f"a Service has been in work for {age_s:.0f} s" if age_s > STUCK_AFTER_S else ""

    def _listen(self) -> None:
        given = self._given
        given.services.handlers.append(self._triggers.service_changed)
        given.nodes.handlers.append(self._triggers.node_changed)
        given.mirror.handlers += [
            self._triggers.load_balancer_changed,
            self._reconciler.asking.load_balancer_changed,
            self._forget_addresses,
        ]
        given.mirror.on_return.append(self._queue.retry_failed)
        given.recorder.give_way_to(self._queue.is_busy)
        if self._slices is not None:
            self._slices.handlers.append(self._triggers.slice_changed)

    def _forget_addresses(
        self, old: documents.LoadBalancer | None, new: documents.LoadBalancer | None
    ) -> None:
        kept = {one.ip for one in new.status.addresses} if new else set()
        before = {one.ip for one in old.status.addresses} if old else set()
        if gone := before - kept:
            self._reach.forget(ip for ip in gone if ip)

    async def _tell_inventory(self) -> None:
        given = self._given
        await given.services.synced.wait()
        await given.mirror.synced.wait()
        await inventory.Inventory(self._kube, given.mirror, self._owner, given.clock).run()

    async def _tell_unreachable(self) -> None:
        """Say on each Service that waits for an address what it waits for."""
        failed = errors.CloudUnreachable(self._given.mirror.problem)
        for key in tuple(self._given.services.store):
            if self._given.mirror.synced.is_set():
                return
            with contextlib.suppress(errors.KubeError):
                await self._reconciler.tell_unreachable(key, failed)


def _slices(given: context.Context) -> informer.Informer[objects.EndpointSlice]:
    count = given.metrics.informer_errors.labels("endpointslices")
    made = informer.Informer(
        given.transport,
        SLICES,
        objects.EndpointSlice,
        given.clock,
        rng=given.rng,
        on_error=count.inc,
        compact=compacting.endpoint_slice,
    )
    given.metrics.informer_lag.labels("endpointslices").set_function(made.lag_s)
    return made
