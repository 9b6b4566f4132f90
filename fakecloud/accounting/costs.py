"""What people ask about costs: reports, forecasts, and the same use by other providers' prices.

Everything is read from the ledger on one snapshot of the database, so that parts add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from fakecloud.accounting.day_sums import DaySums
from fakecloud.accounting.ledger import Ledger, Used
from fakecloud.accounting.open_days import OpenDays, Standing
from fakecloud.billing import (
    accounts,
    anomalies,
    books,
    consolidation,
    events,
    money,
    preview,
    projection,
    quantities,
    rates,
    statement,
    usage,
)
from fakecloud.billing import report as reports
from fakecloud.billing.prices import PriceBook
from fakecloud.billing.quantities import DAY_US, HOUR_US, MICRO
from fakecloud.billing.rating import Assignment, Schedule
from fakecloud.billing.usage import Attribution, Charge, Series, Span, Usage
from fakecloud.clock import rfc3339
from fakecloud.domain import catalogue
from fakecloud.errors import NotFound
from fakecloud.store import billing_events, charges, load_balancers
from fakecloud.store.database import Connection, Database


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a report is made of: charges, those of a month of what is there, and for whom.

    daily: charges of closed days, only where days are told apart.
    """

    charges: list[Charge]
    daily: list[Series]
    monthly: list[Charge]
    people: dict[str, Attribution]
    there: list[Usage]
    book: PriceBook
    now_us: int


