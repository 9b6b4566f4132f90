"""Loops as threads: what turns the `step()`s, and what wakes them."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition, Event, Thread

import structlog

from fakecloud.clock import Clock
from fakecloud.errors import Unavailable
from fakecloud.metrics import Metrics

log = structlog.get_logger()


class Nudge:
    """Wakes idle loops when something was committed."""

    def __init__(self) -> None:
        """Start unnudged."""
        self._condition = Condition()
        self._count = 0

    def give(self) -> None:
        """Wake everybody who waits."""
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    @property
    def count(self) -> int:
        """Return how often it was given; look before you work, wait after."""
        return self._count

    def wait(self, seen: int, seconds: float) -> None:
        """Wait until the count passes `seen`, or `seconds` have passed."""
        with self._condition:
            self._condition.wait_for(lambda: self._count > seen, seconds)


class Loops:
    """Threads that turn `step()`s until told to stop. The one place that survives any exception."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        """Start with no loop."""
        self.stop = Event()
        self._clock = clock
        self._metrics = metrics
        self._threads: list[Thread] = []

    def start(self, name: str, turn: Callable[[], None]) -> None:
        """Call `turn` again and again in a thread; after a failure wait a second."""

        def run() -> None:
            while not self.stop.is_set():
                try:
                    turn()
                except Unavailable as error:  # of the database; all loops would say so
                    log.warning("loop_waits", loop=name, reason=error.detail)
                    self._clock.wait(self.stop, 1.0)
                except Exception:
                    log.exception("loop_failed", loop=name)
                    self._metrics.loop_failures.labels(name).inc()
                    self._clock.wait(self.stop, 1.0)

        thread = Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def stopped(self) -> list[str]:
        """Return the loops that have ended and weren't told to: what they do isn't done."""
        if self.stop.is_set():
            return []
        return sorted(thread.name for thread in self._threads if not thread.is_alive())

    def join(self, timeout_s: float) -> None:
        """Stop all loops and wait for their turns to end."""
        self.stop.set()
        for thread in self._threads:
            thread.join(timeout_s)
