"""Usage to lines, one resource at a time: the charges that depend on nothing but the resource.

A `Meter` goes through a resource's life in the order of time and never looks back, so rating in
one piece or in many gives lines with the same sums. Charges of a whole account (packages, tiers)
are in `accounts`.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import Final, assert_never

import msgspec

from fakecloud.billing import money, prices, quantities
from fakecloud.billing.prices import PriceBook, Sku
from fakecloud.billing.quantities import DAY_US, HOUR_US, MICRO
from fakecloud.billing.usage import Hour, Line, Span, Usage

ACCOUNT_RATES: Final = (prices.PackageRate, prices.GraduatedRate)

_ANY_LENGTH_US: Final = 1 << 62


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """From this moment on the resource is charged by this book."""

    from_us: int
    book: PriceBook


class Schedule:
    """Which book charges a resource when."""

    def __init__(self, assignments: Sequence[Assignment]) -> None:
        """assignments: in the order of time; the first one holds for all time before it too."""
        assert assignments
        self.books = [one.book for one in assignments]
        self.changes = [one.from_us for one in assignments[1:]]

    def at(self, us: int) -> PriceBook:
        """Return the book in force."""
        return self.books[bisect_right(self.changes, us)]


def by_one(book: PriceBook) -> Schedule:
    """Return the schedule of who was always charged by one book."""
    return Schedule([Assignment(from_us=0, book=book)])


def by_account(sku: Sku) -> bool:
    """Say whether a charge depends on everything the account uses."""
    rate = sku.rate
    if isinstance(rate, prices.IncludedRate):
        return rate.per == "account_month"
    return isinstance(rate, ACCOUNT_RATES)


def rate(
    usage: Usage, schedule: Schedule, from_us: int = 0, step_us: int = DAY_US
) -> Iterator[Line]:
    """Yield the lines of a resource's life from `from_us` on, cut at every midnight (UTC).

    step_us: how long a line is at most, a day or a part of one.

    usage: its spans from the very beginning, its hours from that month's beginning at least:
    charges are cumulative. Only what begins at `from_us` or later is charged.
    """
    return go_on(begun(usage, schedule, from_us), usage, from_us, step_us)


def go_on(meter: Meter, usage: Usage, from_us: int, step_us: int = DAY_US) -> Iterator[Line]:
    """Yield the lines from `from_us` on by a meter that has seen everything before."""
    for span in usage.spans:
        if span.end_us > from_us:
            yield from meter.pass_time(_from(span, from_us), step_us)
    for hour in usage.hours:
        if hour.start_us >= from_us:
            yield from meter.count(hour)


def begun(usage: Usage, schedule: Schedule, from_us: int) -> Meter:
    """Return a meter that has seen whatever begins before `from_us`."""
    meter = Meter(usage.resource, schedule)
    for span in usage.spans:
        for part in _parts(span, from_us):
            if part.start_us >= from_us:
                break
            if part.end_us <= quantities.month_of(from_us)[0]:
                meter.skip(part)
            else:
                deque(meter.pass_time(part, _ANY_LENGTH_US), maxlen=0)
    for hour in usage.hours:
        if hour.start_us < from_us:
            deque(meter.count(hour), maxlen=0)
    return meter


def _from(span: Span, from_us: int) -> Span:
    if span.start_us >= from_us:
        return span
    return msgspec.structs.replace(span, start_us=from_us)


def _parts(span: Span, from_us: int) -> Iterator[Span]:
    """Cut a span where the month of `from_us` begins, and at `from_us`."""
    start = span.start_us
    for edge in (quantities.month_of(from_us)[0], from_us, span.end_us):
        end = min(edge, span.end_us)
        if end > start:
            yield msgspec.structs.replace(span, start_us=start, end_us=end)
            start = end


class Meter:
    """The readings of one resource: feed it spans, and hours, each in the order of time."""

    def __init__(self, resource: str, schedule: Schedule) -> None:
        """Begin at zero."""
        self._resource = resource
        self._schedule = schedule
        self._readings: defaultdict[tuple[str, str, str | None], int] = defaultdict(int)
        self._month = 0
        self._spent: defaultdict[tuple[str, str], defaultdict[tuple[str, int], int]]
        self._spent = defaultdict(lambda: defaultdict(int))
        self._of_month: defaultdict[tuple[str, str], int] = defaultdict(int)  # each month anew
        self._traffic_month = 0
        self._hour: Hour | None = None

    def copy(self) -> Meter:
        """Return a meter that goes on from here by itself."""
        made = copy.copy(self)
        made._readings = self._readings.copy()
        made._spent = defaultdict(lambda: defaultdict(int))
        for key, spent in self._spent.items():
            made._spent[key] = spent.copy()
        made._of_month = self._of_month.copy()
        return made

    def pass_time(self, span: Span, step_us: int = DAY_US) -> Iterator[Line]:
        """Yield what a span costs. A later call may continue it where it ended."""
        for start, end in slices(span, self._schedule.changes, step_us):
            book = self._schedule.at(start)
            for sku in book.of_plan(span.type):
                if sku.meter in prices.TIME_METERS and sku.priced and not by_account(sku):
                    line = self._time(sku, book, span, start, end)
                    if line is not None:
                        yield line

    def skip(self, span: Span) -> None:
        """Let a span pass that is in an earlier month than whatever is charged: readings only."""
        for start, end in _between(span, self._schedule.changes):
            book = self._schedule.at(start)
            for sku in book.of_plan(span.type):
                if sku.meter in prices.TIME_METERS and sku.priced and not by_account(sku):
                    key = (book.name, sku.id, sku.plan)
                    self._readings[key] += (end - start) * units(sku, book, span)

    def count(self, hour: Hour) -> Iterator[Line]:
        """Yield what an hour's traffic costs. Hours of two attributions follow each other."""
        month = quantities.month_of(hour.start_us)[0]
        if month != self._traffic_month:
            self._traffic_month = month
            self._of_month.clear()
        same = self._hour is not None and self._hour.start_us == hour.start_us
        before = self._hour if same else None
        self._hour = hour if before is None else _added(before, hour)
        book = self._schedule.at(hour.start_us)
        for sku in book.skus:
            if sku.meter in prices.TIME_METERS or not sku.priced or by_account(sku):
                continue
            quantity = self._traffic(sku, book, hour, before)
            if quantity:
                yield self._line(
                    sku,
                    book,
                    hour.attribution,
                    hour.start_us,
                    hour.start_us + HOUR_US,
                    quantity,
                    quantity * sku.price_micros,
                    estimated=hour.estimated,
                )

    def _time(self, sku: Sku, book: PriceBook, span: Span, start: int, end: int) -> Line | None:
        count = units(sku, book, span)
        if not count:
            return None
        rate = sku.rate
        if isinstance(rate, prices.MonthlyRate):
            quantity = quantities.months(start, end) * count
        else:
            key = (book.name, sku.id, sku.plan)
            before = self._readings[key]
            after = self._readings[key] = before + (end - start) * count
            if isinstance(rate, prices.StartedHourRate):
                started = quantities.started_hours
                quantity = started(after) - started(before)
            else:
                assert isinstance(rate, prices.LinearRate)
                least = rate.min_seconds * MICRO
                quantity = quantities.hours(after, least) - quantities.hours(before, least)
        if not quantity:
            return None
        billed = self._billed(sku, book, start, quantity * sku.price_micros)
        return self._line(sku, book, span.attribution, start, end, quantity, billed)

    def _billed(self, sku: Sku, book: PriceBook, start: int, pico: int) -> int:
        """Return what is left of `pico` under the month's cap."""
        if sku.cap_pico is None:
            return pico
        month = quantities.month_of(start)[0]
        if month != self._month:
            self._month = month
            self._spent.clear()
        spent = self._spent[book.name, sku.id]
        before = quantities.capped(spent)
        spent[sku.plan or "", sku.cap_pico] += pico
        return quantities.capped(spent) - before

    def _traffic(self, sku: Sku, book: PriceBook, hour: Hour, before: Hour | None) -> int:
        if isinstance(sku.rate, prices.CapacityRate):
            assert self._hour is not None
            dimensions = sku.dimensions()
            earlier = 0 if before is None else quantities.capacity(readings(before), dimensions)
            return quantities.capacity(readings(self._hour), dimensions) - earlier
        unit = prices.UNITS[sku.unit]
        value = readings(hour)[sku.meter]
        had = self._of_month[book.name, sku.id]
        now = self._of_month[book.name, sku.id] = had + value
        if isinstance(sku.rate, prices.IncludedRate):
            included = money.micros(sku.rate.quantity)
            return quantities.over(now * MICRO // unit, included) - quantities.over(
                had * MICRO // unit, included
            )
        return now * MICRO // unit - had * MICRO // unit

    def _line(
        self,
        sku: Sku,
        book: PriceBook,
        attribution: str,
        start: int,
        end: int,
        quantity: int,
        billed: int,
        *,
        estimated: bool = False,
    ) -> Line:
        return Line(
            resource=self._resource,
            sku=sku.id,
            price_id=price_id(book, sku),
            book=book.id,
            start_us=start,
            end_us=end,
            attribution=attribution,
            quantity_micros=quantity,
            price_micros=sku.price_micros,
            billed_pico=billed,
            estimated=estimated,
        )


