"""What a transaction writes at its end: its newest resource version, events, audit records.

Nobody sees these rows before the commit and no statement of the transaction asks for them, so they
wait in memory and are then written at once, for a whole group of changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Table, bindparam, select, update

from fakecloud.store import bulk
from fakecloud.tables.cloud import version

_KEY: Final = "fakecloud_journal"
_VERSION: Final = select(version.c.value)
_LOCKED_VERSION: Final = _VERSION.with_for_update()
_STORE: Final = update(version).values(value=bindparam("newest"))


class Mark(msgspec.Struct, frozen=True):
    """How far a journal was at some moment."""

    version: int | None
    last_record: Any
    lengths: dict[Table, int]


class Journal:
    """The journal of the writing transaction on one connection."""

    def __init__(self, connection: Connection) -> None:
        """Begin a journal for the transaction that `connection` has begun."""
        self._connection = connection
        self._rows: dict[Table, list[dict[str, Any]]] = {}
        self._stored: int | None = None
        self._version: int | None = None
        self.last_record: Any = None
        """What the audit keeps here of its newest record, None before its first look."""
        self._place = connection.info  # which a connection that was lost no longer shows
        self._place[_KEY] = self

    def close(self) -> None:
        """Forget everything, written or not."""
        self._place.pop(_KEY, None)

    def lock(self) -> None:
        """Wait until no other process writes, where the database lets several do so."""
        self._stored = self._version = self._connection.execute(_LOCKED_VERSION).scalar_one()

    def version(self) -> int:
        """Return the newest resource version: the database's, or the last one taken here."""
        if self._version is None:
            self._stored = self._version = self._connection.execute(_VERSION).scalar_one()
        return self._version

    def next_version(self) -> int:
        """Take the next resource version."""
        self._version = self.version() + 1
        return self._version

    def append(self, table: Table, row: dict[str, Any]) -> None:
        """Insert `row` at the end of the transaction."""
        self._rows.setdefault(table, []).append(row)

    def rows(self, table: Table) -> Sequence[dict[str, Any]]:
        """Return what waits for `table`."""
        return self._rows.get(table, ())

    def mark(self) -> Mark:
        """Return how far it is now."""
        lengths = {table: len(rows) for table, rows in self._rows.items()}
        return Mark(self._version, self.last_record, lengths)

    def rewind(self, mark: Mark) -> None:
        """Forget what came after `mark`."""
        self._version, self.last_record = mark.version, mark.last_record
        if mark.version is None:  # the look at the database's is forgotten with it
            self._stored = None
        for table, rows in self._rows.items():
            del rows[mark.lengths.get(table, 0) :]

    def flush(self) -> None:
        """Write it all."""
        if self._version != self._stored:
            self._connection.execute(_STORE, {"newest": self._version})
        bulk.insert_all(self._connection, self._rows)


def of(connection: Connection) -> Journal:
    """Return the journal of a `Database.write`."""
    journal: Journal = connection.info[_KEY]
    return journal


def find(connection: Connection) -> Journal | None:
    """Return the journal of a `Database.write`, None for a connection that only reads."""
    return connection.info.get(_KEY)
