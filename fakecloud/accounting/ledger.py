"""What accounts owe: exact charges of any time, and the closing of days that are over.

A day is closed once: its lines are added and its sums kept, a bounded number of resources in a
transaction, so that a crash or a second server repeats nothing. Reports read the sums of whole
closed days and rate the rest, which is little, as they are asked.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
import structlog

from fakecloud.billing import accounts, corrections, events, quantities, rating
from fakecloud.billing.events import BillingEvent, Ends, Kind
from fakecloud.billing.prices import PriceBook
from fakecloud.billing.quantities import DAY_US, HOUR_US, MICRO
from fakecloud.billing.rating import Assignment, Schedule
from fakecloud.billing.usage import Hour, Line, Span, Usage
from fakecloud.clock import Clock
from fakecloud.store import (
    billing_events,
    charges,
    invoices,
    late,
    price_assignments,
    traffic,
)
from fakecloud.store.database import Connection, Database
from fakecloud.store.late import Late

LATENESS_US: Final = 30 * MICRO
"""Counters may come so late: a day is closed so long after its end."""
CHUNK: Final = 500
SEALS: Final = 2000

log = structlog.get_logger()


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """What a resource has used, and which books charge it for that."""

    usage: Usage
    schedule: Schedule


class Ledger:
    """The books of all accounts. Every method may raise Unavailable."""

    def __init__(self, database: Database, clock: Clock, book: PriceBook) -> None:
        """Charge by `book` from now on."""
        self._database = database
        self._clock = clock
        self._book = book

    def start(self) -> None:
        """Put the book in force, unless it is already."""
        with self._database.write() as connection:
            if price_assignments.assign(connection, self._book, self.now_us()):
                log.info("price_book_assigned", book=self._book.id)

    def now_us(self) -> int:
        """Return business time, floored to seconds."""
        return events.seconds_us(self._clock.now())

    def complete_until_us(self) -> int:
        """Return up to when all counters have come in."""
        return self.now_us()

    def step(self) -> bool:
        """Seal new events, correct or close some of a day; False if all that is done."""
        with self._database.read() as connection:
            known = billing_events.accounts(connection)
            unsealed = billing_events.unsealed(connection)
            again = late.all(connection)
        for account in unsealed:
            with self._database.write() as connection:
                billing_events.seal(connection, account, SEALS)
        if unsealed:
            return True
        if any(self._settle(one) for one in again):
            return True
        for account, begun_us in known:
            with self._database.read() as connection:
                at = charges.progress(connection, account)
            if at is None:
                with self._database.write() as connection:
                    charges.begin(connection, account, begun_us // DAY_US)
                return True
            if (at[0] + 1) * DAY_US + LATENESS_US <= self.now_us():
                self._close(account, at)
                return True
        return False

    def _close(self, account: str, at: tuple[int, str]) -> None:
        """Close the next resources of a day, or, after the last of them, the account's own."""
        day, after = at
        start, end = day * DAY_US, (day + 1) * DAY_US
        with self._database.read() as connection:
            books = price_assignments.all(connection)
            some = billing_events.resources(
                connection, account, start, end, after=after, limit=CHUNK
            )
            if some:
                found = list(self._own(connection, some, books, start, end))
                to = (day, some[-1])
            else:
                found = list(self._shared(connection, account, books, start, end))
                to = (day + 1, "")
            people = billing_events.attributions(
                connection, {one.attribution: one.resource for one in found}
            )
        with self._database.write() as connection:
            if charges.move(connection, account, at, to):
                charges.add(connection, account, [charges.booked(account, one) for one in found])
                billing_events.keep_attributions(connection, people.values())

    def rerate(self, account: str, start_us: int) -> None:
        """Let the closed days from a moment on be rated again, in the next turns of `step`."""
        with self._database.write() as connection:
            late.mark(connection, account, start_us // DAY_US)

    def _settle(self, again: Late) -> bool:
        """Add what has changed of a closed day; False if it isn't closed yet."""
        account, start, end = again.account, again.day * DAY_US, (again.day + 1) * DAY_US
        with self._database.read() as connection:
            closed = self.closed_until_us(connection, account)
            if end > closed:
                return False
            before = list(charges.lines(connection, account, start, end))
            due = self.charge(connection, account, start, end)
            found = list(corrections.between((one.line for one in before), due))
            people = billing_events.attributions(
                connection, {one.attribution: one.resource for one in found}
            )
        with self._database.write() as connection:
            if not late.move(connection, again, None if end == closed else again.day + 1):
                return True
            made = charges.corrections(
                account,
                before,
                found,
                invoices.closed(connection, account),
                charges.period_of(self.now_us()),
            )
            charges.correct(connection, account, made)
            billing_events.keep_attributions(connection, people.values())
        if made:
            log.info("closed_day_corrected", account=account, day=again.day, lines=len(made))
        return True

    def charge(
        self,
        connection: Connection,
        account: str,
        start_us: int,
        end_us: int,
        step_us: int = DAY_US,
    ) -> Iterator[Line]:
        """Yield every charge of [start, end) that has come up to now, rated as it is asked."""
        books = price_assignments.all(connection)
        for some in self.chunks(connection, account, start_us, end_us):
            yield from self._own(connection, some, books, start_us, end_us, step_us)
        yield from self._shared(connection, account, books, start_us, end_us, step_us)

    def chunks(
        self, connection: Connection, account: str, start_us: int, end_us: int
    ) -> Iterator[list[str]]:
        """Yield what lived at some time in [start, end), some at a time."""
        after = ""
        while some := billing_events.resources(
            connection, account, start_us, end_us, after=after, limit=CHUNK
        ):
            yield some
            after = some[-1]

    def assignments(self, connection: Connection) -> list[Assignment]:
        """Return which books were put in force when, in the order of time."""
        return price_assignments.all(connection)

    def book_at(self, connection: Connection, us: int) -> PriceBook:
        """Return the book that is in force for what is made at a moment."""
        return Schedule(price_assignments.all(connection)).at(us)

    def books(self, connection: Connection) -> dict[str, PriceBook]:
        """Return every book that was ever in force, by id."""
        return {one.book.id: one.book for one in price_assignments.all(connection)}

    def closed_until_us(self, connection: Connection, account: str) -> int:
        """Return the end of the last day that is wholly closed; 0 if none is."""
        at = charges.progress(connection, account)
        return 0 if at is None else at[0] * DAY_US

    def usages(
        self,
        connection: Connection,
        resources: Sequence[str],
        start_us: int,
        end_us: int,
        books: Sequence[Assignment],
    ) -> list[Used]:
        """Return resources' spans from their beginning, and hours from the month's, up to `end`.

        What the month carried before `start` is in its first hour, all together. books: as
        `assignments` gives them, or others for what would be if they had been in force.
        """
        histories = billing_events.histories(connection, resources)
        month = quantities.month_of(start_us)[0]
        carried = _carried(connection, list(histories), month, start_us, end_us)
        until = min(end_us, self.now_us())
        return [
            used(one, history, carried.get(one, []), until, books)
            for one, history in histories.items()
        ]

    def standing(
        self,
        connection: Connection,
        resources: Sequence[str],
        at_us: int,
        books: Sequence[Assignment],
    ) -> list[Used]:
        """Return resources' spans from their beginning up to a moment, without their traffic."""
        histories = billing_events.histories(connection, resources)
        until = min(at_us, self.now_us())
        return [used(one, history, [], until, books) for one, history in histories.items()]

    def _own(
        self,
        connection: Connection,
        resources: Sequence[str],
        books: Sequence[Assignment],
        start_us: int,
        end_us: int,
        step_us: int = DAY_US,
    ) -> Iterator[Line]:
        """Yield what resources cost by themselves."""
        for one in self.usages(connection, resources, start_us, end_us, books):
            yield from rating.rate(one.usage, one.schedule, start_us, step_us)

    def _shared(
        self,
        connection: Connection,
        account: str,
        books: Sequence[Assignment],
        start_us: int,
        end_us: int,
        step_us: int = DAY_US,
    ) -> Iterator[Line]:
        """Yield what the account costs as a whole."""
        if not any(rating.by_account(sku) for one in books for sku in one.book.skus):
            return
        month = quantities.month_of(start_us)[0]
        everything = [
            one
            for some in self.chunks(connection, account, month, end_us)
            for one in self.usages(connection, some, start_us, end_us, books)
        ]
        schedules = {one.usage.resource: one.schedule for one in everything}
        yield from accounts.rate([one.usage for one in everything], schedules, start_us, step_us)


def schedule_of(books: Sequence[Assignment], history: Sequence[BillingEvent]) -> Schedule:
    """Return the books that reach a resource: a new one may be for new ones only."""
    begun = history[0].at_us
    reached = [(books[0].from_us, 0)]
    types = [(event.at_us, event.terms.type) for event in history]
    resized = [at for (at, now), (_, was) in zip(types[1:], types, strict=False) if now != was]
    for number, one in enumerate(books[1:], start=1):
        if one.book.applies_to == "all" or begun >= one.from_us:
            reached.append((one.from_us, number))
        elif one.book.applies_to == "new_and_resized":
            reached += [(at, number) for at in resized if at >= one.from_us][:1]
    found: list[Assignment] = []
    newest = -1
    for at, number in sorted(reached):
        if number > newest:  # what reaches it late may have been replaced meanwhile
            found.append(Assignment(from_us=at, book=books[number].book))
            newest = number
    return Schedule(found)


def _carried(
    connection: Connection, resources: Sequence[str], month_us: int, start_us: int, end_us: int
) -> dict[str, list[Hour]]:
    found: defaultdict[str, list[Hour]] = defaultdict(list)
    month, start = quantities.moment(month_us), quantities.moment(start_us - start_us % HOUR_US)
    for first in range(0, len(resources), CHUNK):
        some = resources[first : first + CHUNK]
        earlier = traffic.carried_in_all(connection, some, month, start)
        for one in (*earlier, *traffic.carried(connection, some, start, quantities.moment(end_us))):
            found[one.load_balancer_id].append(hour(one))
    return found


def hour(carried: traffic.Carried) -> Hour:
    """Return what was carried, for nobody yet."""
    return Hour(
        start_us=events.seconds_us(carried.hour),
        attribution="",
        bytes_in=carried.bytes_in,
        bytes_out=carried.bytes_out,
        new_connections=carried.connections,
        connection_us=carried.connection_us,
        requests=carried.requests,
        estimated=carried.estimated,
    )


def used(
    resource: str,
    history: Sequence[BillingEvent],
    hours: Sequence[Hour],
    until_us: int,
    books: Sequence[Assignment],
) -> Used:
    """Return what a resource has used; an hour's traffic is for whom the hour began with."""
    schedule = schedule_of(books, history)
    spans = tuple(events.spans(history, until_us, lambda us: _ends(schedule.at(us))))
    usage = Usage(
        resource=resource, kind=history[0].resource_kind, spans=spans, hours=of_spans(hours, spans)
    )
    return Used(usage=usage, schedule=schedule)


def of_spans(hours: Iterable[Hour], spans: Sequence[Span]) -> tuple[Hour, ...]:
    """Return hours for whom they began with."""
    if not spans:
        return ()
    starts = [span.start_us for span in spans]
    return tuple(
        msgspec.structs.replace(
            one, attribution=spans[max(0, bisect_right(starts, one.start_us) - 1)].attribution
        )
        for one in hours
    )


def _ends(book: PriceBook) -> Ends:
    return (
        Kind.ACTIVATED if book.bill_from == "active" else Kind.CREATED,
        Kind.DELETE_REQUESTED if book.bill_until == "delete_requested" else Kind.DELETED,
    )
