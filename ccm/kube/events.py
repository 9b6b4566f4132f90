"""Kubernetes events (events.k8s.io/v1): aggregated, bounded, and never in the way.

record() only queues. Equal events become a series, as in client-go: the first is a POST, the
second a PATCH with count 2, later ones are counted here and written when the series is flushed.
Each object has a budget, so that a Service in trouble can't flood the cluster. While there is
much else to write, events wait for a while: an address matters more than what is told of it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog

from ccm import clock as clocks
from ccm import errors, settings
from ccm import metrics as metrics_
from ccm.kube import objects
from ccm.kube import transport as transports

NAMESPACE: Final = "default"
"""Of events about objects without a namespace: the API server takes no other for them."""
QUEUE_LIMIT: Final = 4096
PATIENCE_S: Final = 30.0
"""How long an event waits for others' work at most."""
GLANCE_S: Final = 0.2
"""Between two looks whether that work is done."""
BURST: Final = 25  # client-go's spam filter: 25 at once, then one in five minutes
REFILL_S: Final = 300.0
FLUSH_S: Final = 1800.0
SERIES_IDLE_S: Final = 360.0
REMEMBERED: Final = 4096
"""Series and budgets, as client-go's: what was longest unused is let go first."""
ATTEMPTS: Final = 4

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Key:
    controller: str
    about: objects.Reference
    type: str
    reason: str
    note: str


@dataclass(frozen=True, slots=True)
class _Entry:
    key: _Key
    at: float
    wall: datetime


@dataclass(slots=True)
class _Series:
    event_name: str
    count: int
    last_at: float
    last_time: str
    written_count: int
    written_at: float


@dataclass(slots=True)
class _Budget:
    left: float
    at: float


