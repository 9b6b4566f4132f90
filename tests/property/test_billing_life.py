"""What one load balancer costs in its life: from its first second to its last, at any price."""

from __future__ import annotations

import calendar
import itertools
import uuid
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import msgspec
from hypothesis import strategies as st

from fakecloud.accounting import ledger
from fakecloud.billing import books, events, prices, projection, quantities, rating
from fakecloud.billing.events import BillingEvent, Kind
from fakecloud.billing.quantities import DAY_US, HOUR_US, MICRO
from fakecloud.billing.usage import Line
from fakecloud.domain import traffic
from fakecloud.domain.business_time import Mode, Timeline
from fakecloud.domain.tally import Tally
from fakecloud.domain.traffic import Totals
from tests.property.histories import (
    LONGEST_S,
    START_US,
    any_book,
    ends_of,
    histories,
    lived,
    seconds,
    spans,
    used,
)
from tests.property.invariants import invariant, replaced

NOWHERE = Path("there-is-no-such-file.json")
AWS = books.load("aws-nlb-us-east-1")
EVER_US = START_US + 400 * DAY_US


def cost(lines: list[Line], sku: str) -> int:
    return sum(line.billed_pico for line in lines if line.sku == sku)


@invariant(
    2,
    histories(),
    seconds,
    bugs={
        "hours are rounded up": replaced(
            quantities, "hours", lambda _: lambda us, least=0: -(-us // 3600) + 1
        ),
        "only whole hours are charged": replaced(
            quantities, "started_hours", lambda _: lambda us: us // HOUR_US * MICRO
        ),
        "what goes on isn't charged yet": replaced(
            events,
            "spans",
            lambda spans: lambda found, until, ends: [*spans(found, until, ends)][:-1],
        ),
    },
)
def test_invariant_2_the_bill_is_the_integral(history: list[BillingEvent], until_s: int) -> None:
    """Catches: hours are rounded up; only whole hours are charged; what goes on isn't charged
    yet.

    Time by the second to less than a micro-unit, started hours exactly.
    """
    until = START_US + until_s * MICRO
    lines = list(projection.bill([used(history, until)], AWS))
    exact = lived(history, until)
    assert cost(lines, "lb-network-hour") == -(-exact // 1) * MICRO * 22_500
    addresses = sum(
        Fraction(span.end_us - span.start_us, HOUR_US) * span.ipv4 for span in spans(history, until)
    )
    off = addresses * MICRO * 5_000 - cost(lines, "ipv4-inuse-hour")
    assert 0 <= off < 5_000
    assert sum(span.end_us - span.start_us for span in spans(history, until)) == exact * HOUR_US


@invariant(
    5,
    any_book,
    histories(),
    bugs={
        "what was never active is billed": replaced(
            events, "spans", lambda spans: lambda found, until, _: spans(
                found, until, lambda us: (Kind.CREATED, Kind.DELETED)
            ),
        ),
        "a change begins a second one": replaced(
            events,
            "_span",
            lambda span: lambda account, of, start, end: span(account, of, START_US, end),
        ),
        "the wish to delete ends nothing": replaced(
            events, "spans", lambda spans: lambda found, until, _: spans(
                found, until, lambda us: (Kind.ACTIVATED, Kind.DELETED)
            ),
        ),
    },
)  # fmt: skip
def test_invariant_5_nothing_free_nothing_double(
    book: prices.PriceBook, history: list[BillingEvent]
) -> None:
    """Catches: what was never active is billed; a change begins a second one; the wish to delete
    ends nothing."""
    kinds = [event.kind for event in history]
    found = spans(history, EVER_US, ends_of(book))
    for one, other in itertools.pairwise(found):
        assert one.end_us == other.start_us, "spans meet, and never overlap"
    assert all(span.start_us < span.end_us for span in found)
    usage = used(history, EVER_US)
    lines = list(projection.bill([usage], book))
    if Kind.ACTIVATED not in kinds:
        assert lines == []
        return
    assert found, "whatever was active is billed"
    for span in found:
        of = [sku for sku in book.of_plan(span.type) if sku.meter in ("alive", "rules")]
        assert len(of) == 1, "an active moment is of exactly one price"
    assert sum(s.end_us - s.start_us for s in found) == lived(history, EVER_US) * HOUR_US
    if Kind.DELETE_REQUESTED in kinds:
        assert list(projection.bill([used(history, EVER_US + 90 * DAY_US)], book)) == lines


@invariant(
    7,
    histories(),
    bugs={
        "the same change has another id again": replaced(
            events, "_event_id", lambda _: lambda *of: str(uuid.uuid4())
        ),
        "two changes have the same id": replaced(
            events, "_event_id", lambda _: lambda resource, kind, version: resource
        ),
    },
)
def test_invariant_7_a_repeated_change_is_the_same_event(history: list[BillingEvent]) -> None:
    """Catches: the same change has another id again; two changes have the same id.

    The ids are unique in the database, so what is repeated is refused there.
    """
    ids = [events._event_id("lb_1", event.kind, n) for n, event in enumerate(history)]
    again = [events._event_id("lb_1", event.kind, n) for n, event in enumerate(history)]
    assert ids == again
    assert len(set(ids)) == len(ids)


def _dearer(book: prices.PriceBook, **more: str) -> prices.PriceBook:
    skus = [
        msgspec.structs.replace(sku, price=None if sku.price is None else "7") for sku in book.skus
    ]
    return msgspec.structs.replace(book, version=book.version + 1, skus=skus, **more)


@invariant(
    11,
    any_book,
    histories(),
    st.integers(0, LONGEST_S),
    st.integers(0, LONGEST_S),
    bugs={
        "the price holds from a moment later": replaced(
            rating.Schedule, "at", lambda at: lambda self, us: at(self, us - HOUR_US)
        ),
        "lines cross the change": replaced(
            rating, "_between", lambda _: lambda span, changes: [(span.start_us, span.end_us)]
        ),
        "the newest price holds for the past": replaced(
            rating.Schedule, "at", lambda _: lambda self, us: self.books[-1]
        ),
    },
)
def test_invariant_11_before_the_change_the_old_price_after_it_the_new(
    book: prices.PriceBook, history: list[BillingEvent], at_s: int, later_s: int
) -> None:
    """Catches: the price holds from a moment later; lines cross the change; the newest price
    holds for the past."""
    change = START_US + at_s * MICRO
    new = _dearer(book)
    after = msgspec.structs.replace(_dearer(new), version=new.version + 1)
    old, both = rating.by_one(book), rating.Schedule(
        [rating.Assignment(from_us=0, book=book), rating.Assignment(from_us=change, book=new)]
    )  # fmt: skip
    usage = used(history, START_US + LONGEST_S * MICRO)
    lines = list(rating.rate(usage, both))
    before = used(history, min(change, START_US + LONGEST_S * MICRO))
    assert [line for line in lines if line.start_us < change] == list(rating.rate(before, old))
    for line in lines:
        assert line.book == (book if line.start_us < change else new).id
        assert line.end_us <= change or line.start_us >= change
    coming = change + later_s * MICRO
    future = rating.Schedule(
        [
            rating.Assignment(from_us=us, book=one)
            for us, one in ((0, book), (change, new), (coming, after))
        ]
    )
    until = coming - coming % DAY_US
    assert [line for line in rating.rate(usage, future) if line.start_us < until] == [
        line for line in lines if line.start_us < until
    ], "a future price changes nothing before it"


@invariant(
    11,
    histories(),
    st.integers(0, LONGEST_S),
    st.sampled_from(["all", "new", "new_and_resized"]),
    bugs={
        "everybody gets the new price": replaced(
            ledger,
            "schedule_of",
            lambda _: lambda assigned, history: rating.Schedule(assigned),
        ),
        "nobody ever gets it": replaced(
            ledger,
            "schedule_of",
            lambda _: lambda assigned, history: rating.Schedule(assigned[:1]),
        ),
    },
)
def test_invariant_11_who_keeps_the_old_price_keeps_it_until_it_is_resized(
    history: list[BillingEvent], at_s: int, applies_to: str
) -> None:
    """Catches: everybody gets the new price; nobody ever gets it."""
    change = START_US + at_s * MICRO
    new = _dearer(AWS, applies_to=applies_to)
    assigned = [
        rating.Assignment(from_us=0, book=AWS), rating.Assignment(from_us=change, book=new)
    ]  # fmt: skip
    schedule = ledger.schedule_of(assigned, history)
    begun = history[0].at_us
    types = [(event.at_us, event.terms.type) for event in history]
    resized = [b[0] for a, b in itertools.pairwise(types) if a[1] != b[1] and b[0] >= change]
    since = {"all": change, "new": None, "new_and_resized": min(resized, default=None)}[applies_to]
    if begun >= change:
        since = change
    moments = {begun, change - MICRO, change, change + MICRO, *(at for at, _ in types)}
    for us in moments:
        expected = AWS if since is None or us < since else new
        assert schedule.at(us) is expected, (us, since)


@invariant(
    12,
    st.integers(0, 200 * 86_400),
    st.integers(0, 200 * 86_400),
    st.integers(1, 3600),
    st.integers(2000, 2100),
    bugs={
        "an advance forgets the anchor": replaced(
            Timeline,
            "anchored",
            lambda _: lambda self, sim, wall: msgspec.structs.replace(self, anchor_wall=wall),
        ),
        "every month has 30 days": replaced(
            quantities,
            "months",
            lambda _: lambda start, end: (end - start) * MICRO // (30 * DAY_US),
        ),
    },
)
def test_invariant_12_time_adds_up(one_s: int, other_s: int, rate: int, year: int) -> None:
    """Catches: an advance forgets the anchor; every month has 30 days.

    Also over the ends of months, of leap years, and where Europe and America move their clocks:
    billing knows UTC only.
    """
    begun = datetime(2026, 3, 8, 9, tzinfo=UTC)
    a, b = timedelta(seconds=one_s), timedelta(seconds=other_s)
    line = Timeline(mode=Mode.RATE, rate=rate, anchor_sim=begun, anchor_wall=begun)
    moved = line.anchored(line.at(begun + a), begun + a)
    assert moved.at(begun + a + b) == line.at(begun + a + b)
    assert line.at(begun - a) == begun, "never back"
    for month in range(1, 13):
        first = events.seconds_us(datetime(year, month, 1, tzinfo=UTC))
        after = first + calendar.monthrange(year, month)[1] * DAY_US
        assert quantities.month_of(first) == quantities.month_of(after - 1) == (first, after)
        middle = first + one_s * MICRO % (after - first)
        assert quantities.months(first, middle) + quantities.months(middle, after) == MICRO


@invariant(
    12,
    histories(),
    st.lists(seconds, max_size=6),
    bugs={
        "every stop of the clock is an hour begun": replaced(
            rating.Meter,
            "pass_time",
            lambda passed: lambda self, *of: (self._readings.clear(), passed(self, *of))[1],
        ),
        "a span that goes on begins anew": replaced(
            events,
            "spans",
            lambda spans: (
                lambda found, until, ends: [
                    msgspec.structs.replace(one, start_us=one.start_us - one.start_us % DAY_US)
                    for one in spans(found, until, ends)
                ]
            ),
        ),
    },
)
def test_invariant_12_many_small_steps_are_one_great_one(
    history: list[BillingEvent], steps: list[int]
) -> None:
    """Catches: every stop of the clock is an hour begun; a span that goes on begins anew."""
    end = START_US + sum(steps) * MICRO
    at, paid = START_US, 0
    for step in steps:
        usage = used(history, at + step * MICRO)
        paid += sum(line.billed_pico for line in rating.rate(usage, rating.by_one(AWS), at))
        at += step * MICRO
    whole = rating.rate(used(history, end), rating.by_one(AWS))
    assert abs(paid - sum(line.billed_pico for line in whole)) <= 0
    exact = lived(history, end)
    hours = [line for line in rating.rate(used(history, end), rating.by_one(AWS))
             if line.sku == "lb-network-hour"]  # fmt: skip
    assert sum(line.quantity_micros for line in hours) == -(-exact // 1) * MICRO


readings = st.lists(
    st.tuples(
        st.integers(0, 3 * 3600),  # seconds since the reading before
        st.integers(0, 10**6),  # bytes carried since
        st.sampled_from(["read", "read", "ended", "crashed", "reset"]),
        st.integers(0, 50),
    ),
    max_size=12,
)


@invariant(
    13,
    readings,
    bugs={
        "a counter that fell is taken as it is": replaced(
            Tally, "_settle", lambda _: lambda self, row: None
        ),
        "the same is counted in both hours": replaced(
            traffic,
            "parts",
            lambda parts: (
                lambda before, after: [part for part in parts(before, after) for _ in range(2)]
            ),
        ),
        "a reading is spread from where it began": replaced(
            traffic,
            "parts",
            lambda parts: (
                lambda before, after: (
                    msgspec.structs.replace(part, bytes_in=part.bytes_in + 1)
                    for part in parts(before, after)
                )
            ),
        ),
    },
)
def test_invariant_13_counters_never_fall_and_never_say_too_much(
    found: list[tuple[int, int, str, int]],
) -> None:
    """Catches: a counter that fell is taken as it is; the same is counted in both hours; a
    reading is spread from where it began.

    Processes are read, end, crash unread and count from zero again, in any order. All that was
    read last before an end is there; what nobody read is missing, and nothing else.
    """
    tally, process, counted = Tally(NOWHERE), 1, 0
    names = {("web", "FRONTEND"): ("listener", "web")}
    tally.begin(process)
    at, before = datetime(2026, 11, 23, 10, tzinfo=UTC), None
    carried = seen = hours = lost = 0
    for pause, size, what, active in found:
        at += timedelta(seconds=pause)
        carried += size
        counted += size
        if what == "crashed":
            tally.ended(process, complete=False)
            lost += counted - seen
            process, counted, seen = process + 1, 0, 0
            tally.begin(process)
        else:
            if what == "reset":
                lost += counted - seen
                counted = seen = 0
            row = {"pxname": "web", "svname": "FRONTEND", "scur": str(active), "bin": str(counted)}
            row |= {"ctime": "", "rtime": "", "mode": "tcp"}
            tally.read(process, [row], names)
            seen = counted
            if what == "ended":
                tally.ended(process, complete=True)
                process, counted, seen = process + 1, 0, 0
                tally.begin(process)
        total = sum(one.bytes_in for one in tally.totals(names))
        gaps = max((one.gaps for one in tally.totals(names)), default=0)
        now = Totals(at=at, active=active, bytes_in=total, gaps=gaps)
        for part in traffic.parts(before, now):
            assert part.bytes_in >= 0
            assert part.connection_us >= 0
            hours += part.bytes_in
        before = now
        assert total == carried - lost - (counted - seen)
        assert hours == total <= carried
