"""Notices within milliseconds that a process ended, and when something is due."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock, Thread
from typing import Final

import structlog

from fakecloud import clock

WORKERS: Final = 4
LONGEST_SLEEP_S: Final = 60.0

log = structlog.get_logger(__name__)


class Supervisor:
    """One thread that waits, a few that call `tend(lb_id)`, which returns when to call again.

    name: what the threads are called after. The call says only "look": it may come once too
    often, never too late.
    """

    def __init__(self, name: str, time: clock.Clock, tend: Callable[[str], float | None]) -> None:
        self._clock = time
        self._tend = tend
        self._lock = Lock()
        self._due: dict[str, float] = {}
        self._owners: dict[int, str] = {}
        self._queued: set[str] = set()
        self._sleeps_until = 0.0
        self._closed = False
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix=f"{name}-tend")
        self._thread = Thread(target=self._run, name=f"{name}-watch", daemon=True)
        self._thread.start()

    def follow(self, lb_id: str, pidfds: Iterable[int]) -> None:
        """Look at `lb_id` as soon as one of its processes ends. Repeating is harmless."""
        with self._lock:
            for pidfd in pidfds:
                self._owners[pidfd] = lb_id
                # Registered already, or closed a moment ago: then it is being looked at.
                with contextlib.suppress(OSError):
                    self._epoll.register(pidfd, select.EPOLLIN | select.EPOLLONESHOT)

    def look(self, lb_id: str, at: float) -> None:
        """Look at `lb_id` at the moment `at` (monotonic seconds), or before."""
        with self._lock:
            if at >= self._due.get(lb_id, float("inf")) or self._closed:
                return
            self._due[lb_id] = at
            if at < self._sleeps_until:  # else it wakes up in time by itself
                self._sleeps_until = at
                os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Stop looking; returns when no call of `tend` runs any more."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._epoll.close()
        os.close(self._wake)

    def _run(self) -> None:
        while True:
            events = self._epoll.poll(self._sleep_s())
            with self._lock:
                if self._closed:
                    return
                for descriptor, _ in events:
                    if descriptor == self._wake:
                        os.eventfd_read(self._wake)
                    else:
                        self._queue(self._owners.pop(descriptor, None))
                now = self._clock.monotonic()
                for lb_id in [lb_id for lb_id, at in self._due.items() if at <= now]:
                    del self._due[lb_id]
                    self._queue(lb_id)

    def _sleep_s(self) -> float:
        with self._lock:
            now = self._clock.monotonic()
            soonest = min(self._due.values(), default=float("inf"))
            self._sleeps_until = max(now, min(soonest, now + LONGEST_SLEEP_S))
            return self._sleeps_until - now

    def _queue(self, lb_id: str | None) -> None:
        if lb_id is not None and lb_id not in self._queued:
            self._queued.add(lb_id)
            self._pool.submit(self._call, lb_id)

    def _call(self, lb_id: str) -> None:
        with self._lock:
            self._queued.discard(lb_id)
        try:
            again = self._tend(lb_id)
        except Exception:
            log.exception("tend_failed", lb_id=lb_id)
            again = self._clock.monotonic() + 1.0
        if again is not None:
            self.look(lb_id, again)
