"""Business time: what people read and pay by. Real, faster than real, or moved by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from threading import Event, Lock
from typing import Final

import msgspec

from fakecloud.clock import Clock

MAX_RATE: Final = 100_000
MAX_ADVANCE: Final = timedelta(days=731)
LATEST: Final = datetime(2500, 1, 1, tzinfo=UTC)
"""Business time stands still here; ids sort by time up to the year 2527."""
_STEP: Final = timedelta(milliseconds=50)


class Mode(StrEnum):
    """How business time passes."""

    REAL = "real"
    RATE = "rate"  # so many times as fast as real
    MANUAL = "manual"  # not at all, but by :advance


class Status(StrEnum):
    """Whether an advance is under way."""

    READY = "READY"
    ADVANCING = "ADVANCING"


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """Business time as a function of wall time: a line through the anchor.

    target, origin, operation: of the advance under way or the last one.
    """

    mode: Mode
    rate: int
    anchor_sim: datetime
    anchor_wall: datetime
    status: Status = Status.READY
    target: datetime | None = None
    origin: datetime | None = None
    operation: str | None = None

    @property
    def speed(self) -> int:
        """Return how many business seconds pass in a second; 0 when it is moved by hand."""
        if self.status is Status.ADVANCING or self.mode is Mode.MANUAL:
            return 0
        return self.rate if self.mode is Mode.RATE else 1

    def at(self, wall: datetime) -> datetime:
        """Return the business time at `wall`; before the anchor it stands still."""
        passed = max(wall - self.anchor_wall, timedelta())
        if not self.speed:
            return self.anchor_sim
        if passed > (LATEST - self.anchor_sim) / self.speed:
            return max(LATEST, self.anchor_sim)
        return self.anchor_sim + passed * self.speed

    def anchored(self, sim: datetime, wall: datetime) -> Timeline:
        """Return the same line through another point."""
        return msgspec.structs.replace(self, anchor_sim=sim, anchor_wall=wall)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
UNCHANGED: Final = Timeline(mode=Mode.REAL, rate=1, anchor_sim=_EPOCH, anchor_wall=_EPOCH)
"""Where nobody has set the clock, business time is wall time."""


class BusinessClock:
    """The clock of a server: business time from memory, everything else from the system.

    `wall` is the system's, put right by what `correct` was told of the database's clock, so that
    servers on several machines agree about leases to within a network round trip and 50 ms.
    """

    def __init__(self, system: Clock) -> None:
        """Follow real time until told otherwise."""
        self._system = system
        self._timeline = UNCHANGED
        self._last = UNCHANGED.anchor_sim
        self._offset = timedelta()
        self._lock = Lock()

    @property
    def timeline(self) -> Timeline:
        """Return the line it follows."""
        return self._timeline

    def rate(self) -> int:
        """Return how much a simulated delay shrinks; by hand and in an advance it doesn't."""
        return max(self._timeline.speed, 1)

    def follow(self, timeline: Timeline) -> None:
        """Follow another line from now on; what was said already is never taken back."""
        with self._lock:
            self._timeline = timeline

    def correct(self, wall: datetime) -> None:
        """Take `wall` for the present moment when our own differs by more than 50 ms."""
        offset = wall - self._system.wall()
        if abs(offset - self._offset) > _STEP:
            self._offset = offset

    def now(self) -> datetime:
        """Return aware UTC business time, never earlier than before."""
        wall = self.wall()
        with self._lock:
            self._last = max(self._last, self._timeline.at(wall))
            return self._last

    def wall(self) -> datetime:
        """Return aware UTC wall time, as all servers of a database see it."""
        return self._system.wall() + self._offset

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._system.monotonic()

    def wait(self, stop: Event, seconds: float) -> bool:
        """Wait until `stop` is set (True) or `seconds` of real time have passed (False)."""
        return self._system.wait(stop, seconds)
