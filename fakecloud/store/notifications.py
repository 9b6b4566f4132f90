"""PostgreSQL tells the other servers of a commit; what misses a notification polls.

A NOTIFY inside a write transaction would take a lock of the whole database at its commit, so it is
sent afterwards, on a connection of its own, and one for all commits of 20 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Event
from typing import Any, Final

import psycopg
import structlog
from sqlalchemy.engine import URL

from fakecloud.clock import Clock

CHANNEL: Final = "fakecloud"
CLOCK: Final = "clock"
PAUSE_S: Final = 0.02
LISTEN_S: Final = 1.0
AGAIN_S: Final = 1.0

log = structlog.get_logger()


class Notifications:
    """Two loops, `speak` and `listen`: one turn per call, each in a thread of its own."""

    def __init__(self, url: URL, me: str, clock: Clock, stop: Event) -> None:
        """Speak as `me`; what oneself said is not heard."""
        self._url = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._me = me
        self._clock = clock
        self._stop = stop
        self._committed = Event()
        self._of_clock = Event()
        self._speaker: psycopg.Connection[Any] | None = None
        self._listener: psycopg.Connection[Any] | None = None

    def committed(self) -> None:
        """Note that there is something to tell."""
        self._committed.set()

    def clock_changed(self) -> None:
        """Note that business time goes on in another way."""
        self._of_clock.set()
        self._committed.set()

    def speak(self) -> None:
        """Tell the others once something was committed, then be silent for 20 ms."""
        if not self._committed.wait(LISTEN_S):
            return
        self._committed.clear()
        of_clock = self._of_clock.is_set()
        self._of_clock.clear()
        try:
            if self._speaker is None:
                self._speaker = self._connect()
            said = f"{self._me}:{CLOCK}" if of_clock else self._me
            self._speaker.execute("SELECT pg_notify(%s, %s)", (CHANNEL, said))
        except psycopg.Error as error:
            _drop(self._speaker)
            self._speaker = None
            self._committed.set()
            if of_clock:
                self._of_clock.set()
            self._pause("notify", error)
            return
        self._clock.wait(self._stop, PAUSE_S)

    def listen(
        self, heard: Callable[[], None], clock_heard: Callable[[], None] | None = None
    ) -> None:
        """Call `heard` for what others told within a second; also after being deaf for a while.

        clock_heard: called when it was about business time.
        """
        try:
            if self._listener is None:
                self._listener = self._connect()
                self._listener.execute(f"LISTEN {CHANNEL}")
                heard()
            for note in self._listener.notifies(timeout=LISTEN_S, stop_after=1):
                host, _, topic = note.payload.partition(":")  # which no host's name has
                if host != self._me:
                    heard()
                    if clock_heard is not None and topic == CLOCK:
                        clock_heard()
        except psycopg.Error as error:
            _drop(self._listener)
            self._listener = None
            self._pause("listen", error)

    def close(self) -> None:
        """Close both connections."""
        _drop(self._speaker)
        self._speaker = None
        _drop(self._listener)
        self._listener = None

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            self._url, autocommit=True, connect_timeout=5, application_name="fakecloud-notify"
        )

    def _pause(self, what: str, error: psycopg.Error) -> None:
        log.warning("notifications_paused", what=what, reason=" ".join(str(error).split())[:200])
        self._clock.wait(self._stop, AGAIN_S)


def _drop(connection: psycopg.Connection[Any] | None) -> None:
    if connection is not None:
        with suppress(psycopg.Error):
            connection.close()
