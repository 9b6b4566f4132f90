"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta


class FakeClock:
    """ccm's Clock. advance() wakes sleepers in order and lets them run."""

    def __init__(self) -> None:
        self._seconds = 1000.0
        self._start = datetime(2026, 1, 1, tzinfo=UTC) - timedelta(seconds=1000)
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self.slept: list[float] = []

    def now(self) -> datetime:
        """Return aware UTC wall time."""
        return self._start + timedelta(seconds=self._seconds)

    def monotonic(self) -> float:
        """Return seconds that only advance() changes."""
        return self._seconds

    async def sleep(self, seconds: float) -> None:
        """Return when advance() has moved past the deadline."""
        self.slept.append(seconds)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._seconds + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Move time, stopping at every deadline on the way."""
        end = self._seconds + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            when, _, future = heapq.heappop(self._sleepers)
            self._seconds = max(self._seconds, when)
            if not future.done():
                future.set_result(None)
                await settle()
        self._seconds = end
        await settle()


class HastyClock(FakeClock):
    """A clock on which every sleep is over at once, and time passes by it."""

    async def sleep(self, seconds: float) -> None:
        """Note the pause and let others run."""
        self.slept.append(seconds)
        self._seconds += seconds
        await asyncio.sleep(0)


class SwiftClock:
    """ccm's Clock, `speed` times as fast as the machine's: minutes of back-off in a second."""

    def __init__(self, speed: float = 100.0) -> None:
        self._speed = speed

    def now(self) -> datetime:
        """Return aware UTC wall time."""
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.monotonic() % 1e6)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return asyncio.get_running_loop().time() * self._speed

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock."""
        await asyncio.sleep(seconds / self._speed)


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


async def until(condition: object, *, seconds: float = 5.0) -> None:
    """Return when `condition()` is true. Real time, for tests with real sockets only."""
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
