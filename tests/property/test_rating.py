"""Rating adds up, however time is cut, whoever used it and whatever the book says."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fakecloud.billing import accounts, books, prices, projection, quantities, rating
from fakecloud.billing.quantities import HOUR_US, MICRO
from fakecloud.billing.usage import Hour, Line, Span, Usage

BOOKS = [books.load(name) for name in books.names()]
START_US = 1_767_225_600 * MICRO  # 2026-01-01
LONGEST_S = 70 * 86_400

seconds = st.integers(0, LONGEST_S)
any_book = st.sampled_from(BOOKS)


@st.composite
def usages(draw: st.DrawFn) -> list[Usage]:
    """A few load balancers with adjacent or separate spans, and traffic."""
    found = []
    for number in range(draw(st.integers(1, 3))):
        edges = sorted(draw(st.lists(seconds, min_size=2, max_size=7, unique=True)))
        spans = tuple(
            Span(
                start_us=START_US + a * MICRO,
                end_us=START_US + b * MICRO,
                attribution=draw(st.sampled_from(["shop", "pay"])),
                type=draw(st.sampled_from(["lb-s", "lb-m", "lb-l"])),
                ports=draw(st.integers(0, 7)),
                protocols=1,
                ipv4=draw(st.integers(0, 2)),
            )
            for a, b in pairwise(edges)
            if draw(st.booleans())
        )
        starts = sorted(draw(st.sets(st.integers(0, LONGEST_S // 3600), max_size=5)))
        hours = tuple(
            Hour(
                start_us=START_US + hour * HOUR_US,
                attribution=draw(st.sampled_from(["shop", "pay"])),
                bytes_in=draw(st.integers(0, 10**14)),
                bytes_out=draw(st.integers(0, 10**14)),
                new_connections=draw(st.integers(0, 10**8)),
                connection_us=draw(st.integers(0, 10**15)),
                requests=draw(st.integers(0, 10**9)),
            )
            for hour in starts
        )
        found.append(Usage(resource=f"lb_{number}", kind="load_balancer", spans=spans, hours=hours))
    return found


def bill(book: prices.PriceBook, found: list[Usage]) -> list[Line]:
    return list(projection.bill(found, book))


def together(book: prices.PriceBook, found: list[Usage]) -> int:
    """Return what the account costs as a whole, in pico-units."""
    schedules = {usage.resource: rating.by_one(book) for usage in found}
    return sum(line.billed_pico for line in accounts.rate(found, schedules))


def sums(lines: list[Line]) -> dict[tuple[str, str, str, str], tuple[int, int]]:
    found: defaultdict[tuple[str, str, str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for line in lines:
        key = line.resource, line.sku, line.price_id, line.attribution
        quantity, billed = found[key]
        found[key] = quantity + line.quantity_micros, billed + line.billed_pico
    return dict(found)


def cut(usage: Usage, edges: list[int]) -> Usage:
    """Return the same usage, every span cut at `edges`."""
    spans = []
    for span in usage.spans:
        inside = [edge for edge in edges if span.start_us < edge < span.end_us]
        for a, b in pairwise([span.start_us, *inside, span.end_us]):
            spans.append(msgspec.structs.replace(span, start_us=a, end_us=b))
    return msgspec.structs.replace(usage, spans=tuple(spans))


@given(any_book, usages(), st.lists(seconds, max_size=6, unique=True))
def test_invariant_1_any_cuts_give_the_same_sums(
    book: prices.PriceBook, found: list[Usage], edges: list[int]
) -> None:
    """Planted bug it catches: rounding each line up by itself."""
    at = sorted(START_US + edge * MICRO for edge in edges)
    again = [cut(usage, at) for usage in found]
    own, parts = [], []
    for usage, other in zip(found, again, strict=True):
        own += list(rating.rate(usage, rating.by_one(book)))
        parts += list(rating.rate(other, rating.by_one(book)))
    assert sums(own) == sums(parts)
    # An account's parts may differ by their remainders, the account itself may not.
    assert together(book, found) == together(book, again)


@given(any_book, usages(), seconds)
def test_invariant_1_beginning_in_the_middle_gives_the_same_lines(
    book: prices.PriceBook, found: list[Usage], since: int
) -> None:
    """Planted bug it catches: readings, or a month's cap, that begin at zero in the middle."""
    edge = START_US + since * MICRO
    for usage in found:
        parts = cut(usage, [edge])
        late = [line for line in rating.rate(parts, rating.by_one(book)) if line.start_us >= edge]
        assert list(rating.rate(usage, rating.by_one(book), edge)) == late


