"""When a process that died is started again: the first time at once, then less and less often."""

from __future__ import annotations

from typing import Final

BACKOFF_S: Final = 0.1
LONGEST_BACKOFF_S: Final = 30.0
STABLE_S: Final = 60.0


class Restarts:
    """The back-off of one load balancer. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.due_at = float("-inf")
        self._failures = 0
        self._started_at = float("-inf")

    def started(self, now: float) -> None:
        """Note that a process serves."""
        self._started_at = now

    def succeeded(self) -> None:
        """Note that somebody was served with what they wanted: forget what failed before."""
        self._failures = 0

    def died(self, now: float) -> None:
        """Note that the process ended; one that ran for long is forgiven."""
        if now - self._started_at > STABLE_S:
            self._failures = 0
        self.failed(now)

    def failed(self, now: float) -> None:
        """Note that it can't be started now."""
        pause_s = BACKOFF_S * 2**self._failures if self._failures else 0.0
        self.due_at = now + min(pause_s, LONGEST_BACKOFF_S)
        self._failures = min(self._failures + 1, 16)
