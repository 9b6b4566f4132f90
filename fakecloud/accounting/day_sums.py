"""What closed days came to, kept in memory: they hardly ever change, and reports ask for all.

What is kept is right for a snapshot of the database if no closed day was corrected since; days
that were closed since are read in addition.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from threading import Lock
from typing import Final

from fakecloud.billing.usage import Series
from fakecloud.store import charges
from fakecloud.store.database import Connection

MOST_SUMS: Final = 1_000_000
"""So many sums of days are kept, of all accounts together: some 20 MB."""
_ESTIMATED: Final = 2

_Key = tuple[str, str, str, str, str]  # resource, attribution, SKU, price, book


class _Column:
    """Every day from the first with a charge on, as in `Series`."""

    def __init__(self, first_day: int) -> None:
        self.first_day = first_day
        self.listed = array("q")
        self.billed = array("q")
        self.flags = array("b")

    def add(self, day: int, listed: int, billed: int, *, estimated: bool) -> int:
        """Add a day; return by how many it is longer now."""
        before = len(self.flags)
        none = bytes(day - self.first_day - before)
        self.flags.frombytes(none)
        for values, value in ((self.listed, listed), (self.billed, billed)):
            values.frombytes(none * values.itemsize)
            values.append(value)
        self.flags.append(1 | _ESTIMATED * estimated)
        return len(self.flags) - before

    def series(self, key: _Key, first_day: int, after_day: int) -> Series | None:
        """Return [first_day, after_day); None if there is nothing in it."""
        start = first_day - self.first_day
        chosen = slice(max(0, start), max(0, after_day - self.first_day))
        flags = self.flags[chosen]
        if not any(flags):
            return None
        skipped = max(0, -start)
        return Series(
            resource=key[0],
            attribution=key[1],
            sku=key[2],
            price_id=key[3],
            book=key[4],
            first_day=first_day + skipped,
            list_pico=self.listed[chosen],
            billed_pico=self.billed[chosen],
            flags=flags,
        )


class _Account:
    """The days [first_day, after_day) of an account as they are after so many corrections."""

    def __init__(self, first_day: int, corrections: int) -> None:
        self.first_day = self.after_day = first_day
        self.corrections = corrections
        self.size = 0
        self.columns: dict[_Key, _Column] | None = {}
        """None: there are too many to be kept."""


class DaySums:
    """Charges of closed days, read once. Every method may raise Unavailable."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._lock = Lock()
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    def series(
        self, connection: Connection, account: str, first_day: int, after_day: int
    ) -> list[Series] | None:
        """Return what everything came to in closed days; None if they are too many to be kept."""
        closed, corrections = charges.closed(connection, account)
        assert after_day <= closed
        with self._lock:
            kept = self._accounts.pop(account, None)
            if kept is None or kept.corrections != corrections or kept.first_day > first_day:
                kept = _Account(first_day, corrections)
            self._accounts[account] = kept
            if kept.columns is not None and kept.after_day < closed:
                kept.columns = _read(connection, account, kept, kept.columns, closed)
            while sum(one.size for one in self._accounts.values()) > MOST_SUMS:
                self._accounts.popitem(last=False)  # who wasn't asked for longest
            if kept.columns is None:
                return None
            found = (
                column.series(key, first_day, after_day) for key, column in kept.columns.items()
            )
            return [one for one in found if one is not None]


def _read(
    connection: Connection,
    account: str,
    into: _Account,
    columns: dict[_Key, _Column],
    until_day: int,
) -> dict[_Key, _Column] | None:
    """Add the days up to `until_day`; None if they are too many."""
    with charges.days(connection, account, into.after_day, until_day) as rows:
        for key, day, listed, billed, estimated in rows:
            column = columns.get(key)
            if column is None:
                column = columns[key] = _Column(day)
            into.size += column.add(day, listed, billed, estimated=estimated)
            if into.size > MOST_SUMS:
                into.size = 0
                return None
    into.after_day = until_day
    return columns
