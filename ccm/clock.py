"""Time as an argument: the only reader of the machine's clocks."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for what people read, monotonic time for waits and leases."""

    def now(self) -> datetime:
        """Return aware UTC wall time."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return aware UTC wall time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since boot."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)


def rfc3339(moment: datetime) -> str:
    """Return `moment` as RFC 3339 UTC in whole seconds, the format of metav1.Time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_time(moment: datetime) -> str:
    """Return `moment` as RFC 3339 UTC with exactly six decimals.

    metav1.MicroTime refuses any other number of decimals, and isoformat() drops them when zero.
    """
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
