"""Charges: lines, which are only ever added, and the sum of each day, which reports read."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, func, insert, select, type_coerce, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import NullType

from fakecloud.billing.corrections import key
from fakecloud.billing.focus_rows import FIELDS
from fakecloud.billing.quantities import DAY_US, MICRO, moment
from fakecloud.billing.usage import Booked, Charge, Line
from fakecloud.tables.billing import billing_progress, cost_day
from fakecloud.tables.billing import line as line_table

COLUMNS: Final = frozenset({"resource", "attribution", "sku", "price_id", "book"})
AT_ONCE: Final = 2000
_AS_IT_IS: Final = NullType()  # a look at every value takes as long as the query
_DIALECTS: Final = {"sqlite": sqlite, "postgresql": postgresql}


def period_of(us: int) -> str:
    """Return the billing period of a moment: its UTC month, as 2026-11."""
    return moment(us).strftime("%Y-%m")


def booked(account: str, line: Line) -> Booked:
    """Return a line of the first rating of its day."""
    return Booked(id=line_id(account, line), line=line, period=period_of(line.start_us))


def corrections(
    account: str, before: Iterable[Booked], found: Iterable[Line], closed: Collection[str], now: str
) -> list[Booked]:
    """Return lines of a later rating, billed in the period `now` where their own is `closed`.

    before: all lines of the same days. Each corrects the first of its kind; in a closed month
    also the one that should have been and wasn't.
    """
    first: dict[tuple[Any, ...], tuple[str | None, int]] = {}
    for one in before:
        id, number = first.get(key(one.line), (one.id, 0))
        first[key(one.line)] = (id, number + 1)
    made = []
    for line in found:
        own = period_of(line.start_us)
        missing = line_id(account, line) if own in closed else None
        corrects, number = first.get(key(line), (missing, 0))
        made.append(
            Booked(
                id=line_id(account, line, f"{corrects}/{number}"),
                line=line,
                period=now if own in closed else own,
                corrects=corrects,
            )
        )
    return made


def line_id(account: str, line: Line, corrects: str | None = None) -> str:
    """Return the id that the same charge always has."""
    parts = (account, line, corrects)
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:32]


def add(connection: Connection, account: str, lines: Sequence[Booked]) -> None:
    """Add lines and their days' sums. Raises: IntegrityError for a line that is there already."""
    if not lines:
        return
    connection.execute(
        insert(line_table),
        [
            {
                "id": one.id,
                "account": account,
                "corrects": one.corrects,
                "period": one.period,
                **{name: getattr(one.line, name) for name in Line.__struct_fields__},
            }
            for one in lines
        ],
    )
    days: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in (one.line for one in lines):
        number = line.start_us // DAY_US
        day = days.setdefault(
            (number, line.resource, line.attribution, line.price_id, line.book),
            {
                "account": account,
                "day": number,
                "resource": line.resource,
                "attribution": line.attribution,
                "sku": line.sku,
                "price_id": line.price_id,
                "book": line.book,
                "quantity_micros": 0,
                "list_pico": 0,
                "billed_pico": 0,
                "estimated": False,
            },
        )
        day["quantity_micros"] += line.quantity_micros
        day["list_pico"] += line.list_pico
        day["billed_pico"] += line.billed_pico
        day["estimated"] = day["estimated"] or line.estimated
    connection.execute(_added(connection), list(days.values()))


def correct(connection: Connection, account: str, lines: Sequence[Booked]) -> None:
    """Add lines of days that are closed: what was read of their sums before is outdated."""
    if not lines:
        return
    add(connection, account, lines)
    table = billing_progress
    connection.execute(
        update(table).where(table.c.account == account).values(corrections=table.c.corrections + 1)
    )


def _added(connection: Connection) -> Any:
    made = _DIALECTS[connection.dialect.name].insert(cost_day)
    summed = {
        name: getattr(cost_day.c, name) + getattr(made.excluded, name)
        for name in ("quantity_micros", "list_pico", "billed_pico")
    }
    return made.on_conflict_do_update(
        index_elements=[column.name for column in cost_day.primary_key],
        set_=summed | {"estimated": cost_day.c.estimated | made.excluded.estimated},
    )


def sums(
    connection: Connection,
    account: str,
    first_day: int,
    after_day: int,
    needed: frozenset[str],
    *,
    daily: bool,
) -> Iterator[Charge]:
    """Yield what everything came to in whole days; each day by itself if `daily`.

    needed: of COLUMNS; charges that differ in others only are added up.
    """
    keys = [cost_day.c[name] for name in sorted(needed)]
    if daily:
        keys.append(cost_day.c.day)
    rows = connection.execute(
        select(
            *keys,
            *_whole("list_pico"),
            *_whole("billed_pico"),
            func.max(cost_day.c.estimated.cast(cost_day.c.day.type)).label("estimated"),
        )
        .where(
            cost_day.c.account == account, cost_day.c.day >= first_day, cost_day.c.day < after_day
        )
        .group_by(*keys)
        .having(func.count() > 0),
        execution_options={"yield_per": 2000},
    )
    nothing = dict.fromkeys(COLUMNS, "")
    for row in rows:
        yield Charge(
            **(nothing | {name: getattr(row, name) for name in needed}),
            start_us=(row.day if daily else first_day) * DAY_US,
            list_pico=_exact(row, "list_pico"),
            billed_pico=_exact(row, "billed_pico"),
            estimated=bool(row.estimated),
        )


