"""Who may call: tokens by their hash. The token itself is nowhere."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, func, insert, select, update

from fakecloud.resources import Token
from fakecloud.tables.access import token as table

_COLUMNS = tuple(getattr(table.c, name) for name in Token.__struct_fields__)


def _value(row: Sequence[Any]) -> Token:
    return msgspec.convert(dict(zip(Token.__struct_fields__, row, strict=False)), Token)


def add(connection: Connection, token: Token, *, hash: str) -> None:
    """Store a token with its hash; its first characters are for recognition by people."""
    values = {name: getattr(token, name) for name in Token.__struct_fields__}
    connection.execute(
        insert(table).values(values | {"hash": hash, "scopes": sorted(token.scopes)})
    )


def find(connection: Connection, prefix: str, hash: str) -> Token | None:
    """Return whom a hash belongs to, revoked or not.

    The prefix is no secret; the hashes of all that share it are compared in constant time.
    """
    rows = connection.execute(select(*_COLUMNS, table.c.hash).where(table.c.prefix == prefix))
    found = [row for row in rows if hmac.compare_digest(row.hash, hash)]
    return _value(found[0]) if found else None


def like(connection: Connection, prefix: str) -> Token | None:
    """Return a token that begins so, None if there is none."""
    row = connection.execute(
        select(*_COLUMNS).where(table.c.prefix == prefix).order_by(table.c.id).limit(1)
    ).first()
    return None if row is None else _value(row)


def get(connection: Connection, project: str, id: str) -> Token | None:
    """Return a project's token by id, revoked or not."""
    row = connection.execute(
        select(*_COLUMNS).where(table.c.project == project, table.c.id == id)
    ).first()
    return None if row is None else _value(row)


def page(connection: Connection, project: str, *, after: str, limit: int) -> list[Token]:
    """Return up to `limit` tokens that aren't revoked, with an id above `after`."""
    rows = connection.execute(
        select(*_COLUMNS)
        .where(table.c.project == project, table.c.revoked_at.is_(None), table.c.id > after)
        .order_by(table.c.id)
        .limit(limit)
    )
    return [_value(row) for row in rows]


def count(connection: Connection, project: str) -> int:
    """Return how many tokens of a project aren't revoked."""
    return connection.execute(
        select(func.count()).where(table.c.project == project, table.c.revoked_at.is_(None))
    ).scalar_one()


def revoke(connection: Connection, id: str, now: datetime) -> None:
    """Let the token open nothing any more; its row stays for the record."""
    connection.execute(
        update(table).where(table.c.id == id, table.c.revoked_at.is_(None)).values(revoked_at=now)
    )


def used(connection: Connection, moments: Mapping[str, datetime]) -> None:
    """Record when tokens were last used, by id."""
    connection.execute(
        update(table)
        .where(table.c.id == bindparam("token_id"))
        .values(last_used_at=bindparam("moment")),
        [{"token_id": id, "moment": moment} for id, moment in moments.items()],
    )


def exists(connection: Connection) -> bool:
    """Say whether any token was ever made."""
    return connection.execute(select(table.c.id).limit(1)).first() is not None
