"""When a serving process is looked at, and when its silence means that it hangs."""

from __future__ import annotations

from typing import Final

BEAT_S: Final = 5.0
MISSES: Final = 2
COMPARE_S: Final = 60.0


class Pulse:
    """The looks at one load balancer's process. Times are monotonic seconds.

    beat_s: the pause between two looks; one that is not answered is repeated at once. A look
    waits for an answer as long as any command (runtime.TIMEOUT_S), so that a process that hangs
    is known for it after beat_s and MISSES such waits at the latest.
    """

    def __init__(self, beat_s: float) -> None:
        self.due_at = float("-inf")
        self.compare_at = float("-inf")
        self._beat_s = beat_s
        self._missed = 0

    def started(self, now: float) -> None:
        """Note that a fresh process serves, which is as it should be."""
        self._missed = 0
        self.due_at = now + self._beat_s
        self.compare_at = now + COMPARE_S

    def hasten(self, now: float) -> None:
        """Look now: a command was not answered."""
        self.due_at = now

    def answered(self, now: float) -> None:
        """Note an answer."""
        self._missed = 0
        self.due_at = now + self._beat_s

    def missed(self, now: float) -> bool:
        """Note that no answer came; return whether the process is to be given up."""
        self._missed += 1
        self.due_at = now
        return self._missed >= MISSES

    def is_to_compare(self, now: float) -> bool:
        """Return whether all that runs is to be compared with the wish; the next time is later."""
        if now < self.compare_at:
            return False
        self.compare_at = now + COMPARE_S
        return True
