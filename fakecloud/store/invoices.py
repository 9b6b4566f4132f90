"""Closed billing periods: what was in them, proved by a hash over every line."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import msgspec
from sqlalchemy import Connection, insert, select

from fakecloud.billing.usage import Line
from fakecloud.store.charges import period_of
from fakecloud.tables.billing import billing_period as table
from fakecloud.tables.billing import line


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """A period that is closed: nothing is added to it any more."""

    account: str
    period: str
    closed_us: int
    lines: int
    total_pico: int
    root_hash: str


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What a period comes to: `skus` are pico-units by (book, SKU, month of the charges).

    That month is an earlier one where closed months are corrected.
    """

    lines: int
    total_pico: int
    root_hash: str
    skus: dict[tuple[str, str, str], int]


def content(connection: Connection, account: str, period: str) -> Content:
    """Return what the lines of a period come to, read in the order of their ids."""
    digest = hashlib.sha256()
    skus: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    count = 0
    names = Line.__struct_fields__
    statement = (
        select(line.c.id, line.c.corrects, *(line.c[name] for name in names))
        .where(line.c.account == account, line.c.period == period)
        .order_by(line.c.id)
    )
    with connection.execute(statement, execution_options={"yield_per": 2000}) as rows:
        for row in rows:
            digest.update(msgspec.json.encode(tuple(row)))
            of = period if row.corrects is None else period_of(row.start_us)
            skus[row.book, row.sku, of] += row.billed_pico
            count += 1
    return Content(
        lines=count,
        total_pico=sum(skus.values()),
        root_hash=digest.hexdigest(),
        skus=dict(skus),
    )


def periods(connection: Connection, account: str) -> list[str]:
    """Return every period that has lines, the newest first."""
    found = connection.execute(
        select(line.c.period).where(line.c.account == account).distinct()
    ).scalars()
    return sorted(found, reverse=True)


def closed(connection: Connection, account: str, period: str | None = None) -> dict[str, Closed]:
    """Return the closed periods of an account, or the one, by period."""
    statement = select(table).where(table.c.account == account)
    if period is not None:
        statement = statement.where(table.c.period == period)
    return {
        row.period: Closed(
            account=row.account,
            period=row.period,
            closed_us=row.closed_us,
            lines=row.lines,
            total_pico=int(row.total_pico),
            root_hash=row.root_hash,
        )
        for row in connection.execute(statement)
    }


def close(connection: Connection, account: str, period: str, now_us: int) -> Closed:
    """Close a period with what its lines come to now."""
    of = content(connection, account, period)
    made = Closed(
        account=account,
        period=period,
        closed_us=now_us,
        lines=of.lines,
        total_pico=of.total_pico,
        root_hash=of.root_hash,
    )
    values = msgspec.structs.asdict(made) | {"total_pico": str(made.total_pico)}
    connection.execute(insert(table).values(values))
    return made
