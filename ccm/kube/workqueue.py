"""The work queue, with the semantics of client-go's.

A key is never with two workers; an add while it is worked on is handed out once, after done();
delays keep the earliest deadline; failures back off per key until forgotten.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from typing import Final

from ccm import clock as clocks
from ccm import metrics as metrics_

BUSY_KEYS: Final = 8
"""Keys waiting and in work beyond which a queue counts as busy."""


class ShutDown(Exception):
    """The queue hands out nothing any more."""


class WorkQueue:
    """Keys to look at. base_s and max_s bound the back-off of one key: base, 2 base, 4 base…"""

    def __init__(
        self,
        clock: clocks.Clock,
        metrics: metrics_.Metrics,
        *,
        base_s: float = 0.5,
        max_s: float = 120.0,
        name: str = "service",
    ) -> None:
        self._clock = clock
        self._base_s = base_s
        self._max_s = max_s
        self._depth = metrics.queue_depth.labels(name)
        self._adds = metrics.queue_adds.labels(name)
        self._retries = metrics.queue_retries.labels(name)
        self._wait = metrics.queue_wait.labels(name)
        self._work = metrics.queue_work.labels(name)
        metrics.queue_unfinished.labels(name).set_function(self._unfinished_s)
        metrics.queue_longest.labels(name).set_function(self.oldest_work_s)
        self._added: dict[str, float] = {}
        self._ready: deque[str] = deque()
        self._dirty: set[str] = set()
        self._working: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._has_ready = asyncio.Event()
        self._heap_changed = asyncio.Event()
        self._is_shut = False

    def add(self, key: str) -> None:
        """Hand `key` out as soon as a worker is free; once, however often it is added."""
        if self._is_shut or key in self._dirty:
            return
        self._dirty.add(key)
        self._added[key] = self._clock.monotonic()
        self._adds.inc()
        if key not in self._working:
            self._push(key)

    def add_after(self, key: str, seconds: float) -> None:
        """Add `key` in `seconds`; an earlier deadline stays."""
        if self._is_shut:
            return
        if seconds <= 0:
            self.add(key)
            return
        when = self._clock.monotonic() + seconds
        if self._due.get(key, when + 1) <= when:
            return
        self._due[key] = when
        heapq.heappush(self._heap, (when, next(self._order), key))
        self._heap_changed.set()

    def add_failed(self, key: str) -> float:
        """Add `key` after its back-off. Return the delay in seconds."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        self._retries.inc()
        delay = min(self._base_s * 2.0 ** min(count, 32), self._max_s)
        self.add_after(key, delay)
        return delay

    def forget(self, key: str) -> None:
        """Let the next failure of `key` start from the shortest back-off."""
        self._failures.pop(key, None)

    def retry_failed(self) -> None:
        """Hand out at once what failed: its cause is gone, so the next back-off starts anew."""
        for key in tuple(self._failures):
            self._due.pop(key, None)
            self.forget(key)
            self.add(key)

    def failures(self, key: str) -> int:
        """Return how often `key` failed since it was last forgotten."""
        return self._failures.get(key, 0)

    async def get(self) -> str:
        """Return the next key; the caller owes a done(). Raises: ShutDown."""
        while not self._ready:
            if self._is_shut:
                raise ShutDown
            self._has_ready.clear()
            await self._has_ready.wait()
        key = self._ready.popleft()
        self._depth.set(len(self._ready))
        self._dirty.discard(key)
        now = self._clock.monotonic()
        self._wait.observe(now - self._added.pop(key, now))
        self._working[key] = now
        return key

    def done(self, key: str) -> None:
        """Give `key` back; if it was added meanwhile, it is handed out again."""
        now = self._clock.monotonic()
        self._work.observe(now - self._working.pop(key, now))
        if key in self._dirty:
            self._push(key)

    def shut_down(self) -> None:
        """Take nothing more, drop what waits, and send idle workers home."""
        self._is_shut = True
        self._ready.clear()
        self._dirty.clear()
        self._added.clear()
        self._has_ready.set()
        self._heap_changed.set()

    def is_busy(self) -> bool:
        """Return whether there is more to do than now and then a key."""
        return len(self._ready) + len(self._working) > BUSY_KEYS

    def oldest_work_s(self) -> float:
        """Return how long the slowest key in work has been there; 0 if none is."""
        now = self._clock.monotonic()
        return max((now - since for since in self._working.values()), default=0.0)

    def _unfinished_s(self) -> float:
        now = self._clock.monotonic()
        return sum(now - since for since in self._working.values())

    async def run_timers(self) -> None:
        """Move keys whose delay is over to the ready ones, until shut down."""
        while not self._is_shut:
            self._release_due()
            self._heap_changed.clear()
            if not self._heap:
                await self._heap_changed.wait()
                continue
            await self._sleep_or_change(self._heap[0][0] - self._clock.monotonic())

    def _push(self, key: str) -> None:
        self._ready.append(key)
        self._depth.set(len(self._ready))
        self._has_ready.set()

    def _release_due(self) -> None:
        now = self._clock.monotonic()
        while self._heap and self._heap[0][0] <= now:
            when, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == when:  # otherwise an earlier deadline replaced this one
                del self._due[key]
                self.add(key)

    async def _sleep_or_change(self, seconds: float) -> None:
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        changed = asyncio.ensure_future(self._heap_changed.wait())
        try:
            await asyncio.wait((sleeping, changed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            changed.cancel()
            await asyncio.gather(sleeping, changed, return_exceptions=True)
