"""The service controller put together: queue, triggers, reconciler, workers."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

from ccm import context
from ccm.kube import workers, workqueue
from ccm.service import cluster, ownership, reconciler, triggers

STUCK_AFTER_S: Final = 120.0
"""A key that is worked on for longer makes the process unhealthy; every call is bounded far below."""


class ServiceController:
    """One load balancer for each Service of type LoadBalancer that is ours."""

    name = "service-lb-controller"

    def __init__(self, given: context.Context) -> None:
        settings = given.settings
        self._settings = settings
        self._queue = workqueue.WorkQueue(
            given.clock, given.metrics, base_s=settings.retry_base_s, max_s=settings.retry_max_s
        )
        owner = ownership.Ownership(given.cluster, settings.classes, settings.handle_unclassed)
        kube = cluster.Cluster(
            given.transport,
            given.services,
            given.nodes,
            given.recorder,
            may_write=given.may_write,
        )
        target = reconciler.Reconciler(
            kube, given.mirror, owner, settings, given.clock, given.metrics
        )
        self._triggers = triggers.Triggers(
            self._queue,
            kube,
            lambda name: given.mirror.observed(name) is not None,
            owner,
            given.clock,
            given.rng,
        )
        given.services.handlers.append(self._triggers.service_changed)
        given.nodes.handlers.append(self._triggers.node_changed)
        given.mirror.handlers.append(self._triggers.load_balancer_changed)
        given.mirror.on_return.append(self._queue.retry_failed)
        self._workers = workers.Workers(
            self._queue, target, given.metrics, settings.service_workers
        )

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return the queue's timers and the loops that turn time into keys."""
        return [
            self._queue.run_timers(),
            self._triggers.run_nodes(self._settings.node_debounce_s),
            self._triggers.run_resync(self._settings.resync_period_s),
        ]

    async def work(self) -> None:
        """Reconcile until shut_down(). Raises: LeaseLost."""
        await self._workers.run()

    def shut_down(self) -> None:
        """Hand out no more keys."""
        self._queue.shut_down()

    def problem(self) -> str:
        """Return which wait has become too long, "" if none has."""
        age_s = self._queue.oldest_work_s()
        return f"a Service has been in work for {age_s:.0f} s" if age_s > STUCK_AFTER_S else ""
