"""How fast a token may send requests: a bucket of tokens' costs that refills steadily.

In memory, so each server of a cloud counts for itself.
"""

from __future__ import annotations

import math
from threading import Lock
from typing import Final

import msgspec

from fakecloud.clock import Clock
from fakecloud.errors import RateLimited

GET: Final = 1
MUTATE: Final = 3
LIST: Final = 5
WATCH: Final = 10

_MAX_BUCKETS = 10_000


class Allowance(msgspec.Struct, frozen=True):
    """What a token has left: `remaining` of `limit` per minute, the rest back in `reset_s`."""

    limit: int
    remaining: int
    reset_s: int


class RateLimiter:
    """A bucket for each token; a request takes its cost out, or is refused."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        """Let each token spend `per_minute`, at once or over the minute."""
        self._limit = max(per_minute, WATCH)  # or the dearest request could never be made
        self._per_s = per_minute / 60
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = Lock()

    def spend(self, token_id: str, cost: int) -> Allowance:
        """Take `cost` from the token's bucket. Raises: RateLimited with the time to wait."""
        with self._lock:
            level, now = self._level(token_id)
            if level < cost:
                wait_s = max(1, math.ceil((cost - level) / self._per_s))
                raise RateLimited(
                    f"this token may spend {self._limit} per minute (a read 1, a change {MUTATE}, "
                    f"a list {LIST}, a watch {WATCH}); go on in {wait_s} s",
                    wait_s,
                )
            if len(self._buckets) >= _MAX_BUCKETS:
                self._buckets.clear()
            self._buckets[token_id] = (level - cost, now)
        return self._allowance(level - cost)

    def left(self, token_id: str) -> Allowance:
        """Return what the token may still spend."""
        return self._allowance(self._level(token_id)[0])

    def _level(self, token_id: str) -> tuple[float, float]:
        now = self._clock.monotonic()
        level, at = self._buckets.get(token_id, (float(self._limit), now))
        return min(self._limit, level + (now - at) * self._per_s), now

    def _allowance(self, left: float) -> Allowance:
        return Allowance(self._limit, int(left), math.ceil((self._limit - left) / self._per_s))
