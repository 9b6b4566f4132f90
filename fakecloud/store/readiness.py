"""Whether the database can be written, as far as anybody has noticed; asked again when not."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext

from fakecloud.errors import Unavailable
from fakecloud.store import events
from fakecloud.store.database import Database, reason


class Readiness:
    """Notes what the database refused, until a write is seen to succeed again."""

    def __init__(self, database: Database, write: Callable[[], object]) -> None:
        """Listen to what happens to `database`.

        write: commits something that differs each time, or raises Unavailable. Equal bytes are
        not written at all, so that nothing would be learnt (SQLite, seen).
        """
        self._database = database
        self._write = write
        self._asking = Lock()
        self.noted: str | None = None
        event.listen(database.engine, "handle_error", self._note)

    def trouble(self) -> str | None:
        """Return why requests can't be served now, None if they can; may wait for the database.

        After trouble a write is tried: a disk that is full lets read all the time. One caller
        asks at a time; the others hear what was noted last.
        """
        if not self._asking.acquire(blocking=False):
            return self.noted
        try:
            with self._database.read() as connection:
                events.current_version(connection)
            before = self.noted
            if before is not None:
                self._write()
                if self.noted is before:  # nothing new meanwhile
                    self.noted = None
        except Unavailable as error:
            return error.detail
        finally:
            self._asking.release()
        return None

    def _note(self, context: ExceptionContext) -> None:
        self.noted = f"the database can't be used now: {reason(context.original_exception)}"
