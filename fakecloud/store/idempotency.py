"""Answers to mutations under the caller's keys, in the mutation's own transaction."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, insert, select

from fakecloud.tables.access import idempotency_key as table

KEEP: Final = timedelta(hours=48)
"""How long an answer counts, in wall time."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a request was answered; `fingerprint` says which request it was."""

    fingerprint: str
    status: int
    headers: dict[str, str]
    body: str


def find(connection: Connection, project: str, key: str, since: datetime) -> Answer | None:
    """Return the answer stored under a key at `since` or later."""
    row = connection.execute(
        select(table.c.fingerprint, table.c.status, table.c.headers, table.c.body).where(
            table.c.project == project, table.c.key == key, table.c.created_at >= since
        )
    ).first()
    if row is None:
        return None
    return Answer(
        fingerprint=row.fingerprint, status=row.status, headers=row.headers, body=row.body
    )


def keep(connection: Connection, project: str, key: str, answer: Answer, wall: datetime) -> None:
    """Store an answer, in the place of one that is too old to count."""
    connection.execute(delete(table).where(table.c.project == project, table.c.key == key))
    connection.execute(
        insert(table).values(
            project=project,
            key=key,
            fingerprint=answer.fingerprint,
            status=answer.status,
            headers=answer.headers,
            body=answer.body,
            created_at=wall,
        )
    )


def forget(connection: Connection, before: datetime) -> int:
    """Delete answers stored before `before`; return how many."""
    return connection.execute(delete(table).where(table.c.created_at < before)).rowcount
