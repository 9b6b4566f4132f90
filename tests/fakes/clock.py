"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Event


class FakeClock:
    """`now` and `monotonic` move together, by `advance` and by every `wait` that isn't stopped."""

    def __init__(self, now: datetime = datetime(2026, 11, 23, 10, tzinfo=UTC)) -> None:
        self._now = now
        self._wall = now
        self._monotonic = 1000.0

    def now(self) -> datetime:
        """Return aware UTC business time."""
        return self._now

    def wall(self) -> datetime:
        """Return aware UTC wall time."""
        return self._wall

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._monotonic

    def wait(self, stop: Event, seconds: float) -> bool:
        """Return at once, `seconds` later."""
        if stop.is_set():
            return True
        self.advance(seconds)
        return stop.is_set()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += timedelta(seconds=seconds)
        self._wall += timedelta(seconds=seconds)
        self._monotonic += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or NTP does."""
        self._now += timedelta(seconds=seconds)
        self._wall += timedelta(seconds=seconds)
