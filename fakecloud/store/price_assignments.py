"""Which price book was in force when, with its whole content: a book's file may change later."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, func, insert, select

from fakecloud.billing.prices import PriceBook
from fakecloud.billing.rating import Assignment
from fakecloud.tables.billing import price_assignment as table


def assign(connection: Connection, book: PriceBook, from_us: int) -> bool:
    """Put a book in force from a moment on; False if just this content is in force already."""
    newest = connection.execute(
        select(table.c.digest).order_by(table.c.pk.desc()).limit(1)
    ).scalar_one_or_none()
    if newest == book.digest:
        return False
    connection.execute(
        insert(table).values(
            from_us=from_us, book=book.id, digest=book.digest, body=msgspec.to_builtins(book)
        )
    )
    return True


def count(connection: Connection) -> int:
    """Return how many assignments there are: it grows, and they never change."""
    return connection.execute(select(func.count(table.c.pk))).scalar_one()


def all(connection: Connection) -> list[Assignment]:
    """Return every assignment, in the order of time; the first one holds from the beginning."""
    rows = connection.execute(select(table.c.from_us, table.c.body).order_by(table.c.pk))
    return [
        Assignment(from_us=row.from_us, book=msgspec.convert(row.body, PriceBook)) for row in rows
    ]
