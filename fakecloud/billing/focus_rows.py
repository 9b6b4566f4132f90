"""Rows of CostAndUsage by the million: what is the same for many lines is made once.

Lines come as tuples, `FIELDS` in their order, some thousand at a time; the cells that each has for
itself are made column by column, and put into the text that it has in common with others.
`focus.row` says what a row is; here it says it once for lines that differ in nothing but time and
quantity. What a line has for itself is a number, a time or an id: nothing that CSV quotes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from operator import itemgetter, mod, mul, sub
from typing import Any, Final

import msgspec

from fakecloud.billing import focus, money
from fakecloud.billing.prices import PriceBook
from fakecloud.billing.usage import Attribution, Booked, Line

FIELDS: Final = ("id", "corrects", "period", *Line.__struct_fields__)
"""What the tuple of a line has, in this order; `estimated` may be a number."""

Row = tuple[Any, ...]
_Columns = Mapping[str, Sequence[Any]]
MOST_ALIKE: Final = 20_000
_KIND: Final = itemgetter(
    # Whatever corrects the same line is of the same time: only there the month may be another.
    *map(
        FIELDS.index,
        ("resource", "attribution", "price_id", "book", "price_micros", "period", "corrects"),
    )
)


def row_of(booked: Booked) -> Row:
    """Return a line as a tuple."""
    values = (getattr(booked.line, name) for name in Line.__struct_fields__)
    return (booked.id, booked.corrects, booked.period, *values)


_time = lru_cache(maxsize=10_000)(focus.time)


def _billed(of: _Columns) -> Iterable[str]:
    return map(money.text, of["billed_pico"])


def _listed(of: _Columns) -> Iterable[str]:
    return map(money.text, map(mul, of["quantity_micros"], of["price_micros"]))


def _quantity(of: _Columns) -> Iterable[str]:
    return map(focus.decimal, of["quantity_micros"])


def _saved(of: _Columns) -> Iterable[str]:
    listed = map(mul, of["quantity_micros"], of["price_micros"])
    return map(money.text, map(sub, listed, of["billed_pico"]))


_OF_LINE: Final[dict[str, Callable[[_Columns], Iterable[str]]]] = {
    # What each line has for itself; everything else it has in common with others.
    "BilledCost": _billed,
    "EffectiveCost": _billed,
    "PricingCurrencyEffectiveCost": _billed,
    "ListCost": _listed,
    "ContractedCost": _listed,
    "PricingQuantity": _quantity,
    "ConsumedQuantity": _quantity,
    "ChargePeriodStart": lambda of: map(_time, of["start_us"]),
    "ChargePeriodEnd": lambda of: map(_time, of["end_us"]),
    "x_CapSavings": _saved,
    "x_Estimated": lambda of: ["true" if one else "false" for one in of["estimated"]],
    "x_CorrectsLineId": lambda of: [one or "" for one in of["corrects"]],
    "x_UsageLineId": lambda of: of["id"],
}


class Rows:
    """Makes rows of some columns. Not for several threads."""

    def __init__(
        self,
        columns: Sequence[str],
        books: Mapping[str, PriceBook],
        invoices: Mapping[str, str],
    ) -> None:
        """invoices: the ids of those that there are, by their periods."""
        self._columns = columns
        self._books = books
        self._invoices = invoices
        self._own = [_OF_LINE[name] for name in columns if name in _OF_LINE]
        self._alike: dict[Any, str] = {}

    def header(self) -> str:
        """Return the names of the columns as a line of CSV."""
        return _csv(self._columns)

    def text(self, lines: Sequence[Row], people: Mapping[str, Attribution]) -> str:
        """Return a line of CSV for each line of the bill.

        people: whom all of these lines are for, by their ids.
        """
        of = dict(zip(FIELDS, zip(*lines, strict=True), strict=True))
        cells = {make: list(make(of)) for make in self._own}
        own = zip(*(cells[make] for make in self._own), strict=True) if cells else repeat(())
        kinds = list(map(_KIND, lines))
        alike = list(map(self._alike.get, kinds))
        for place, known in enumerate(alike):
            if known is None:
                alike[place] = self._like(kinds[place], lines[place], people)
        return "".join(map(mod, alike, own))

    def _like(self, kind: Any, line: Row, people: Mapping[str, Attribution]) -> str:
        """Return what this line of CSV has in common with others, with a %s for each own cell."""
        if len(self._alike) == MOST_ALIKE:
            self._alike.clear()
        one = msgspec.convert(dict(zip(FIELDS[3:], line[3:], strict=True)), Line, strict=False)
        booked = Booked(id=line[0], line=one, corrects=line[1], period=line[2])
        entry = next(focus.entries([booked], people, self._books))
        cells = focus.row(entry, self._invoices.get(booked.period))
        made = self._alike[kind] = _csv(
            "%s" if name in _OF_LINE else cells.get(name, "").replace("%", "%%")
            for name in self._columns
        )
        return made


def table(columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> str:
    """Return a whole dataset of a few rows as CSV with a header."""
    text = io.StringIO()
    focus.write(rows, text, columns)
    return text.getvalue()


def _csv(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
