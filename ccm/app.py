"""The only wiring: settings in, exit code out.

Order: secure port → API server reachable → lease → caches → workers. At the end the other way
round: workers finish, events are written, the lease is given back, and nobody writes after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import random
import signal
import uuid
from collections.abc import Coroutine
from typing import Any

import structlog

from ccm import (
    backoff,
    cloud,
    desired,
    errors,
    mirror,
    model,
    reconciler,
    serving,
    triggers,
    workers,
    workqueue,
)
from ccm import clock as clocks
from ccm import metrics as metrics_
from ccm import settings as settings_
from ccm.kube import cluster, elector, events, informer
from ccm.kube import transport as transports

STUCK_AFTER_S = 120.0
"""A key that is worked on for longer makes the process unhealthy; every call is bounded far below."""
LEASE_GRACE_S = 20.0
EVENT_FLUSH_S = 3.0

_log = structlog.get_logger()


async def run(settings: settings_.Settings) -> int:
    """Run until SIGTERM or SIGINT (0), a lost lease or a fault (1). Raises: ConfigError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        metrics = metrics_.Metrics()
        client = cloud.Client(settings.cloud_url, settings.cloud_token_file, metrics)
        stack.push_async_callback(client.close)
        transport = await transports.connect(settings.kubeconfig)
        stack.push_async_callback(transport.close)
        controller = Controller(settings, transport, client, clocks.SystemClock(), metrics)
        return await controller.run(stop)