@given(any_book, usages())
def test_invariant_3_every_line_is_quantity_times_price_and_nothing_is_lost(
    book: prices.PriceBook, found: list[Usage]
) -> None:
    """Planted bug it catches: a cap that bills more than the list, a line without a resource."""
    lines = bill(book, found)
    for line in lines:
        assert line.quantity_micros > 0
        assert 0 <= line.billed_pico <= line.list_pico
        assert line.start_us < line.end_us
    assert {line.resource for line in lines} <= {usage.resource for usage in found}


@given(any_book, usages(), seconds)
def test_invariant_4_cost_never_falls(
    book: prices.PriceBook, found: list[Usage], until: int
) -> None:
    """Planted bug it catches: a cap whose month is forgotten when the plan changes."""
    edge = START_US + until * MICRO

    def before(usage: Usage) -> Usage:
        spans = tuple(span for span in cut(usage, [edge]).spans if span.end_us <= edge)
        hours = tuple(hour for hour in usage.hours if hour.start_us < edge)
        return msgspec.structs.replace(usage, spans=spans, hours=hours)

    early = sum(line.billed_pico for line in bill(book, [before(usage) for usage in found]))
    assert early <= sum(line.billed_pico for line in bill(book, found))


@given(usages())
def test_invariant_6_no_month_costs_more_than_its_cap(found: list[Usage]) -> None:
    """Planted bug it catches: the cap of a day instead of a month."""
    book = books.load("hetzner-eu")
    spent: defaultdict[tuple[str, int], int] = defaultdict(int)
    for line in bill(book, found):
        if line.sku == "lb-hour":
            month = quantities.month_of(line.start_us)[0]
            spent[line.resource, month] += line.billed_pico
    assert all(pico <= 7_490_000 * MICRO for pico in spent.values())


@given(usages())
def test_invariant_14_the_fullest_sum_is_no_more_than_the_sum_of_the_fullest(
    found: list[Usage],
) -> None:
    """Planted bug it catches: capacity of averages, or added over load balancers."""
    sku = next(one for one in books.load("aws-nlb-us-east-1").skus if one.meter == "capacity")
    dimensions = sku.dimensions()
    hours = [rating.readings(hour) for usage in found for hour in usage.hours]
    merged = {name: sum(one[name] for one in hours) for name in rating.readings(EMPTY)}
    apart = sum(quantities.capacity(one, dimensions) for one in hours)
    assert quantities.capacity(merged, dimensions) <= apart + len(hours)


EMPTY = Hour(start_us=0, attribution="")


@given(
    st.integers(0, 10**15),
    st.dictionaries(st.text(max_size=3), st.integers(0, 10**9), max_size=8),
)
def test_invariant_15_shares_add_up_and_are_fair(whole: int, weights: dict[str, int]) -> None:
    """Planted bug it catches: dropping the remainder, or giving it all to one."""
    parts = quantities.shares(whole, weights)
    total = sum(weights.values())
    assert sum(parts.values()) == (whole if total else 0)
    for name, part in parts.items():
        if total:
            assert abs(part * total - whole * weights[name]) < total
    assert parts == quantities.shares(whole, dict(reversed(weights.items())))