@contextmanager
def days(
    connection: Connection, account: str, first_day: int, after_day: int
) -> Iterator[Iterator[tuple[tuple[str, str, str, str, str], int, int, int, bool]]]:
    """Give every sum of [first_day, after_day), in the order of days.

    Each is (resource, attribution, SKU, price, book), the day, at list prices, billed, estimated.
    """
    day = cost_day.c
    with connection.execute(
        select(
            day.resource,
            day.attribution,
            day.sku,
            day.price_id,
            day.book,
            day.day,
            day.list_pico,
            day.billed_pico,
            day.estimated,
        )
        .where(day.account == account, day.day >= first_day, day.day < after_day)
        .order_by(day.day),
        execution_options={"yield_per": 2000},
    ) as rows:
        yield ((row[:5], *row[5:]) for row in rows)


def _whole(name: str) -> list[Any]:
    """Return a sum in two halves: together they pass 63 bits, and SQLite refuses to."""
    column = cost_day.c[name]
    return [
        func.sum(column // MICRO).label(f"{name}_high"),
        func.sum(column % MICRO).label(f"{name}_low"),
    ]


def _exact(row: Any, name: str) -> int:
    return int(getattr(row, f"{name}_high")) * MICRO + int(getattr(row, f"{name}_low"))


def progress(connection: Connection, account: str) -> tuple[int, str] | None:
    """Return the day that is to be closed next and how far it is; None: nothing ever was."""
    row = connection.execute(
        select(billing_progress.c.day, billing_progress.c.after).where(
            billing_progress.c.account == account
        )
    ).first()
    return None if row is None else (row.day, row.after)


def closed(connection: Connection, account: str) -> tuple[int, int]:
    """Return the day after the last closed one, 0 if none is, and how often they were corrected."""
    table = billing_progress
    row = connection.execute(
        select(table.c.day, table.c.corrections).where(table.c.account == account)
    ).first()
    return (0, 0) if row is None else (row.day, row.corrections)


def begin(connection: Connection, account: str, day: int) -> None:
    """Say that an account's first day is this one, unless another server has."""
    made = _DIALECTS[connection.dialect.name].insert(billing_progress)
    values = {"account": account, "day": day, "after": ""}
    connection.execute(made.on_conflict_do_nothing(), values)


def move(connection: Connection, account: str, at: tuple[int, str], to: tuple[int, str]) -> bool:
    """Move an account's progress; False if another server has meanwhile."""
    table = billing_progress
    return (
        connection.execute(
            update(table)
            .where(table.c.account == account, table.c.day == at[0], table.c.after == at[1])
            .values(day=to[0], after=to[1])
        ).rowcount
        == 1
    )


@contextmanager
def rows(
    connection: Connection, account: str, start_us: int, end_us: int
) -> Iterator[Iterator[Sequence[Any]]]:
    """Give the lines of an account that begin in [start, end), some at a time, as tuples.

    They are in the order of time, what corrects another after it; `focus_rows.FIELDS` are in each.
    """
    table = line_table.c
    statement = (
        select(*(type_coerce(table[name], _AS_IT_IS) for name in FIELDS))
        .where(table.account == account, table.start_us >= start_us, table.start_us < end_us)
        .order_by(table.start_us, table.corrects.is_not(None), table.id)
    )
    with connection.execute(statement, execution_options={"yield_per": AT_ONCE}) as found:
        yield found.partitions(AT_ONCE)


def lines(connection: Connection, account: str, start_us: int, end_us: int) -> Iterator[Booked]:
    """Yield the lines of `rows`."""
    with rows(connection, account, start_us, end_us) as found:
        for some in found:
            for id, corrects, period, *values in some:
                line = msgspec.convert(
                    dict(zip(Line.__struct_fields__, values, strict=True)), Line, strict=False
                )
                yield Booked(id=id, line=line, period=period, corrects=corrects)


def first_wrong_day(connection: Connection, account: str) -> int | None:
    """Return the first day whose sums aren't those of its lines; None: all are."""
    day = line_table.c.start_us // DAY_US
    added = (
        select(
            day.label("day"),
            func.sum(line_table.c.billed_pico // MICRO).label("high"),
            func.sum(line_table.c.billed_pico % MICRO).label("low"),
        )
        .where(line_table.c.account == account)
        .group_by(day)
    )
    kept = (
        select(
            cost_day.c.day,
            func.sum(cost_day.c.billed_pico // MICRO).label("high"),
            func.sum(cost_day.c.billed_pico % MICRO).label("low"),
        )
        .where(cost_day.c.account == account)
        .group_by(cost_day.c.day)
    )
    lines_by_day = {
        row.day: int(row.high) * MICRO + int(row.low) for row in connection.execute(added)
    }
    sums_by_day = {
        row.day: int(row.high) * MICRO + int(row.low) for row in connection.execute(kept)
    }
    wrong = [
        day
        for day in lines_by_day.keys() | sums_by_day.keys()
        if lines_by_day.get(day) != sums_by_day.get(day)
    ]
    return min(wrong, default=None)