class Costs:
    """Answers for one project at a time. Every method may raise Unavailable."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        """Read from the ledger."""
        self._database = database
        self._ledger = ledger
        self._day_sums = DaySums()
        self._open_days = OpenDays(ledger)
        self._rates: tuple[str, dict[str, Any]] | None = None

    def report(self, project: str, asked: reports.Asked) -> dict[str, Any]:
        """Return the cost report's document. Raises: InvalidParameter."""
        found = self.found(project, asked, reports.needed(asked.group_by))
        groups = reports.build(asked, found.charges, found.monthly, found.people, found.daily)
        complete = min(events.seconds_us(asked.end), found.now_us)
        return reports.document(
            asked,
            groups,
            currency=found.book.currency,
            price_book=found.book.id,
            complete_until=quantities.moment(complete),
            notes=notes(found.book, found.there),
        )

    def found(
        self, project: str, asked: reports.Asked, needed: frozenset[str] = charges.COLUMNS
    ) -> Found:
        """Return the charges that a report groups, and those of a month of what is there.

        needed: what must be told apart; the rest may be added up, and is empty then.
        """
        with self._database.read() as connection:
            now_us = self._ledger.now_us()
            at_us = min(now_us, events.seconds_us(asked.end))
            found, daily, standing = self._charges(connection, project, asked, needed, at_us)
            if standing is None:
                standing = Standing(used=self._standing(connection, project, at_us))
            there = projection.month_of(projection.open_spans(_usages(standing.used), at_us))
            monthly = list(projection.monthly(there, _schedules(standing.used), at_us))
            book = self._ledger.book_at(connection, now_us)
            people = {"": Attribution(id="", account=project, name="", labels={})}
            people |= standing.people
            named = {
                one.attribution: one.resource
                for some in (found, daily, monthly)
                for one in some
                if one.attribution not in people
            }
            people |= billing_events.attributions(connection, named)
        return Found(
            charges=found,
            daily=daily,
            monthly=monthly,
            people=people,
            there=there,
            book=book,
            now_us=now_us,
        )

    def forecast(self, project: str) -> dict[str, Any]:
        """Return what this month will cost: what is fixed exactly, traffic as it was lately."""
        with self._database.read() as connection:
            now_us = self._ledger.now_us()
            first, after = quantities.month_of(now_us)
            book = self._ledger.book_at(connection, now_us)
            assigned = self._ledger.assignments(connection)
            found = self._used(connection, project, first, now_us, assigned)
        used, schedules = _usages(found), _schedules(found)
        # What ended has no future; what goes on has its whole month's caps and minimums.
        to_date = _total(used, schedules, first)
        fixed = list(projection.prolonged(used, now_us))
        held = list(projection.with_traffic_held(fixed, now_us, projection.mean))
        month_end_fixed = _total(fixed, schedules, first)
        month_end = _total(held, schedules, first)
        return {
            "period": quantities.moment(first).strftime("%Y-%m"),
            "currency": book.currency,
            "price_book": book.id,
            "as_of": rfc3339(quantities.moment(now_us)),
            "to_date": money.text(to_date),
            "month_end": {
                "fixed": money.text(month_end_fixed),
                "traffic": money.text(month_end - month_end_fixed),
                "total": money.text(month_end),
            },
            "hours_left": (after - now_us) // HOUR_US,
            "method": {
                "fixed": "what is there now, rated to the end of the month",
                "traffic": "the mean of the last 24 hours in every hour that is left",
            },
        }

    def compare(
        self, project: str, names: Sequence[str], start: datetime, end: datetime
    ) -> dict[str, Any]:
        """Return the same recorded use under other books. Raises: BookUnknown."""
        asked = [books.load(name) for name in names]
        first = events.seconds_us(start)
        with self._database.read() as connection:
            found = []
            for book in asked:
                instead = [Assignment(from_us=0, book=book)]
                last = events.seconds_us(end)
                used = self._used(connection, project, first, last, instead)
                found.append(_compared(book, used, first))
        return {"from": rfc3339(start), "to": rfc3339(end), "books": found}

    def anomalies(self, project: str, start: datetime, end: datetime) -> dict[str, Any]:
        """Return which whole days of [start, end) cost another amount than usual, and why."""
        first = -(-events.seconds_us(start) // DAY_US)
        begun = quantities.moment((first - anomalies.BEFORE_DAYS) * DAY_US)
        with self._database.read() as connection:
            closed_us = self._ledger.closed_until_us(connection, project)
            known = self._ledger.books(connection)
        after = min(events.seconds_us(end), closed_us) // DAY_US
        asked = reports.Asked(start=begun, end=max(start, end), group_by=("day", "namespace"))
        found = self.found(project, asked)
        costs = [
            anomalies.Cost(
                day=day,
                resource=one.resource,
                attribution=one.attribution,
                sku=one.sku,
                book=one.book,
                billed_pico=billed,
            )
            for one in found.daily
            for day, billed, flag in zip(
                range(one.first_day, after), one.billed_pico, one.flags, strict=False
            )
            if flag
        ]
        made = anomalies.find(costs, found.people, known, first, after)
        return {
            "from": rfc3339(start),
            "to": rfc3339(end),
            "complete_until": rfc3339(quantities.moment(closed_us)),
            **anomalies.document(made, found.book),
        }

    def preview(self, project: str, manifests: Sequence[Any], *, whole: bool) -> dict[str, Any]:
        """Return what manifests would change of a month's bill. Raises: ValidationFailed."""
        wanted = preview.planned(manifests)
        with self._database.read() as connection:
            book, there = self._open(connection, project)
            resources = [resource for resource, _ in there]
            people = {
                one.id: one
                for history in billing_events.histories(connection, resources).values()
                for one in events.attributions(history)
            }
        items = preview.items(there, people, wanted, book, whole=whole)
        return preview.document(items, book)

    def rates(self) -> dict[str, Any]:
        """Return what a load balancer of each shape costs in an hour with the prices in force."""
        with self._database.read() as connection:
            book = self._ledger.book_at(connection, self._ledger.now_us())
        known = self._rates
        if known is None or known[0] != book.digest:
            most_ports = {one.name: one.max_listeners for one in catalogue.TYPES}
            known = (book.digest, rates.document(rates.table(most_ports, book), book))
            self._rates = known
        return known[1]

    def recommendations(self, project: str) -> dict[str, Any]:
        """Return who could share one Gateway and what that saves; who can't, and why."""
        with self._database.read() as connection:
            book, there = self._open(connection, project)
            living = {lb.id: lb for lb in load_balancers.living(connection, project)}
        candidates = [
            consolidation.Candidate(lb=living[resource], span=span)
            for resource, span in there
            if resource in living
        ]
        return consolidation.document(*consolidation.advise(candidates, book), book)

    def statement(self, project: str, name: str, start: datetime, end: datetime) -> dict[str, Any]:
        """Return why a load balancer costs what it costs: events, lines and their prices.

        name: of a load balancer, its id, or that of a deleted one. Raises: NotFound.
        """
        first, last = events.seconds_us(start), events.seconds_us(end)
        with self._database.read() as connection:
            resource = billing_events.find(connection, project, name)
            if resource is None:
                raise NotFound(f"no load balancer {name!r} was ever billed")
            history = billing_events.histories(connection, [resource])[resource]
            lines = [
                line
                for line in self._ledger.charge(connection, project, first, last)
                if line.resource == resource
            ]
            known = self._ledger.books(connection)
        return statement.document(history, lines, known)

    def lived(
        self, connection: Connection, resources: Sequence[str], start_us: int, end_us: int
    ) -> dict[str, int]:
        """Return for how long of [start, end) each of these resources was billed."""
        assigned = self._ledger.assignments(connection)
        used = _usages(self._ledger.standing(connection, resources, end_us, assigned))
        return {
            one.resource: sum(
                max(0, span.end_us - max(start_us, span.start_us)) for span in one.spans
            )
            for one in used
        }

    def books(self, connection: Connection) -> dict[str, PriceBook]:
        """Return every book that was ever in force, by id."""
        return self._ledger.books(connection)

    def _open(
        self, connection: Connection, project: str
    ) -> tuple[PriceBook, list[tuple[str, Span]]]:
        """Return the book in force and what is there now."""
        now_us = self._ledger.now_us()
        book = self._ledger.book_at(connection, now_us)
        used = _usages(self._standing(connection, project, now_us))
        return book, list(projection.open_spans(used, now_us))

    def _charges(
        self,
        connection: Connection,
        project: str,
        asked: reports.Asked,
        needed: frozenset[str],
        at_us: int,
    ) -> tuple[list[Charge], list[Series], Standing | None]:
        """Return all charges: of whole closed days from their sums, of the rest as rated now.

        at_us: how far time has come in what is asked for. With them comes what is there then, if
        that is known already.
        """
        start, end = events.seconds_us(asked.start), events.seconds_us(asked.end)
        over_time = bool(reports.OVER_TIME.keys() & set(asked.group_by))
        by_the_hour = "hour" in asked.group_by or (over_time and asked.zone is not UTC)
        closed_us = self._ledger.closed_until_us(connection, project)
        if by_the_hour or start > closed_us:
            step = HOUR_US if by_the_hour else DAY_US
            return list(self._live(connection, project, start, end, step)), [], None
        found: list[Charge] = []
        daily: list[Series] = []
        first, after = -(-start // DAY_US), min(end, closed_us) // DAY_US
        if first <= after:
            found += self._live(connection, project, start, first * DAY_US)
            start = after * DAY_US
            known = self._day_sums.series(connection, project, first, after)
            if known is None:
                found += charges.sums(connection, project, first, after, needed, daily=over_time)
            elif over_time:
                daily = known
            else:
                found += [one.total() for one in known]
        standing = None
        if start == closed_us:
            standing = self._open_days.standing(connection, project, start, at_us)
        if standing is None:
            found += self._live(connection, project, start, end)
        else:
            found += standing.charges
        return found, daily, standing

    def _live(
        self, connection: Connection, project: str, start: int, end: int, step: int = DAY_US
    ) -> Iterator[Charge]:
        if start < end:
            for line in self._ledger.charge(connection, project, start, end, step_us=step):
                yield usage.charge(line)

    def _standing(self, connection: Connection, project: str, at_us: int) -> list[Used]:
        assigned = self._ledger.assignments(connection)
        return [
            one
            for some in self._ledger.chunks(connection, project, at_us - MICRO, at_us)
            for one in self._ledger.standing(connection, some, at_us, assigned)
        ]

    def _used(
        self,
        connection: Connection,
        project: str,
        start: int,
        end: int,
        assigned: Sequence[Assignment],
    ) -> list[Used]:
        """Return what was used in [start, end), with all of its month: tiers count that too."""
        month = quantities.month_of(start)[0]
        return [
            one
            for some in self._ledger.chunks(connection, project, month, end)
            for one in self._ledger.usages(connection, some, start, end, assigned)
        ]


def _usages(found: Sequence[Used]) -> list[Usage]:
    return [one.usage for one in found]


def _schedules(found: Sequence[Used]) -> dict[str, Schedule]:
    return {one.usage.resource: one.schedule for one in found}


def notes(book: PriceBook, used: Sequence[Usage]) -> list[str]:
    """Return what a reader must know of the figures: what has no price, what isn't verified."""
    said = [f"{book.name}: {book.note}"] if book.illustrative else []
    return [*said, *(f"unpriced: {name}" for name in unpriced(book, used))]


def unpriced(book: PriceBook, used: Sequence[Usage]) -> list[str]:
    """Return the SKUs that were used and have no verified price."""
    types = {span.type for one in used for span in one.spans}
    found = {
        f"{sku.id} ({sku.plan})" if sku.plan else sku.id
        for type in types
        for sku in book.of_plan(type)
        if not sku.priced
    }
    return sorted(found)


def _compared(book: PriceBook, found: Sequence[Used], first: int) -> dict[str, Any]:
    used = _usages(found)
    return {
        "id": book.id,
        "currency": book.currency,
        "total": money.text(_total(used, _schedules(found), first)),
        "unpriced": unpriced(book, used),
        "illustrative": book.illustrative,
    }


def _total(used: Sequence[Usage], schedules: Mapping[str, Schedule], first: int) -> int:
    return sum(line.billed_pico for line in accounts.bill(used, schedules, first))
