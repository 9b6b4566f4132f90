"""Charges of days that aren't closed yet, kept in memory up to an hour that is over.

Time goes on with every report, so the last hour or two are always rated anew. Before them only
something written there can change anything, and the database says so: an event, an added hour
(its mark), a new price book, a day that was closed. What is kept holds for a snapshot that says
the same, and for no other.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import Any, Final

import msgspec

from fakecloud.accounting import ledger
from fakecloud.accounting.ledger import LATENESS_US, Ledger, Used, hour, of_spans
from fakecloud.billing import accounts, events, quantities, rating
from fakecloud.billing.events import BillingEvent
from fakecloud.billing.quantities import DAY_US, HOUR_US
from fakecloud.billing.rating import Assignment, Meter
from fakecloud.billing.usage import Attribution, Charge, Hour, Line, Usage, charge
from fakecloud.store import billing_events, price_assignments, traffic
from fakecloud.store.database import Connection

MOST_LIVES: Final = 50_000
"""The lives of so many resources are kept, of all accounts together."""
_NO_END_US: Final = 1 << 62


class Signs(msgspec.Struct, frozen=True, kw_only=True):
    """What tells whether charges of [start, until) are still the same.

    books: how many there ever were. marks: of the traffic since the month began.
    """

    start_us: int
    until_us: int
    books: int
    marks: int


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """A resource as far as it is known.

    used: its open span has no end yet, its traffic before `until` is in one hour. meter: has seen
    everything before `until`, and isn't moved.
    """

    history: tuple[BillingEvent, ...]
    used: Used
    meter: Meter


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an account up to `signs.until_us`, by its events up to `seq`.

    charges: of [start, until). lives: of everything since the month of `start` began. people:
    whom they were for.
    """

    signs: Signs
    seq: int
    books: list[Assignment]
    charges: list[Charge]
    lives: dict[str, Life]
    people: dict[str, Attribution]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The charges that were asked for, what is used up to their end, and for whom it all is."""

    charges: list[Charge] = []
    used: list[Used] = []
    people: dict[str, Attribution] = {}


class OpenDays:
    """Charges up to now, most of them remembered. Every method may raise Unavailable."""

    def __init__(self, of: Ledger) -> None:
        """Know nothing yet; let the ledger rate."""
        self._ledger = of
        self._lock = Lock()
        self._accounts: OrderedDict[str, Kept] = OrderedDict()

    def standing(
        self, connection: Connection, account: str, start_us: int, end_us: int
    ) -> Standing | None:
        """Return everything of [start, end); None if that is mostly rated anew anyway.

        start_us: a midnight, up to which all days are closed. end_us: not after now.
        """
        until_us = (self._ledger.now_us() - LATENESS_US) // HOUR_US * HOUR_US
        if not start_us < until_us < end_us:
            return None
        kept = self._kept(connection, account, start_us, until_us)
        later: defaultdict[str, list[Hour]] = defaultdict(list)
        for one in traffic.carried_since(connection, account, quantities.moment(until_us)):
            later[one.load_balancer_id].append(hour(one))
        lines: list[Line] = []
        used = []
        for resource, life in kept.lives.items():
            usage = _up_to(life.used.usage, end_us, later[resource])
            used.append(Used(usage=usage, schedule=life.used.schedule))
            lines += _since(usage, life.meter, until_us)
        schedules = {one.usage.resource: one.schedule for one in used}
        lines += accounts.rate([one.usage for one in used], schedules, until_us)
        return Standing(charges=[*kept.charges, *map(charge, lines)], used=used, people=kept.people)

    def _kept(self, connection: Connection, account: str, start_us: int, until_us: int) -> Kept:
        """Return what is right for this snapshot: as it is kept, with news, or reckoned anew."""
        first = quantities.moment(quantities.month_of(start_us)[0])
        signs = Signs(
            start_us=start_us,
            until_us=until_us,
            books=price_assignments.count(connection),
            marks=traffic.marks(connection, account, first, quantities.moment(until_us)),
        )
        seq = billing_events.last(connection, account)
        with self._lock:
            kept = self._accounts.get(account)
        if kept is not None and kept.signs == signs and kept.seq <= seq:
            news = billing_events.between(connection, account, kept.seq, seq)
            if all(event.at_us >= until_us for event in news):
                return self._keep(account, _with(kept, news, seq))
        return self._keep(account, self._reckon(connection, account, signs, seq))

    def _keep(self, account: str, kept: Kept) -> Kept:
        with self._lock:
            self._accounts.pop(account, None)
            self._accounts[account] = kept
            while sum(len(one.lives) for one in self._accounts.values()) > MOST_LIVES:
                self._accounts.popitem(last=False)
        return kept

    def _reckon(self, connection: Connection, account: str, signs: Signs, seq: int) -> Kept:
        """Rate everything up to the hour, once."""
        start, until = signs.start_us, signs.until_us
        books = self._ledger.assignments(connection)
        lives: dict[str, Life] = {}
        first = quantities.moment(quantities.month_of(until)[0])
        month = quantities.month_of(start)[0]
        for some in self._ledger.chunks(connection, account, month, self._ledger.now_us() + 1):
            before = {
                one.load_balancer_id: hour(one)
                for one in traffic.carried_in_all(connection, some, first, quantities.moment(until))
            }
            for resource, history in billing_events.histories(connection, some).items():
                earlier = [before[resource]] if resource in before else []
                lives[resource] = _life(history, earlier, books, until)
        return Kept(
            signs=signs,
            seq=seq,
            books=books,
            charges=_added_up(self._ledger.charge(connection, account, start, until)),
            lives=lives,
            people=_people(event for life in lives.values() for event in life.history),
        )


def _up_to(usage: Usage, end_us: int, hours: Sequence[Hour]) -> Usage:
    """Return a usage as it is at a moment, with the hours that came to it."""
    spans = tuple(
        span if span.end_us <= end_us else msgspec.structs.replace(span, end_us=end_us)
        for span in usage.spans
        if span.start_us < end_us
    )
    came = of_spans([one for one in hours if one.start_us < end_us], spans)
    return msgspec.structs.replace(usage, spans=spans, hours=(*usage.hours, *came))


def _since(usage: Usage, meter: Meter, start_us: int) -> Iterator[Line]:
    """Yield what a resource costs by itself from `start_us` on, up to which the meter has seen it."""
    if usage.spans[-1:] and (usage.spans[-1].end_us > start_us or _carries(usage, start_us)):
        yield from rating.go_on(meter.copy(), usage, start_us)


def _carries(usage: Usage, start_us: int) -> bool:
    return bool(usage.hours) and usage.hours[-1].start_us >= start_us


def _life(
    history: Sequence[BillingEvent], earlier: Sequence[Hour], books: Sequence[Assignment], at: int
) -> Life:
    used = ledger.used(history[0].resource, history, earlier, _NO_END_US, books)
    return Life(
        history=tuple(history),
        used=used,
        meter=rating.begun(_up_to(used.usage, at, ()), used.schedule, at),
    )


def _with(kept: Kept, news: Sequence[BillingEvent], seq: int) -> Kept:
    """Return what is known after news that changes no charge of before."""
    if not news:
        return kept
    lives = dict(kept.lives)
    for event in news:
        before = lives.get(event.resource)
        history = (event,) if before is None else (*before.history, event)
        earlier = before.used.usage.hours if before else ()
        lives[event.resource] = _life(history, earlier, kept.books, kept.signs.until_us)
    return msgspec.structs.replace(kept, seq=seq, lives=lives, people=kept.people | _people(news))


def _people(history: Iterable[BillingEvent]) -> dict[str, Attribution]:
    return {one.id: one for one in events.attributions(history)}


def _added_up(lines: Iterable[Line]) -> list[Charge]:
    """Return one charge for all lines of a day with the same resource, price and receiver."""
    sums: dict[Any, list[Any]] = {}
    for line in lines:
        day = line.start_us // DAY_US
        key = (line.resource, line.attribution, line.sku, line.price_id, line.book, day)
        one = sums.setdefault(key, [line.start_us, 0, 0, False])
        one[1] += line.list_pico
        one[2] += line.billed_pico
        one[3] = one[3] or line.estimated
    return [
        Charge(
            resource=key[0],
            attribution=key[1],
            sku=key[2],
            price_id=key[3],
            book=key[4],
            start_us=start,
            list_pico=listed,
            billed_pico=billed,
            estimated=estimated,
        )
        for key, (start, listed, billed, estimated) in sums.items()
    ]