def price_id(book: PriceBook, sku: Sku, part: str = "") -> str:
    """Return FOCUS's SkuPriceId: neither dates nor versions in it."""
    return "/".join(
        [book.name, sku.id, *([sku.plan] if sku.plan else []), *([part] if part else [])]
    )


def units(sku: Sku, book: PriceBook, span: Span) -> int:
    """Return how many of what the SKU counts there are at a time."""
    match sku.meter:
        case "alive":
            return 1 if span.type else 0
        case "rules":
            return rules(book, span)
        case "ipv4":
            return span.ipv4 * book.addresses_per_lb
        case "ipv4_idle":
            return span.ipv4_idle
        case "bytes" | "bytes_in" | "bytes_out" | "requests" | "capacity":
            return 0
        case _:
            assert_never(sku.meter)


def rules(book: PriceBook, span: Span) -> int:
    """Return how many of the provider's rules a load balancer is."""
    if book.topology == "rule_per_port":
        return span.ports
    if book.topology == "rule_per_protocol":
        return span.protocols
    return 1 if span.type else 0


def readings(hour: Hour) -> dict[str, int]:
    """Return an hour's traffic by the names that price books use."""
    return {
        "bytes": hour.bytes_in + hour.bytes_out,
        "bytes_in": hour.bytes_in,
        "bytes_out": hour.bytes_out,
        "requests": hour.requests,
        "new_connections": hour.new_connections,
        "active_connections": hour.connection_us,
    }


def slices(span: Span, changes: Sequence[int], step_us: int = DAY_US) -> Iterator[tuple[int, int]]:
    """Cut a span at every midnight, or more often, and at every change of price."""
    for first, last in _between(span, changes):
        yield from cut(first, last, step_us)


def cut(start: int, last: int, step_us: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of [start, last) between the multiples of `step_us`."""
    while start < last:
        end = min(last, start - start % step_us + step_us)
        yield start, end
        start = end


def _between(span: Span, changes: Sequence[int]) -> Iterator[tuple[int, int]]:
    start = span.start_us
    for change in changes[bisect_right(changes, start) :]:
        if change >= span.end_us:
            break
        yield start, change
        start = change
    yield start, span.end_us


def _added(one: Hour, other: Hour) -> Hour:
    return msgspec.structs.replace(
        other,
        bytes_in=one.bytes_in + other.bytes_in,
        bytes_out=one.bytes_out + other.bytes_out,
        new_connections=one.new_connections + other.new_connections,
        connection_us=one.connection_us + other.connection_us,
        requests=one.requests + other.requests,
        estimated=one.estimated or other.estimated,
    )
