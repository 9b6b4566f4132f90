"""Rating adds up, however time is cut, whoever used it and whatever the book says."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

import msgspec
from hypothesis import strategies as st

from fakecloud.billing import accounts, books, money, prices, projection, quantities, rating
from fakecloud.billing.quantities import HOUR_US, MICRO
from fakecloud.billing.usage import Hour, Line, Span, Usage
from tests.property.histories import LONGEST_S, START_US, any_book, cut, usages
from tests.property.invariants import invariant, replaced

EMPTY = Hour(start_us=0, attribution="")
within = st.integers(0, LONGEST_S)
later = st.one_of(within, st.integers(31 * 86_400, LONGEST_S))  # in a month that isn't the first


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


@invariant(
    1,
    any_book,
    usages(),
    st.lists(within, max_size=6, unique=True),
    bugs={
        "a line is rounded up by itself": replaced(
            quantities, "hours", lambda _: lambda us, least=0: -(-max(us, least) // 3600)
        ),
        "the reading begins anew with each span": replaced(
            rating.Meter,
            "pass_time",
            lambda passed: lambda self, *args: (self._readings.clear(), passed(self, *args))[1],
        ),
    },
)
def test_invariant_1_any_cuts_give_the_same_sums(
    book: prices.PriceBook, found: list[Usage], edges: list[int]
) -> None:
    """Catches: a line is rounded up by itself; the reading begins anew with each span."""
    at = sorted(START_US + edge * MICRO for edge in edges)
    again = [cut(usage, at) for usage in found]
    own, parts = [], []
    for usage, other in zip(found, again, strict=True):
        own += list(rating.rate(usage, rating.by_one(book)))
        parts += list(rating.rate(other, rating.by_one(book)))
        for sku in book.of_plan("lb-s"):
            if not sku.priced:
                continue
            if sku.id in ("ipv4-inuse-hour",) and isinstance(sku.rate, prices.LinearRate):
                us = sum((s.end_us - s.start_us) * rating.units(sku, book, s) for s in usage.spans)
                mine = sum(line.quantity_micros for line in own if line.resource == usage.resource
                           and line.sku == sku.id)  # fmt: skip
                assert mine == us // 3600, "the sum is F of the whole"
    assert sums(own) == sums(parts)
    # An account's parts may differ by their remainders, the account itself may not.
    assert together(book, found) == together(book, again)


@invariant(
    1,
    any_book,
    usages(),
    later,
    bugs={
        "a month's cap begins at zero in the middle": replaced(
            quantities, "capped", lambda _: lambda spent: max(spent.values(), default=0)
        ),
        "readings begin at zero in the middle": replaced(
            rating.Meter, "skip", lambda _: lambda self, span: None
        ),
    },
)
def test_invariant_1_beginning_in_the_middle_gives_the_same_lines(
    book: prices.PriceBook, found: list[Usage], since: int
) -> None:
    """Catches: readings begin at zero in the middle; a month's cap begins at zero in the middle.

    The second one also by what a capped month may cost at most.
    """
    edge = START_US + since * MICRO
    for usage in found:
        parts = cut(usage, [edge])
        late = [line for line in rating.rate(parts, rating.by_one(book)) if line.start_us >= edge]
        assert list(rating.rate(usage, rating.by_one(book), edge)) == late
        assert all(line.billed_pico <= line.list_pico for line in late)
        months: defaultdict[int, int] = defaultdict(int)
        for line in rating.rate(parts, rating.by_one(book)):
            cap = next((one.cap_pico for one in book.skus if one.id == line.sku), None)
            if cap is not None:
                months[quantities.month_of(line.start_us)[0]] += line.billed_pico
        highest = max((one.cap_pico or 0 for one in book.skus), default=0)
        assert all(pico <= highest for pico in months.values())


@invariant(
    3,
    any_book,
    usages(),
    bugs={
        "a cap that bills more than the list": replaced(
            quantities, "capped", lambda _: lambda spent: 2 * sum(spent.values())
        ),
        "what is shared is lost for one of them": replaced(
            quantities, "shares", lambda shares: lambda *a: dict(list(shares(*a).items())[1:])
        ),
    },
)
def test_invariant_3_every_line_is_quantity_times_price_and_nothing_is_lost(
    book: prices.PriceBook, found: list[Usage]
) -> None:
    """Catches: a cap that bills more than the list; what is shared is lost for one of them."""
    lines = bill(book, found)
    for line in lines:
        assert line.quantity_micros > 0
        assert 0 <= line.billed_pico <= line.list_pico
        assert line.start_us < line.end_us
    assert {line.resource for line in lines} <= {usage.resource for usage in found}
    for sku in book.skus:
        if isinstance(sku.rate, prices.GraduatedRate) and sku.priced:
            months: defaultdict[int, int] = defaultdict(int)
            for usage in found:
                for hour in usage.hours:
                    month = quantities.month_of(hour.start_us)[0]
                    months[month] += rating.readings(hour)[sku.meter]
            mine = sum(line.quantity_micros for line in lines if line.sku == sku.id)
            assert mine == sum(all * MICRO // prices.UNITS[sku.unit] for all in months.values())


@invariant(
    4,
    any_book,
    usages(),
    within,
    bugs={
        "what is included is given again with every hour": replaced(
            quantities, "over", lambda _: lambda quantity, included: abs(quantity - included)
        ),
        "the dearest plan's cap replaces what was billed": replaced(
            quantities,
            "capped",
            lambda _: lambda spent: min(sum(spent.values()), *(c for _, c in spent), 10**18),
        ),
    },
)
def test_invariant_4_cost_never_falls(
    book: prices.PriceBook, found: list[Usage], until: int
) -> None:
    """Catches: what is included is given again with every hour; the dearest plan's cap replaces
    what was billed."""
    edge = START_US + until * MICRO

    def before(usage: Usage) -> Usage:
        spans = tuple(span for span in cut(usage, [edge]).spans if span.end_us <= edge)
        hours = tuple(hour for hour in usage.hours if hour.start_us < edge)
        return msgspec.structs.replace(usage, spans=spans, hours=hours)

    lines = bill(book, found)
    assert all(line.billed_pico >= 0 and line.quantity_micros > 0 for line in lines)
    early = sum(line.billed_pico for line in bill(book, [before(usage) for usage in found]))
    assert early <= sum(line.billed_pico for line in lines)
    for smaller, larger in ((7, 9), (0, 1)):
        for cap in ((5, 5), (5, 8), (8, 5)):
            first = quantities.capped({("s", cap[0]): smaller})
            assert first <= quantities.capped({("s", cap[0]): smaller, ("l", cap[1]): larger})


@invariant(
    6,
    usages(),
    st.sampled_from(["hetzner-eu", "akamai-linode", "ovh-octavia"]),
    within,
    bugs={
        "a change of the price gives another cap": replaced(
            quantities,
            "capped",
            lambda _: lambda spent: sum(min(p, c) for (_, c), p in spent.items()),
        ),
        "there is no cap": replaced(quantities, "capped", lambda _: lambda s: sum(s.values())),
    },
)
def test_invariant_6_no_month_costs_more_than_its_cap(
    found: list[Usage], name: str, changed: int
) -> None:
    """Catches: there is no cap; a change of the price gives another cap."""
    book = books.load(name)
    caps = {sku.plan: sku.cap_pico for sku in book.skus if sku.meter == "alive"}
    dearer = [
        msgspec.structs.replace(
            sku, price="1", rate=prices.StartedHourRate(cap=prices.Cap(amount="50"))
        )
        if sku.meter == "alive" and sku.price is not None
        else sku
        for sku in book.skus
    ]
    schedule = rating.Schedule(
        [
            rating.Assignment(from_us=0, book=book),
            rating.Assignment(
                from_us=START_US + changed * MICRO,
                book=msgspec.structs.replace(book, version=book.version + 1, skus=dearer),
            ),
        ]
    )
    spent: defaultdict[tuple[str, int], int] = defaultdict(int)
    for usage in found:
        plan = {book.plans.get(span.type) for span in usage.spans}
        most = max((caps.get(one) or 0 for one in plan), default=0)
        for line in rating.rate(usage, rating.by_one(book)):
            if line.sku == "lb-hour":
                spent[line.resource, quantities.month_of(line.start_us)[0]] += line.billed_pico
        assert all(pico <= most for (who, _), pico in spent.items() if who == usage.resource)
        both: defaultdict[int, int] = defaultdict(int)
        for line in rating.rate(usage, schedule):
            assert line.billed_pico <= line.list_pico
            if line.sku == "lb-hour":
                both[quantities.month_of(line.start_us)[0]] += line.billed_pico
        assert all(pico <= 50 * money.PICO for pico in both.values())


@invariant(
    6,
    st.integers(1, 7200),
    bugs={
        "the minimum is forgotten": replaced(
            quantities, "hours", lambda _: lambda us, least=0: us // 3600
        ),
        "the minimum is added": replaced(
            quantities, "hours", lambda _: lambda us, least=0: (us + least) // 3600 if us else 0
        ),
    },
)
def test_invariant_6_the_least_is_the_minimum(lived_s: int) -> None:
    """Catches: the minimum is forgotten; the minimum is added."""
    span = Span(start_us=START_US, end_us=START_US + lived_s * MICRO, attribution="a", type="lb-s")
    usage = Usage(resource="lb_1", kind="load_balancer", spans=(span,))
    lines = [line for line in bill(books.load("generic"), [usage]) if line.sku == "lb-hour"]
    due = max(lived_s, 60) * MICRO // 3600
    assert sum(line.quantity_micros for line in lines) == due


@invariant(
    14,
    usages(),
    bugs={
        "the dimensions are added": replaced(
            quantities,
            "capacity",
            lambda _: lambda found, sizes: sum(found[d.meter] * MICRO // d.per_unit for d in sizes),
        ),
        "the emptiest dimension decides": replaced(
            quantities,
            "capacity",
            lambda _: lambda found, sizes: min(found[d.meter] * MICRO // d.per_unit for d in sizes),
        ),
    },
)
def test_invariant_14_the_fullest_hour_by_hour_never_by_means(found: list[Usage]) -> None:
    """Catches: the dimensions are added; the emptiest dimension decides.

    The largest of the sums is no more than the sum of the largest; a mean hides peaks (Jensen).
    """
    book = books.load("aws-nlb-us-east-1")
    sku = next(one for one in book.skus if one.meter == "capacity")
    sizes = sku.dimensions()
    hours = [rating.readings(hour) for usage in found for hour in usage.hours]
    merged = {name: sum(one[name] for one in hours) for name in rating.readings(EMPTY)}
    apart = sum(quantities.capacity(one, sizes) for one in hours)
    assert quantities.capacity(merged, sizes) <= apart + len(hours)
    for one in hours:
        filled = [Fraction(one[size.meter], size.per_unit) for size in sizes]
        assert abs(Fraction(quantities.capacity(one, sizes), MICRO) - max(filled)) < Fraction(
            1, MICRO
        )
    lines = [line for line in bill(book, found) if line.sku == sku.id]
    assert sum(line.quantity_micros for line in lines) == apart


@invariant(
    15,
    st.integers(0, 10**15),
    st.dictionaries(st.text(max_size=3), st.integers(0, 10**9), max_size=8),
    bugs={
        "the remainder is dropped": replaced(
            quantities,
            "shares",
            lambda _: (
                lambda whole, of: {n: whole * w // max(1, sum(of.values())) for n, w in of.items()}
            ),
        ),
        "one gets all of the remainder": replaced(
            quantities,
            "shares",
            lambda shares: (
                lambda whole, of: (
                    shares(whole // 10 * 10, of)
                    | (
                        {min(of): shares(whole // 10 * 10, of)[min(of)] + whole % 10}
                        if any(of.values())
                        else {}
                    )
                )
            ),
        ),
    },
)
def test_invariant_15_shares_add_up_and_are_fair(whole: int, weights: dict[str, int]) -> None:
    """Catches: the remainder is dropped; one gets all of the remainder."""
    parts = quantities.shares(whole, weights)
    total = sum(weights.values())
    assert sum(parts.values()) == (whole if total else 0)
    for name, part in parts.items():
        if total:
            assert abs(part * total - whole * weights[name]) < total
    assert parts == quantities.shares(whole, dict(reversed(weights.items())))


@invariant(
    15,
    st.lists(st.integers(1, 7), min_size=1, max_size=6),
    st.integers(1, 730),
    bugs={
        "one more is in the package": replaced(
            accounts,
            "_steps",
            lambda steps: (
                lambda rate, *args: steps(
                    msgspec.structs.replace(rate, first=rate.first + 1), *args
                )
            ),
        ),
        "everybody pays for the package": replaced(
            accounts,
            "_divided",
            lambda divided: (
                lambda sku, book, part, price, period, quantity, of, **more: divided(
                    sku, book, part, price, period, quantity * len(of), of, **more
                )
            ),
        ),
    },
)
def test_invariant_15_a_package_is_the_providers_formula(ports: list[int], hours: int) -> None:
    """Catches: one more is in the package; everybody pays for the package."""
    book = books.load("azure-standard")
    usages = [
        Usage(
            resource=f"lb_{number}",
            kind="load_balancer",
            spans=(
                Span(
                    start_us=START_US,
                    end_us=START_US + hours * HOUR_US,
                    attribution="a",
                    type="lb-s",
                    ports=count,
                ),
            ),
        )
        for number, count in enumerate(ports)
    ]
    an_hour = 25_000 + max(0, sum(ports) - 5) * 10_000  # 0.025 for five, 0.01 for each more
    assert sum(line.billed_pico for line in bill(book, usages)) == an_hour * hours * MICRO
