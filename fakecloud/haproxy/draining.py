"""The generations of a load balancer that accept nothing any more and finish their connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import structlog

from fakecloud import clock, errors
from fakecloud.haproxy import generation

MOST: Final = 16
"""So many live beside the one that accepts, each of 2.5 MB, as long as they have connections.

Ten changes within two seconds that each take a process cut nobody; whoever changes listeners more
often than that while connections last gives up the oldest ones.
"""
FIRST_LOOK_S: Final = 0.05
LONGEST_LOOK_S: Final = 5.0


class Pace:
    """How long to wait until the next look: soon at first, then less and less often."""

    def __init__(self) -> None:
        self._pause_s = FIRST_LOOK_S

    def again(self) -> None:
        """Begin anew: something happened."""
        self._pause_s = FIRST_LOOK_S

    def next(self, now: float) -> float:
        """Return when to look again."""
        self._pause_s = min(self._pause_s * 2, LONGEST_LOOK_S)
        return now + self._pause_s


class Draining:
    """Generations on their way out, the oldest first. Not thread-safe: its owner takes turns."""

    def __init__(
        self,
        time: clock.Clock,
        log: structlog.stdlib.BoundLogger,
        farewell: Callable[[generation.Generation], None],
    ) -> None:
        """Call `farewell` with each right before it is ended: what it counted goes with it."""
        self._farewell = farewell
        self._clock = time
        self._log = log
        self._pace = Pace()
        self._generations: list[generation.Generation] = []

    def __iter__(self) -> Iterator[generation.Generation]:
        """Yield the generations, the oldest first."""
        return iter(self._generations)

    def make_room(self) -> None:
        """End those without connections, and then the oldest ones, until one more may join."""
        if len(self._generations) >= MOST:
            self.tend(self._clock.monotonic())
        while len(self._generations) >= MOST:
            oldest = self._generations[0]
            self._log.warning("generation_ended", generation=oldest.number, reason="too many")
            self._end(oldest)

    def add(self, before: generation.Generation, patience_s: float) -> None:
        """Let a generation accept no more; its connections have `patience_s` to finish."""
        self._generations.append(before)
        self._pace.again()
        try:
            before.stop_accepting(self._clock.monotonic() + patience_s)
        except errors.Transient as error:
            # It would go on accepting beside its successor.
            self._log.warning("generation_ended", generation=before.number, reason=error.message)
            self._end(before)

    def bury(self) -> None:
        """Forget those that died."""
        for gone in [one for one in self._generations if not one.process.alive()]:
            self._end(gone)

    def tend(self, now: float) -> tuple[bool, float | None]:
        """End those whose connections have finished, or have had their time.

        Returns: whether any was ended; when to look again, if ever.
        """
        done = [one for one in self._generations if now >= one.deadline or one.idle()]
        for finished in done:
            self._end(finished)
            self._log.info("generation_drained", generation=finished.number)
        return bool(done), self._pace.next(now) if self._generations else None

    def clear(self) -> None:
        """Know none any more."""
        self._generations = []

    def _end(self, running: generation.Generation) -> None:
        self._generations = [one for one in self._generations if one is not running]
        self._farewell(running)
        running.end()
