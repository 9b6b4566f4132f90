"""Turns: a lock that goes to who has waited longest, so that nobody waits for ever."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from threading import Lock


class Turns:
    """One thread at a time has the turn."""

    def __init__(self) -> None:
        """Let the first who asks have it."""
        self._mutex = Lock()
        self._taken = False
        self._waiting: deque[Future[bool]] = deque()

    def take(self, timeout_s: float) -> bool:
        """Wait for the turn; False if it didn't come in time, or all were sent away."""
        with self._mutex:
            if not self._taken:
                self._taken = True
                return True
            mine: Future[bool] = Future()
            self._waiting.append(mine)
        try:
            return mine.result(timeout_s)
        except TimeoutError:
            with self._mutex:
                if mine.done():
                    return mine.result()  # it came just now
                self._waiting.remove(mine)
        return False

    def hand_on(self) -> bool:
        """Give the turn to who waits longest; False, and it is still ours, if nobody waits."""
        with self._mutex:
            if not self._waiting:
                return False
            self._waiting.popleft().set_result(True)
            return True

    def give_back(self) -> None:
        """Give the turn to who waits longest, or else to the next who asks."""
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().set_result(True)
            else:
                self._taken = False

    def send_away(self) -> None:
        """Give the turn back and let all who wait go without it: it would be of no use to them."""
        with self._mutex:
            for one in self._waiting:
                one.set_result(False)
            self._waiting.clear()
            self._taken = False
