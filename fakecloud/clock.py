"""Time as an argument: the only reader of the machine's clocks."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from threading import Event
from typing import Protocol


class Clock(Protocol):
    """Three times. `now` can be simulated; `wall` and `monotonic` never are.

    now: what people read and pay: created, updated, active, quarantine. wall: leases, deadlines
    and when work is due, comparable between hosts. monotonic: how long something took here.
    """

    def now(self) -> datetime:
        """Return aware UTC business time."""

    def wall(self) -> datetime:
        """Return aware UTC wall time."""

    def monotonic(self) -> float:
        """Return seconds that never go back; comparable within one boot of the machine."""

    def wait(self, stop: Event, seconds: float) -> bool:
        """Wait until `stop` is set (True) or `seconds` have passed (False)."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return aware UTC wall time: business time is not simulated here."""
        return datetime.now(UTC)

    def wall(self) -> datetime:
        """Return aware UTC wall time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since boot."""
        return time.monotonic()

    def wait(self, stop: Event, seconds: float) -> bool:
        """Wait until `stop` is set (True) or `seconds` have passed (False)."""
        return stop.wait(seconds)


def rfc3339(moment: datetime) -> str:
    """Return `moment` as RFC 3339 UTC with microseconds, e.g. 2026-11-23T10:00:00.000000Z."""
    text = moment.astimezone(UTC).isoformat(timespec="microseconds")
    return text.removesuffix("+00:00") + "Z"  # strftime doesn't pad years before 1000
