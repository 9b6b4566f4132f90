"""What every long-lived stream needs: whole lines, and pauses between attempts that fail."""

from __future__ import annotations

import random

from ccm import errors


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


class LineSplitter:
    """Collects chunks and gives back whole lines; an unfinished tail is kept, never handed out.

    max_line_bytes bounds the memory that a peer without newlines can take.
    """

    def __init__(self, max_line_bytes: int = 8 * 1024 * 1024) -> None:
        self._tail = b""
        self._max = max_line_bytes

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that `chunk` completes, without newlines and without empty ones.

        Raises: CcmError if a line grows beyond the bound.
        """
        *whole, self._tail = (self._tail + chunk).split(b"\n")
        if len(self._tail) > self._max:
            raise errors.CcmError(f"a line of the stream is longer than {self._max} bytes")
        return [line for line in whole if line]