class Recorder:
    """Writes events about any object. instance: name of this process, for reportingInstance."""

    def __init__(
        self,
        transport: transports.Transport,
        instance: str,
        clock: clocks.Clock,
        metrics: metrics_.Metrics,
    ) -> None:
        self._transport = transport
        self._instance = instance[:128]
        self._clock = clock
        self._dropped = metrics.events_dropped
        self._queue: asyncio.Queue[_Entry] = asyncio.Queue(QUEUE_LIMIT)
        metrics.events_waiting.set_function(self._queue.qsize)
        self._gives_way: list[Callable[[], bool]] = []
        self._is_draining = False
        # Both from the longest unused to the latest, so that what has become old is found at once.
        self._series: OrderedDict[_Key, _Series] = OrderedDict()
        self._budgets: OrderedDict[str, _Budget] = OrderedDict()
        self._number = itertools.count()
        self._forbidden: set[str] = set()

    def record(
        self, controller: str, about: objects.Reference, type_: str, reason: str, note: str
    ) -> None:
        """Queue an event; a full queue or a spent budget drops it.

        controller: e.g. service-controller; type_: Normal | Warning.
        """
        key = _Key(controller, about, type_, reason, note[:1024])
        if not self._may_speak(about.uid):
            self._dropped.inc()
            return
        try:
            entry = _Entry(key, self._clock.monotonic(), self._clock.now())
            self._queue.put_nowait(entry)
        except asyncio.QueueFull:
            self._dropped.inc()

    async def run(self) -> None:
        """Write what is queued until cancelled; one event at a time."""
        while True:
            entry = await self._queue.get()
            await self._wait_for_others(entry.at + PATIENCE_S)
            await self._write(entry)
            self._queue.task_done()
            await self._close_idle()

    def give_way_to(self, is_busy: Callable[[], bool]) -> None:
        """Let events wait for a while as long as `is_busy` says so."""
        self._gives_way.append(is_busy)

    async def drain(self) -> None:
        """Wait until run() has written what is queued, then write the counts of open series."""
        self._is_draining = True
        await self._queue.join()
        for key, series in list(self._series.items()):
            await self._patch(key, series)

    async def _wait_for_others(self, until: float) -> None:
        while self._clock.monotonic() < until and not self._is_draining:
            if not any(is_busy() for is_busy in self._gives_way):
                return
            await self._clock.sleep(GLANCE_S)

    async def _write(self, entry: _Entry) -> None:
        key = entry.key
        series = self._series.get(key)
        now = self._clock.monotonic()
        if series is None or now - series.last_at > SERIES_IDLE_S:
            await self._create(entry)
            return
        series.count += 1
        series.last_at = now
        series.last_time = clocks.micro_time(entry.wall)
        self._series.move_to_end(key)
        if series.count == 2 or now - series.written_at > FLUSH_S:
            await self._patch(key, series)

    async def _create(self, entry: _Entry) -> None:
        key, wall = entry.key, entry.wall
        stamp = int(wall.timestamp() * 1_000_000) * 1000 + next(self._number) % 1000
        name = f"{key.about.name}.{stamp:x}"
        time = clocks.micro_time(wall)
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": key.about.namespace or NAMESPACE},
            "eventTime": time,
            "type": key.type,
            "reason": key.reason,
            "action": key.reason,
            "note": key.note,
            "reportingController": key.controller,
            "reportingInstance": self._instance,
            "regarding": msgspec.to_builtins(key.about),
        }
        if await self._send("POST", _path(key.about), body):
            now = self._clock.monotonic()
            self._series[key] = _Series(name, 1, now, time, 1, now)
            self._series.move_to_end(key)

    async def _patch(self, key: _Key, series: _Series) -> None:
        if series.count < 2 or series.count == series.written_count:
            return
        body = {"series": {"count": series.count, "lastObservedTime": series.last_time}}
        if await self._send("PATCH", f"{_path(key.about)}/{series.event_name}", body):
            series.written_count = series.count
            series.written_at = self._clock.monotonic()
        else:
            self._series.pop(key, None)  # expired, or its namespace is going: start afresh

    async def _close_idle(self) -> None:
        """Write the last count of series that have ended; let go what is no longer needed."""
        now = self._clock.monotonic()
        while self._series:
            key, series = next(iter(self._series.items()))
            if now - series.last_at <= SERIES_IDLE_S and len(self._series) <= REMEMBERED:
                break
            await self._patch(key, series)
            self._series.pop(key, None)
        while self._budgets:
            uid, budget = next(iter(self._budgets.items()))
            if now - budget.at <= BURST * REFILL_S and len(self._budgets) <= REMEMBERED:
                break
            del self._budgets[uid]

    async def _send(self, method: str, path: str, body: dict[str, Any]) -> bool:
        content_type = transports.MERGE_PATCH if method == "PATCH" else transports.JSON
        for attempt in range(ATTEMPTS):
            try:
                await self._transport.request(
                    method, path, body=body, content_type=content_type, timeout_s=5.0
                )
            except errors.KubeError as error:
                is_final = 400 <= error.code < 500 and error.code != 429
                if is_final or attempt == ATTEMPTS - 1:
                    self._tell(method, path, error)
                    break
                await self._clock.sleep(error.retry_after_s or 1.0 * 2**attempt)
            else:
                return True
        self._dropped.inc()
        return False

    def _tell(self, method: str, path: str, error: errors.KubeError) -> None:
        """Log why an event was dropped; a missing right once aloud, since it won't come by itself."""
        is_right = error.code == 403 and "being terminated" not in str(error)
        is_new = is_right and method not in self._forbidden
        if is_new:
            self._forbidden.add(method)
        say = _log.warning if is_new else _log.debug
        say("event_dropped", error=str(error), path=path)

    def _may_speak(self, uid: str) -> bool:
        now = self._clock.monotonic()
        budget = self._budgets.setdefault(uid, _Budget(BURST, now))
        budget.left = min(float(BURST), budget.left + (now - budget.at) / REFILL_S)
        budget.at = now
        self._budgets.move_to_end(uid)
        if budget.left < 1:
            return False
        budget.left -= 1
        return True


def instance_name(identity: str) -> str:
    """Return the reportingInstance of a process."""
    return f"{settings.FIELD_MANAGER}-{identity}"


def _path(about: objects.Reference) -> str:
    return f"/apis/events.k8s.io/v1/namespaces/{about.namespace or NAMESPACE}/events"
