"""Pauses between attempts that fail."""

from __future__ import annotations

import random


class Backoff:
    """Grows from `first_s` by doubling up to `max_s`, times a jitter of 1 to 1.5."""

    def __init__(self, rng: random.Random, first_s: float = 0.8, max_s: float = 30.0) -> None:
        self._rng = rng
        self._first_s = first_s
        self._max_s = max_s
        self._current_s = first_s

    def next_s(self, at_least_s: float | None = None) -> float:
        """Return the next pause in seconds, never shorter than the peer asked for."""
        pause = self._current_s * self._rng.uniform(1.0, 1.5)
        self._current_s = min(self._max_s, self._current_s * 2)
        return max(pause, at_least_s or 0.0)

    def reset(self) -> None:
        """Start again from the shortest pause."""
        self._current_s = self._first_s
