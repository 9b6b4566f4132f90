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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog

from ccm import clock as clocks
from ccm import context, errors, identity, interning, selection, serving, streams
from ccm import metrics as metrics_
from ccm import settings as settings_
from ccm.cloud import client as clients
from ccm.cloud import connection as connections
from ccm.cloud import mirror
from ccm.kube import compacting, elector, events, informer, objects, reviews
from ccm.kube import transport as transports
from ccm.lifecycle import controller as lifecycle_controller
from ccm.node import controller as node_controller
from ccm.route import controller as route_controller
from ccm.service import controller as service_controller
from ccm.service import ownership

SERVICES = "/api/v1/services"
NODES = "/api/v1/nodes"
LEASE_GRACE_S = 20.0
LAG_S = 1.0
MANAGER: Final = "cloud-controller-manager"
CONTROLLERS: Final[Mapping[str, Callable[[context.Context], context.Controller]]] = {
    selection.SERVICE: service_controller.ServiceController,
    selection.NODE: node_controller.NodeController,
    selection.LIFECYCLE: lifecycle_controller.LifecycleController,
    selection.ROUTE: route_controller.RouteController,
}
"""The controllers that there are, by upstream's names."""
EVENT_FLUSH_S = 3.0

T = TypeVar("T", bound=informer.HasMeta)

_namespace_decoder = msgspec.json.Decoder(objects.Namespace)
_log = structlog.get_logger()


