"""The audit record: what was asked by whom, appended and never changed.

Each record holds the hash of the one before it and counts on from it, so that none can be
changed, taken out or put in without breaking the chain; triggers of the database refuse updates
and deletes. Writers take turns (`Database.write`), so the chain has no forks.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, select

from fakecloud.store import ledger
from fakecloud.tables import audit as table

FIRST: Final = "0" * 64
"""What the first record has for the hash of the one before."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A mutation that was asked: done (2xx) or refused, then with the problem's code."""

    at: datetime
    project: str
    token_id: str
    client: str
    method: str
    path: str
    status: int
    code: str | None
    request_id: str
    body_sha256: str


class Record(Entry, frozen=True, kw_only=True):
    """An entry in its place in the chain."""

    seq: int
    previous: str
    hash: str


_COLUMNS = tuple(getattr(table.c, name) for name in Record.__struct_fields__)
_NEWEST = select(table.c.seq, table.c.hash).order_by(table.c.seq.desc()).limit(1)


def append(connection: Connection, entry: Entry) -> None:
    """Add a record at the end of the chain, inside a `Database.write`."""
    own = ledger.of(connection)
    last, previous = own.last_record or _newest(connection)
    hash = _hash(last + 1, previous, entry)
    row = {name: getattr(entry, name) for name in Entry.__struct_fields__}
    own.append(table, row | {"seq": last + 1, "previous": previous, "hash": hash})
    own.last_record = (last + 1, hash)


def _newest(connection: Connection) -> tuple[int, str]:
    """Return number and hash of the newest record."""
    row = connection.execute(_NEWEST).first()
    return (0, FIRST) if row is None else (row.seq, row.hash)


def page(connection: Connection, project: str | None, *, after: int, limit: int) -> list[Record]:
    """Return up to `limit` records of a project (None: all) with a number above `after`."""
    statement = select(*_COLUMNS).where(table.c.seq > after).order_by(table.c.seq).limit(limit)
    if project is not None:
        statement = statement.where(table.c.project == project)
    return [_value(row) for row in connection.execute(statement)]


def broken(connection: Connection) -> int | None:
    """Return the number of the first record that doesn't fit the chain, None if all do."""
    previous = FIRST
    rows = connection.execute(select(*_COLUMNS).order_by(table.c.seq))
    for seq, row in enumerate(rows, 1):
        record = _value(row)
        if (record.seq, record.previous) != (seq, previous) or record.hash != _hash(
            seq, previous, record
        ):
            return seq
        previous = record.hash
    return None


def _value(row: Row[Any]) -> Record:
    return msgspec.convert(dict(zip(Record.__struct_fields__, row, strict=True)), Record)


def _hash(seq: int, previous: str, entry: Entry) -> str:
    values = [getattr(entry, name) for name in Entry.__struct_fields__]
    return hashlib.sha256(msgspec.json.encode([seq, previous, *values])).hexdigest()
