"""The audit record: what was asked by whom, appended and never changed.

Each record holds the hash of the one before it and counts on from it, so that none can be
changed, taken out or put in without breaking the chain; triggers of the database refuse updates,
and deletes but of the oldest, from which the chain then starts. Writers take turns (`Database.write`), so the chain has no forks.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, delete, select, update

from fakecloud.store import journal
from fakecloud.tables.access import audit as table
from fakecloud.tables.access import audit_floor

FIRST: Final = "0" * 64
"""What the first record has for the hash of the one before."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A mutation that was asked: done (2xx) or refused, then with the problem's code.

    body_sha256: of what was sent. diff_sha256: of the events that it made, None if there were
    none. fault_id: the fault that disturbed the request.
    """

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
    diff_sha256: str | None = None
    fault_id: str | None = None


class Record(Entry, frozen=True, kw_only=True):
    """An entry in its place in the chain."""

    seq: int
    previous: str
    hash: str


class _Floor(msgspec.Struct, frozen=True):
    """The newest record that was trimmed."""

    seq: int
    hash: str


_COLUMNS = tuple(getattr(table.c, name) for name in Record.__struct_fields__)
_NEWEST = select(table.c.seq, table.c.hash).order_by(table.c.seq.desc()).limit(1)


_LATER: Final = ("diff_sha256", "fault_id")


def append(connection: Connection, entry: Entry) -> None:
    """Add a record at the end of the chain, inside a `Database.write`."""
    own = journal.of(connection)
    last, previous = own.last_record or _newest(connection)
    hash = _hash(last + 1, previous, entry)
    row = {name: getattr(entry, name) for name in Entry.__struct_fields__}
    own.append(table, row | {"seq": last + 1, "previous": previous, "hash": hash})
    own.last_record = (last + 1, hash)


def _newest(connection: Connection) -> tuple[int, str]:
    """Return number and hash of the newest record."""
    row = connection.execute(_NEWEST).first()
    if row is not None:
        return row.seq, row.hash
    floor = _floor(connection)
    return floor.seq, floor.hash


def page(connection: Connection, project: str | None, *, after: int, limit: int) -> list[Record]:
    """Return up to `limit` records of a project (None: all) with a number above `after`."""
    statement = select(*_COLUMNS).where(table.c.seq > after).order_by(table.c.seq).limit(limit)
    if project is not None:
        statement = statement.where(table.c.project == project)
    return [_value(row) for row in connection.execute(statement)]


def broken(connection: Connection) -> int | None:
    """Return the number of the first record that doesn't fit the chain, None if all do."""
    floor = _floor(connection)
    previous = floor.hash
    rows = connection.execute(select(*_COLUMNS).order_by(table.c.seq))
    for seq, row in enumerate(rows, floor.seq + 1):
        record = _value(row)
        if (record.seq, record.previous) != (seq, previous) or record.hash != _hash(
            seq, previous, record
        ):
            return seq
        previous = record.hash
    return None


def trim(connection: Connection, keep: int) -> int:
    """Forget all but the newest `keep` records, inside a `Database.write`; return how many went."""
    last = connection.execute(
        select(table.c.seq, table.c.hash).order_by(table.c.seq.desc()).offset(keep).limit(1)
    ).first()
    if last is None:
        return 0
    connection.execute(update(audit_floor).values(seq=last.seq, hash=last.hash))
    return connection.execute(delete(table).where(table.c.seq <= last.seq)).rowcount


def _floor(connection: Connection) -> _Floor:
    row = connection.execute(select(audit_floor.c.seq, audit_floor.c.hash)).one()
    return _Floor(row.seq, row.hash)


def _value(row: Row[Any]) -> Record:
    return msgspec.convert(dict(zip(Record.__struct_fields__, row, strict=True)), Record)


def _hash(seq: int, previous: str, entry: Entry) -> str:
    values = [getattr(entry, name) for name in Entry.__struct_fields__ if name not in _LATER]
    # Records of before these fields have the same hash as ever.
    later = {name: getattr(entry, name) for name in _LATER if getattr(entry, name) is not None}
    values += [later] if later else []
    return hashlib.sha256(msgspec.json.encode([seq, previous, *values])).hexdigest()
