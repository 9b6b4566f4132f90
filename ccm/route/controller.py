"""The route controller put together: one key for all routes, and what leads to a look at them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

import structlog

from ccm import context, errors, selection, streams
from ccm.kube import objects, workers, workqueue
from ccm.route import decisions, reconciler

KEY: Final = "routes"
PACE_S: Final = 0.5
"""Changes within this time are one look: nodes join in crowds."""
STUCK_AFTER_S: Final = 120.0

_log = structlog.get_logger()


class RouteController:
    """Routes to the pods of all Nodes, and the condition NetworkUnavailable.

    A look is led to by Nodes, by the cloud's stream of routes, and by the period: while nothing
    happens, the cloud isn't asked.
    """

    name = selection.ROUTE

    def __init__(self, given: context.Context) -> None:
        settings = given.settings
        self._given = given
        self._queue = workqueue.WorkQueue(
            given.clock,
            given.metrics,
            base_s=settings.retry_base_s,
            max_s=settings.retry_max_s,
            name="Routes",
        )
        target = reconciler.Reconciler(
            lambda: given.nodes.store,
            given.routes,
            given.transport,
            given.recorder,
            given.clock,
            given.metrics,
            cluster=given.cluster,
            ranges=settings.cluster_cidrs,
            may_write=given.may_write,
            fence=given.fence,
        )
        self._workers = workers.Workers(self._queue, target, given.metrics, 1, "route")
        given.nodes.handlers.append(self.node_changed)
        given.mirror.on_return.append(self._queue.retry_failed)

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return the queue's timers, the stream and the periodic comparison."""
        return [self._queue.run_timers(), self._follow(), self._compare()]

    async def work(self) -> None:
        """Reconcile until shut_down(). Raises: LeaseLost."""
        _log.info("route_controller_started", cluster_cidrs=self._given.settings.cluster_cidrs)
        self._queue.add(KEY)  # also without nodes: what a former life left is removed
        await self._workers.run()

    def shut_down(self) -> None:
        """Hand out no more keys."""
        self._queue.shut_down()

    def waiting(self) -> str:
        """Return "": the nodes are a cache that all share."""
        return ""

    def problem(self) -> str:
        """Return which wait has become too long, "" if none has."""
        age_s = self._queue.oldest_work_s()
        return f"routes have been in work for {age_s:.0f} s" if age_s > STUCK_AFTER_S else ""

    def node_changed(self, key: str, old: objects.Node | None, new: objects.Node | None) -> None:
        """Look again if it matters: heartbeats of kubelets don't."""
        before = None if old is None else decisions.matters(old)
        after = None if new is None else decisions.matters(new)
        if before != after:
            self._queue.add_after(KEY, PACE_S)

    async def _compare(self) -> None:
        while True:
            await self._given.clock.sleep(self._given.settings.route_period_s)
            self._queue.add(KEY)

    async def _follow(self) -> None:
        """Look again whenever the cloud tells of a route, or was away."""
        pause = streams.Backoff(self._given.rng)
        while True:
            wait_s = None
            try:
                async for frame in self._given.routes.watch(None, "route"):
                    if frame.type == "BOOKMARK":
                        pause.reset()
                    else:
                        self._queue.add_after(KEY, PACE_S)
            except errors.CcmError as error:
                _log.debug("route_stream_interrupted", error=str(error))
                wait_s = getattr(error, "retry_after_s", None)
            await self._given.clock.sleep(pause.next_s(wait_s))
