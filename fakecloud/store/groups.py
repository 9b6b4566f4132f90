"""Group commit: the writes of several threads in one transaction, each as if it were alone.

A disk takes as long to say that one change is safe as for twenty. So a writer that comes while
another is at work joins its transaction instead of waiting for its commit:

    A  begin ─ writes ─┐                                   ┌─ returns
    B     waits ───────┴ savepoint ─ writes ─┐             ├─ returns
    C        waits ──────────────────────────┴ … ─ commit ─┴─ returns

A block that fails is rolled back to its savepoint and fails alone. When nobody waits any more, or
the group is full, who wrote last commits for all; nobody is told anything before. If that fails,
nothing of the group is written, and all of them are told so. A block that takes too long loses:
the others give up waiting, and from then on the transaction can only be rolled back.
"""

from __future__ import annotations

from contextlib import suppress
from enum import Enum, auto
from threading import Event, Lock
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from fakecloud.store.journal import Journal, Mark

MOST_MEMBERS: Final = 16


class Fate(Enum):
    """What becomes of a group."""

    OPEN = auto()
    LOST = auto()  # it can only be rolled back
    COMMITTING = auto()
    COMMITTED = auto()
    ROLLED_BACK = auto()


class Group:
    """One transaction and its members. Only who has the turn may call anything but `wait`."""

    def __init__(self, connection: Connection) -> None:
        """Take over a connection; `begin` comes next."""
        self.connection = connection
        self.journal = Journal(connection)
        self.error: SQLAlchemyError | None = None
        """Why it was rolled back, if the database was the reason."""
        self._mutex = Lock()  # guards the fate until it is sealed
        self._fate = Fate.OPEN
        self._members = 0
        self._mark: Mark | None = None  # where the savepoint is
        self._over = Event()

    @property
    def takes_more(self) -> bool:
        """Say whether another may join."""
        return self._fate is Fate.OPEN and self._members < MOST_MEMBERS

    def begin(self, *, lock: bool) -> None:
        """Begin the transaction and the first block; `lock` keeps other processes from writing.

        Raises: SQLAlchemyError.
        """
        self._members = 1
        try:
            self.connection.begin()
            if lock:
                # Writers take turns, as on SQLite: they would wait for this row anyway,
                # and what they looked up before (a free name) would be outdated.
                self.journal.lock()
        except BaseException as error:
            self.lose(error if isinstance(error, SQLAlchemyError) else None)
            raise

    def join(self) -> None:
        """Begin the block of another member. Raises: SQLAlchemyError."""
        self._members += 1
        self.save()

    def save(self) -> None:
        """Set the savepoint, in the place of the one before. Raises: SQLAlchemyError."""
        try:
            if self._mark is not None:
                self.connection.exec_driver_sql("RELEASE SAVEPOINT block")
            self.connection.exec_driver_sql("SAVEPOINT block")
        except SQLAlchemyError as error:
            self.lose(error)
            raise
        self._mark = self.journal.mark()

    def undo(self) -> None:
        """Take back what was written since the savepoint; without one, all of it."""
        if self._mark is None:
            self.lose(None)
            return
        self.journal.rewind(self._mark)
        try:
            self.connection.exec_driver_sql("ROLLBACK TO SAVEPOINT block")
        except SQLAlchemyError as error:
            self.lose(error)

    def lose(self, error: SQLAlchemyError | None) -> bool:
        """Let the transaction end in a rollback; False if it is too late for that."""
        with self._mutex:
            if self._fate is Fate.OPEN:
                self._fate = Fate.LOST
                self.error = error
            return self._fate in (Fate.LOST, Fate.ROLLED_BACK)

    def end(self) -> bool:
        """Commit, unless it is lost; say whether everything is written."""
        with self._mutex:
            if self._fate is Fate.OPEN:
                self._fate = Fate.COMMITTING
        committed = False
        try:
            if self._fate is Fate.COMMITTING:
                self.journal.flush()
                self.connection.commit()
                committed = True
        except SQLAlchemyError as error:
            self.error = error
        finally:
            self.journal.close()
            with suppress(SQLAlchemyError):
                if self.error is not None:
                    self.connection.invalidate()  # a refused COMMIT leaves SQLite's open
                self.connection.close()  # what isn't committed is rolled back by this
            self._fate = Fate.COMMITTED if committed else Fate.ROLLED_BACK
        return committed

    def release(self) -> None:
        """Let the members go."""
        self._over.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; say whether everything is written.

        After `timeout_s` nothing will be, unless the database is already asked to commit.
        """
        if not self._over.wait(timeout_s) and not self.lose(None):
            self._over.wait()
        return self._fate is Fate.COMMITTED
