"""Resource versions and the event history: what happened, in the order of commits."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, select

from fakecloud.store import journal
from fakecloud.tables.cloud import event, version

_NEWEST = select(version.c.value)
_FIRST = select(func.min(event.c.resource_version))
_SINCE = (
    select(event)
    .where(event.c.resource_version > bindparam("after"))
    .order_by(event.c.resource_version)
    .limit(bindparam("most"))
)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one object; `object` is its API document, already encoded."""

    resource_version: int
    project: str
    type: str
    kind: str
    object_id: str
    object: str


def next_version(connection: Connection) -> int:
    """Return the next resource version. Writers take turns, which orders the commits."""
    return journal.of(connection).next_version()


def current_version(connection: Connection) -> int:
    """Return the newest resource version that `connection` sees."""
    own = journal.find(connection)
    if own is not None:
        return own.version()
    value: int = connection.execute(_NEWEST).scalar_one()
    return value


def append(
    connection: Connection,
    *,
    resource_version: int,
    project: str,
    type: str,
    kind: str,
    object_id: str,
    document: dict[str, Any],
    at: datetime,
) -> None:
    """Record a change in the transaction that makes it; it is written at the end of that."""
    row = {
        "resource_version": resource_version,
        "project": project,
        "type": type,
        "kind": kind,
        "object_id": object_id,
        "object": msgspec.json.encode(document).decode(),
        "at": at,
    }
    journal.of(connection).append(event, row)


def count(connection: Connection) -> int:
    """Return how many events the transaction has recorded so far."""
    return len(journal.of(connection).rows(event))


def digest(connection: Connection, since: int, until: int | None = None) -> str | None:
    """Return the hash of the events after the first `since`, up to `until`; None if there are none.

    They are counted in the order in which the transaction recorded them.
    """
    recorded = journal.of(connection).rows(event)[since:until]
    if not recorded:
        return None
    return hashlib.sha256(msgspec.json.encode([_plain(row) for row in recorded])).hexdigest()


def _plain(row: dict[str, Any]) -> list[Any]:
    return [row["resource_version"], row["type"], row["kind"], row["object"]]


def since(connection: Connection, after: int, limit: int) -> list[Event]:
    """Return up to `limit` events with a resource version above `after`, ascending."""
    rows = connection.execute(_SINCE, {"after": after, "most": limit})
    return [
        Event(
            resource_version=row.resource_version,
            project=row.project,
            type=row.type,
            kind=row.kind,
            object_id=row.object_id,
            object=row.object,
        )
        for row in rows
    ]


def oldest(connection: Connection) -> int:
    """Return the resource version before the oldest kept event: the earliest usable `since`."""
    first = connection.execute(_FIRST).scalar_one()
    return current_version(connection) if first is None else first - 1


def trim(connection: Connection, keep: int) -> int:
    """Forget all but the newest `keep` versions of history; return how many events went."""
    floor = current_version(connection) - keep
    return connection.execute(delete(event).where(event.c.resource_version <= floor)).rowcount


def earlier(
    connection: Connection, project: str, object_id: str, version: int, back: int
) -> str | None:
    """Return an object's document so many changes before `version`; None if it wasn't there yet.

    When the history doesn't go back so far, the oldest that it has.
    """
    rows = connection.execute(
        select(event.c.object)
        .where(
            event.c.project == project,
            event.c.object_id == object_id,
            event.c.resource_version < version,
        )
        .order_by(event.c.resource_version.desc())
        .limit(back)
    ).all()
    return rows[-1].object if rows else None