async def run(settings: settings_.Settings) -> int:
    """Run until SIGTERM or SIGINT (0), a lost lease or a fault (1). Raises: ConfigError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        metrics = metrics_.Metrics()
        connection = connections.Connection(
            settings.cloud_url,
            lambda: connections.read_token(settings.cloud_token_file),
            metrics,
            settings.cloud_ca_file,
        )
        client = clients.Client(connection)
        stack.push_async_callback(client.aclose)
        clock = clocks.SystemClock()
        transport = await transports.connect(settings.kubeconfig, metrics, clock)
        stack.push_async_callback(transport.close)
        access = reviews.Reviewer(
            await _other(settings.authentication_kubeconfig, stack) or transport,
            clock,
            await _other(settings.authorization_kubeconfig, stack) or transport,
        )
        instance = Instance(settings, transport, client, clock, metrics, access)
        return await instance.run(stop)


async def _other(
    kubeconfig: Path | None, stack: contextlib.AsyncExitStack
) -> transports.Transport | None:
    """Return a transport of its own if there is a kubeconfig of its own."""
    if kubeconfig is None:
        return None
    made = await transports.connect(kubeconfig)
    stack.push_async_callback(made.close)
    return made


class Instance:
    """One instance of the controller manager, leading or waiting for its turn."""

    def __init__(
        self,
        settings: settings_.Settings,
        transport: transports.Transport,
        client: clients.Client,
        clock: clocks.Clock,
        metrics: metrics_.Metrics,
        access: serving.Access | None = None,
    ) -> None:
        """access: who may read more than health; None: whom the same API server lets."""
        self._settings = settings
        self._access = access or reviews.Reviewer(transport, clock)
        self._transport = transport
        self._client = client
        self._clock = clock
        self._metrics = metrics
        self._rng = random.Random()
        self._identity = f"{platform.node()}_{uuid.uuid4()}"
        slow_paths = metrics.lease_slow_paths.labels(settings.lease.name)
        self._elector = elector.Elector(
            transport, settings.lease, self._identity, clock, self._rng, slow_paths.inc
        )
        self._may_write = self._elector.check if settings.lease.enabled else _always
        self._mirror = mirror.Mirror(
            client,
            clock,
            self._rng,
            keys_of=ownership.keys_of,
            may_write=self._may_write,
            fence=self._fence,
        )
        self._cluster = ""
        self._services = self._informer(SERVICES, objects.Service, compacting.service)
        self._nodes = self._informer(NODES, objects.Node, compacting.node)
        self._controllers: tuple[context.Controller, ...] = ()
        self._is_leading = False

    async def run(self, stop: asyncio.Event) -> int:
        """Serve health, wait for leadership, lead; return the exit code."""
        server = serving.Server(
            self._settings,
            self._metrics,
            {"leaderElection": self._lease_problem, "workers": self._worker_problem},
            {"caches": self._cache_problem, "cloud": self._cloud_problem},
            self._access,
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
        pause = streams.Backoff(self._rng, first_s=0.5, max_s=15.0)
        told = ""
        while True:
            try:
                return await self._read_cluster_uid()
            except errors.KubeError as error:
                wait_s = pause.next_s(error.retry_after_s)
                say = _log.debug if told == str(error) else _log.error
                say("api_server_unavailable", error=str(error), retry_s=round(wait_s, 1))
                told = str(error)
                await self._clock.sleep(wait_s)

    async def _read_cluster_uid(self) -> str:
        body = await self._transport.request("GET", "/api/v1/namespaces/kube-system")
        return _namespace_decoder.decode(body).metadata.uid

    async def _lead(self, cluster_uid: str, stopping: asyncio.Task[Any]) -> int:
        self._is_leading = True
        self._cluster = cluster_uid
        self._metrics.is_leader.labels(self._settings.lease.name).set(1)
        recorder = events.Recorder(
            self._transport, events.instance_name(self._identity), self._clock, self._metrics
        )
        self._controllers = self._make_controllers(cluster_uid, recorder)
        loops = [self._services.run(), self._nodes.run(), self._mirror.run(), recorder.run()]
        loops.append(self._measure_lag())
        loops += [loop for one in self._controllers for loop in one.loops()]
        tasks = [asyncio.create_task(one) for one in loops]
        if self._settings.lease.enabled:
            tasks.append(asyncio.create_task(self._elector.hold()))
        working = asyncio.create_task(self._work_when_synced())
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

    def _make_controllers(
        self, cluster_uid: str, recorder: events.Recorder
    ) -> tuple[context.Controller, ...]:
        given = context.Context(
            self._settings,
            identity.Identity(self._settings.cluster_name, cluster_uid),
            self._transport,
            self._services,
            self._nodes,
            self._mirror,
            self._client,
            self._client,
            self._client,
            recorder,
            self._clock,
            self._rng,
            self._metrics,
            self._may_write,
            self._fence,
        )
        return tuple(made(given) for name, made in CONTROLLERS.items() if self._settings.runs(name))

    async def _work_when_synced(self) -> None:
        for cache in (self._services, self._nodes):
            await cache.synced.wait()
        _log.info("caches_synced", services=len(self._services.store), nodes=len(self._nodes.store))
        await asyncio.gather(*(self._work(one) for one in self._controllers))

    async def _work(self, controller: context.Controller) -> None:
        runs = self._metrics.running_controllers.labels(MANAGER, selection.short(controller.name))
        runs.set(1)
        try:
            await controller.work()
        finally:
            runs.set(0)

    async def _finish(self, working: asyncio.Task[None], recorder: events.Recorder) -> None:
        """Let the workers finish what they hold, then write the last events; both bounded."""
        _log.info("stopping")
        for one in self._controllers:
            one.shut_down()
        if self._mirror.synced.is_set():
            await asyncio.wait((working,), timeout=self._settings.shutdown_grace_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EVENT_FLUSH_S):
                await recorder.drain()

    def _informer(
        self, path: str, kind: type[T], compact: Callable[[interning.Pool, T], T]
    ) -> informer.Informer[T]:
        resource = path.rpartition("/")[2]
        count = self._metrics.informer_errors.labels(resource)
        made = informer.Informer(
            self._transport,
            path,
            kind,
            self._clock,
            rng=self._rng,
            idle_s=self._settings.watch_idle_s,
            on_error=count.inc,
            compact=compact,
        )
        self._metrics.informer_lag.labels(resource).set_function(made.lag_s)
        return made

    async def _measure_lag(self) -> None:
        """See how late timers are: what blocks the loop delays the lease as well."""
        while True:
            due = self._clock.monotonic() + LAG_S
            await self._clock.sleep(LAG_S)
            self._metrics.loop_lag.observe(max(0.0, self._clock.monotonic() - due))

    def _fence(self) -> str:
        """Return what tells the cloud whose term this is, "" without leader election."""
        held = self._elector.fence
        return f"{self._cluster}/{held[0]}:{held[1]}" if held else ""

    def _lease_problem(self) -> str:
        lease = self._settings.lease
        age_s = self._elector.seconds_since_renewal()
        limit_s = lease.duration_s + LEASE_GRACE_S
        return f"lease not renewed for {age_s:.0f} s" if age_s > limit_s else ""

    def _worker_problem(self) -> str:
        return "; ".join(filter(None, (one.problem() for one in self._controllers)))

    def _cache_problem(self) -> str:
        if not self._is_leading:
            is_standby = self._settings.lease.enabled and self._elector.knows_leader
            return "" if is_standby else "starting"
        waiting = [
            name
            for name, cache in (("services", self._services), ("nodes", self._nodes))
            if not cache.synced.is_set()
        ]
        waiting += filter(None, (one.waiting() for one in self._controllers))
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
