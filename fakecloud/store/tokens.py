"""Who may call: tokens by their hash. The token itself is nowhere."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, insert, select

from fakecloud.model import Token
from fakecloud.tables import token as table


def add(connection: Connection, token: Token, *, hash: str, prefix: str, now: datetime) -> None:
    """Store a token's hash and its first characters, for recognition by people."""
    connection.execute(
        insert(table).values(
            id=token.id,
            hash=hash,
            prefix=prefix,
            project=token.project,
            description=token.description,
            created_at=now,
        )
    )


def find(connection: Connection, hash: str) -> Token | None:
    """Return whom a hash belongs to."""
    row = connection.execute(
        select(table.c.id, table.c.project, table.c.description).where(table.c.hash == hash)
    ).first()
    if row is None:
        return None
    return Token(id=row.id, project=row.project, description=row.description)


def exists(connection: Connection) -> bool:
    """Say whether any token was ever made."""
    return connection.execute(select(table.c.id).limit(1)).first() is not None
