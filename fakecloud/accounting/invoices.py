"""Invoices, one for each month: provisional while it lasts, then closed and proved for ever."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from operator import itemgetter
from typing import Any, Final

from fakecloud.accounting.ledger import LATENESS_US, Ledger
from fakecloud.billing import events, focus_invoices, focus_rows, money, quantities
from fakecloud.billing.quantities import MICRO
from fakecloud.billing.usage import Attribution
from fakecloud.clock import Clock, rfc3339
from fakecloud.errors import NotFound, PeriodOpen
from fakecloud.store import billing_events, charges, proof
from fakecloud.store import invoices as rows
from fakecloud.store.database import Connection, Database

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PERIOD: Final = re.compile(r"^20\d\d-(0[1-9]|1[0-2])$")
_WHOSE: Final = itemgetter(*map(focus_rows.FIELDS.index, ("resource", "attribution")))
_CENT_PICO: Final = money.PICO // 100


class Invoices:
    """The desk for invoices and for the proof of what was billed. May raise Unavailable."""

    def __init__(self, database: Database, ledger: Ledger, clock: Clock) -> None:
        """Read from the ledger."""
        self._database = database
        self._ledger = ledger
        self._clock = clock

    def list(self, project: str) -> list[dict[str, Any]]:
        """Return every month's invoice without its lines, the newest first."""
        with self._database.read() as connection:
            closed = rows.closed(connection, project)
            return [
                self._document(connection, project, period, closed.get(period))
                for period in rows.periods(connection, project)
            ]

    def find(self, project: str, period: str) -> dict[str, Any]:
        """Return a month's invoice, what each SKU comes to in it. Raises: NotFound."""
        with self._database.read() as connection:
            closed = rows.closed(connection, project, period).get(period)
            if closed is None and period not in rows.periods(connection, project):
                raise NotFound(f"there is no invoice {period!r}; one is called, say, 2026-11")
            return self._document(connection, project, period, closed)

    def close(self, project: str, period: str) -> dict[str, Any]:
        """Close a month that is over; again gives the same. Raises: NotFound, PeriodOpen."""
        if not _PERIOD.match(period):
            raise NotFound(f"there is no invoice {period!r}; one is called, say, 2026-11")
        end_us = quantities.month_of(events.seconds_us(_first(period)))[1]
        with self._database.write() as connection:
            closed = rows.closed(connection, project, period).get(period)
            if closed is None:
                now_us = self._ledger.now_us()
                done = self._ledger.closed_until_us(connection, project)
                if now_us < end_us + LATENESS_US or done < end_us:
                    raise PeriodOpen(
                        f"{period} isn't over, or its last day isn't rated yet; try later"
                    )
                closed = rows.close(connection, project, period, now_us)
            return self._document(connection, project, period, closed)

    def verify(self, project: str) -> dict[str, Any]:
        """Return whether events, lines, daily sums and closed invoices agree, or what doesn't."""
        with self._database.read() as connection:
            problems = [
                {"what": one.what, "id": one.id, "message": one.message}
                for one in proof.problems(connection, project)
            ]
        return {"project": project, "verified": not problems, "problems": problems}

    def rerate(self, project: str, start: datetime) -> dict[str, Any]:
        """Have the closed days from `start` on rated again; differences become lines of their own.

        Lines of closed months stay as they are: what differs there is billed in this month.
        """
        self._ledger.rerate(project, events.seconds_us(start))
        return {"project": project, "from": rfc3339(start)}

    def export(
        self, project: str, start: datetime, end: datetime, columns: Sequence[str]
    ) -> Iterator[str]:
        """Yield FOCUS CostAndUsage of charges that begin in [start, end) as CSV, some rows at a time.

        Days that are closed come from their lines, the rest is rated now.
        """
        first, last = events.seconds_us(start), events.seconds_us(end)
        with self._database.read() as connection:
            closed = rows.closed(connection, project)
            made = focus_rows.Rows(
                columns,
                self._ledger.books(connection),
                {period: f"{project}-{period}" for period in closed},
            )
            yield made.header()
            people: dict[str, Attribution] = {}
            for some in self._lines(connection, project, first, last):
                new = {of: resource for resource, of in map(_WHOSE, some) if of not in people}
                people |= billing_events.attributions(connection, new)
                yield made.text(some, people)

    def billing_periods(self, project: str) -> str:
        """Return FOCUS BillingPeriod as CSV: every month that has an invoice."""
        return focus_rows.table(
            focus_invoices.BILLING_PERIOD, focus_invoices.periods(self._months(project))
        )

    def invoice_details(self, project: str) -> str:
        """Return FOCUS InvoiceDetail as CSV: what each SKU comes to on every invoice."""
        return focus_rows.table(
            focus_invoices.INVOICE_DETAIL, focus_invoices.details(self._months(project))
        )

    def _months(self, project: str) -> Sequence[focus_invoices.Month]:
        """Return what every invoice says, the oldest first."""
        with self._database.read() as connection:
            closed = rows.closed(connection, project)
            books = self._ledger.books(connection)
            found = []
            for period in reversed(rows.periods(connection, project)):
                of = rows.content(connection, project, period)
                sums: Counter[tuple[str, str, str, str]] = Counter()
                for (id, sku, month), pico in of.skus.items():
                    sums[books[id].name, sku, books[id].currency, month] += pico
                issued = closed.get(period)
                found.append(
                    focus_invoices.Month(
                        account=project,
                        period=period,
                        begun_us=events.seconds_us(_first(period)),
                        now_us=self._ledger.now_us(),
                        issued_us=None if issued is None else issued.closed_us,
                        parts=[
                            focus_invoices.Part(
                                book=book, sku=sku, currency=currency, of=month, billed_pico=pico
                            )
                            for (book, sku, currency, month), pico in sorted(sums.items())
                        ],
                    )
                )
        return found

    def _lines(
        self, connection: Connection, project: str, first: int, last: int
    ) -> Iterator[Sequence[focus_rows.Row]]:
        done = self._ledger.closed_until_us(connection, project)
        with charges.rows(connection, project, first, min(last, done)) as found:
            yield from found
        if max(first, done) < last:
            live = self._ledger.charge(connection, project, max(first, done), last)
            while some := list(islice(live, charges.AT_ONCE)):
                yield [focus_rows.row_of(charges.booked(project, line)) for line in some]

    def _document(
        self, connection: Connection, project: str, period: str, closed: rows.Closed | None
    ) -> dict[str, Any]:
        of = rows.content(connection, project, period)
        books = self._ledger.books(connection)
        currency = next((books[book].currency for book, *_ in of.skus), None)
        skus: Counter[tuple[str, str]] = Counter()
        for (book, sku, _), pico in of.skus.items():
            skus[book, sku] += pico
        return {
            "id": f"{project}-{period}",
            "period": period,
            "status": "closed" if closed else "open",
            "currency": currency,
            "lines": of.lines,
            "total": money.text(of.total_pico),
            "amount_due": money.text(rounded(of.total_pico)),
            "root_hash": closed.root_hash if closed else None,
            "closed_at": None if closed is None else _time(closed.closed_us),
            "skus": [
                {"price_book": book, "sku": sku, "amount": money.text(pico)}
                for (book, sku), pico in sorted(skus.items())
            ],
        }


def rounded(pico: int) -> int:
    """Return an amount in whole hundredths, halves away from zero: the only rounding of money."""
    sign = -1 if pico < 0 else 1
    return sign * ((abs(pico) + _CENT_PICO // 2) // _CENT_PICO) * _CENT_PICO


def _first(period: str) -> datetime:
    return datetime(int(period[:4]), int(period[5:]), 1, tzinfo=UTC)


def _time(us: int) -> str:
    return rfc3339(quantities.moment(us - us % MICRO))