class Controller:
    """One instance of the controller, leading or waiting for its turn."""

    def __init__(
        self,
        settings: settings_.Settings,
        transport: transports.Transport,
        client: cloud.Client,
        clock: clocks.Clock,
        metrics: metrics_.Metrics,
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._clock = clock
        self._metrics = metrics
        self._rng = random.Random()
        self._identity = f"{platform.node()}_{uuid.uuid4()}"
        self._elector = elector.Elector(transport, settings.lease, self._identity, clock, self._rng)
        self._may_write = self._elector.check if settings.lease.enabled else _always
        self._mirror = mirror.Mirror(client, clock, self._rng, may_write=self._may_write)
        self._queue = workqueue.WorkQueue(
            clock, metrics, base_s=settings.retry_base_s, max_s=settings.retry_max_s
        )
        self._services = self._informer(cluster.SERVICES, model.Service)
        self._nodes = self._informer(cluster.NODES, model.Node)
        self._is_leading = False

    async def run(self, stop: asyncio.Event) -> int:
        """Serve health, wait for leadership, lead; return the exit code."""
        server = serving.Server(
            self._settings,
            self._metrics,
            {"leaderElection": self._lease_problem, "workers": self._worker_problem},
            {"caches": self._cache_problem, "cloud": self._cloud_problem},
        )
        try:
            return await self._run(stop, server)
        finally:
            await server.stop()

    async def _run(self, stop: asyncio.Event, server: serving.Server) -> int:
        stopping = asyncio.create_task(stop.wait())
        starting = asyncio.create_task(self._start(server))
        try:
            await asyncio.wait((stopping, starting), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return 0
            return await self._lead(starting.result(), stopping)
        finally:
            await _cancel(starting, stopping)

    async def _start(self, server: serving.Server) -> str:
        """Return the cluster's UID, once health is served and this instance leads."""
        _, uid = await asyncio.gather(server.start(), self._cluster_uid())
        if self._settings.lease.enabled:
            await self._elector.acquire()
        return uid

    async def _cluster_uid(self) -> str:
        pause = backoff.Backoff(self._rng, first_s=0.5, max_s=15.0)
        told = ""
        while True:
            try:
                return await cluster.cluster_uid(self._transport)
            except errors.KubeError as error:
                wait_s = pause.next_s(error.retry_after_s)
                say = _log.debug if told == str(error) else _log.error
                say("api_server_unavailable", error=str(error), retry_s=round(wait_s, 1))
                told = str(error)
                await self._clock.sleep(wait_s)

    async def _lead(self, cluster_uid: str, stopping: asyncio.Task[Any]) -> int:
        self._is_leading = True
        self._metrics.is_leader.labels(self._settings.lease.name).set(1)
        recorder = events.Recorder(
            self._transport, events.instance_name(self._identity), self._clock, self._metrics
        )
        work, background = self._wire(cluster_uid, recorder)
        tasks = [asyncio.create_task(one) for one in background]
        if self._settings.lease.enabled:
            tasks.append(asyncio.create_task(self._elector.hold()))
        working = asyncio.create_task(self._work_when_synced(work))
        try:
            await asyncio.wait((stopping, working, *tasks), return_when=asyncio.FIRST_COMPLETED)
            for task in (working, *tasks):
                if task.done():
                    return _fault(task)
            await self._finish(working, recorder)
            return 0
        finally:
            self._is_leading = False
            self._metrics.is_leader.labels(self._settings.lease.name).set(0)
            await _cancel(working, *tasks)
            await self._elector.release()

    def _wire(
        self, cluster_uid: str, recorder: events.Recorder
    ) -> tuple[workers.Workers, list[Coroutine[Any, Any, None]]]:
        settings = self._settings
        ownership = desired.Ownership(
            settings.cluster_name, cluster_uid, settings.classes, settings.handle_unclassed
        )
        kube = cluster.Cluster(
            self._transport, self._services, self._nodes, recorder, may_write=self._may_write
        )
        target = reconciler.Reconciler(
            kube, self._mirror, ownership, settings, self._clock, self._metrics
        )
        trigger = triggers.Triggers(
            self._queue,
            kube,
            lambda name: self._mirror.observed(name) is not None,
            ownership,
            self._clock,
            self._rng,
        )
        self._services.handlers.append(trigger.service_changed)
        self._nodes.handlers.append(trigger.node_changed)
        self._mirror.handlers.append(trigger.load_balancer_changed)
        self._mirror.on_return.append(self._queue.retry_failed)
        work = workers.Workers(self._queue, target, self._metrics, settings.service_workers)
        return work, [
            self._services.run(),
            self._nodes.run(),
            self._mirror.run(),
            self._queue.run_timers(),
            trigger.run_nodes(settings.node_debounce_s),
            trigger.run_resync(settings.resync_period_s),
            recorder.run(),
        ]

    async def _work_when_synced(self, work: workers.Workers) -> None:
        for cache in (self._services, self._nodes, self._mirror):
            await cache.synced.wait()
        _log.info("caches_synced", services=len(self._services.store), nodes=len(self._nodes.store))
        await work.run()

    async def _finish(self, working: asyncio.Task[None], recorder: events.Recorder) -> None:
        """Let the workers finish what they hold, then write the last events; both bounded."""
        _log.info("stopping")
        self._queue.shut_down()
        if self._mirror.synced.is_set():
            await asyncio.wait((working,), timeout=self._settings.shutdown_grace_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EVENT_FLUSH_S):
                await recorder.drain()

    def _informer(self, path: str, kind: type[Any]) -> informer.Informer[Any]:
        count = self._metrics.informer_errors.labels(path.rpartition("/")[2])
        return informer.Informer(
            self._transport, path, kind, self._clock, rng=self._rng, on_error=count.inc
        )

    def _lease_problem(self) -> str:
        lease = self._settings.lease
        age_s = self._elector.seconds_since_renewal()
        limit_s = lease.duration_s + LEASE_GRACE_S
        return f"lease not renewed for {age_s:.0f} s" if age_s > limit_s else ""

    def _worker_problem(self) -> str:
        age_s = self._queue.oldest_work_s()
        return f"a Service has been in work for {age_s:.0f} s" if age_s > STUCK_AFTER_S else ""

    def _cache_problem(self) -> str:
        if not self._is_leading:
            return ""
        waiting = [
            name
            for name, cache in (("services", self._services), ("nodes", self._nodes))
            if not cache.synced.is_set()
        ]
        return f"not listed yet: {', '.join(waiting)}" if waiting else ""

    def _cloud_problem(self) -> str:
        return self._mirror.problem if self._is_leading else ""


def _always() -> None:
    """Without leader election the only instance always may."""


def _fault(task: asyncio.Task[Any]) -> int:
    error = task.exception()
    if isinstance(error, errors.LeaseLost):
        _log.error("leadership_lost", error=str(error))
    else:
        _log.error("controller_crashed", exc_info=error)
    return 1


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
