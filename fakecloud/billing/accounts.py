"""Charges of a whole account, divided among its resources so that the parts are the whole.

A package ("the first five cost this together") depends on everything that exists at a time, a
graduated price on the traffic of everything in a month. The account's quantity is taken day by
day, or hour by hour, and divided in proportion to use; price times a part is exact.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter

import msgspec

from fakecloud.billing import money, prices, quantities, rating
from fakecloud.billing.prices import PriceBook, Sku
from fakecloud.billing.quantities import DAY_US, HOUR_US, MICRO
from fakecloud.billing.rating import Schedule
from fakecloud.billing.usage import Hour, Line, Span, Usage

Owner = tuple[str, str]  # resource, attribution


def bill(
    usages: Sequence[Usage],
    schedules: Mapping[str, Schedule],
    from_us: int = 0,
    step_us: int = DAY_US,
) -> Iterator[Line]:
    """Yield what usages cost from `from_us` on, each by itself and all together.

    schedules: which books charge each of them. step_us: how long a line is at most, where nothing
    else ends it.
    """
    for usage in usages:
        yield from rating.rate(usage, schedules[usage.resource], from_us, step_us)
    yield from rate(usages, schedules, from_us, step_us)


def rate(
    usages: Sequence[Usage],
    schedules: Mapping[str, Schedule],
    from_us: int = 0,
    step_us: int = DAY_US,
) -> Iterator[Line]:
    """Yield the account's lines from `from_us` on.

    usages: with everything of the month of `from_us`, since readings begin anew with each.
    schedules: which books charge each of them. Where a new price is not for everybody, all use
    counts for packages and tiers, and each pays its part of them by its own book. step_us: how
    long a line of a package is, a day or a part of one.
    """
    books = {id(book): book for one in schedules.values() for book in one.books}
    if not any(rating.by_account(sku) for book in books.values() for sku in book.skus):
        return
    month_us = quantities.month_of(from_us)[0]
    used = [_since(usage, month_us) for usage in usages]
    edges = sorted({from_us, *(at for one in schedules.values() for at in one.changes)})
    for book in books.values():
        for line in _under(book, used, edges, from_us, step_us):
            theirs = schedules[line.resource].at(line.start_us)
            if line.start_us >= from_us and theirs is book:
                yield line


def _since(usage: Usage, start_us: int) -> Usage:
    """Return a usage without its spans' time before `start_us`."""
    spans = tuple(
        msgspec.structs.replace(span, start_us=max(span.start_us, start_us))
        for span in usage.spans
        if span.end_us > start_us
    )
    return msgspec.structs.replace(usage, spans=spans)


def _under(
    book: PriceBook, usages: Sequence[Usage], edges: Sequence[int], from_us: int, step_us: int
) -> Iterator[Line]:
    for sku in book.skus:
        if not rating.by_account(sku) or not sku.priced:
            continue
        if isinstance(sku.rate, prices.PackageRate):
            yield from _package(sku, sku.rate, book, usages, edges, step_us)
        else:
            yield from _traffic(sku, book, usages, from_us)


class _Step(msgspec.Struct):
    """What a day, or a part of one, came to: when it ends, time with any rule, rule-time beyond
    the package, and whose."""

    end_us: int
    first_us: int = 0
    extra_us: int = 0
    weights: defaultdict[Owner, int] = msgspec.field(default_factory=lambda: defaultdict(int))


def _package(
    sku: Sku,
    rate: prices.PackageRate,
    book: PriceBook,
    usages: Sequence[Usage],
    edges: Sequence[int],
    step_us: int,
) -> Iterator[Line]:
    month = first_us = extra_us = 0
    for start, step in sorted(_steps(rate, book, usages, edges, step_us).items()):
        if quantities.month_of(start)[0] != month:
            month, first_us, extra_us = quantities.month_of(start)[0], 0, 0
        parts = (
            ("first", first_us, step.first_us, sku.price_micros),
            ("extra", extra_us, step.extra_us, money.micros(rate.extra)),
        )
        period = (start, step.end_us)
        for part, before, more, price in parts:
            quantity = quantities.hours(before + more) - quantities.hours(before)
            yield from _divided(sku, book, part, price, period, quantity, step.weights)
        first_us += step.first_us
        extra_us += step.extra_us


def _steps(
    rate: prices.PackageRate,
    book: PriceBook,
    usages: Sequence[Usage],
    edges: Sequence[int],
    step_us: int,
) -> dict[int, _Step]:
    """Sweep over the account's time: between two changes the number of rules stands still.

    edges: moments that no step crosses, beside the multiples of `step_us`.
    """
    steps: dict[int, _Step] = {}
    counts: defaultdict[int, int] = defaultdict(int)
    for usage, span, count in _ruled(book, usages):
        for start, end in rating.slices(span, edges, step_us):
            step = steps.setdefault(*_step(start, edges, step_us))
            step.weights[usage.resource, span.attribution] += (end - start) * count
            counts[start] += count
            counts[end] -= count
    there, since = 0, 0
    for moment, change in sorted(counts.items()):
        if there:
            # Everything was cut where steps end, so none crosses.
            step = steps[_step(since, edges, step_us)[0]]
            step.first_us += moment - since
            step.extra_us += max(0, there - rate.first) * (moment - since)
        there += change
        since = moment
    return steps


def _step(at: int, edges: Sequence[int], step_us: int) -> tuple[int, _Step]:
    """Return where the step around a moment begins, and an empty one."""
    start = at - at % step_us
    number = bisect_right(edges, at)
    before, after = edges[:number][-1:], edges[number:][:1]
    end = min([start + step_us, *after])
    return max([start, *before]), _Step(end_us=end)


def _ruled(book: PriceBook, usages: Iterable[Usage]) -> Iterator[tuple[Usage, Span, int]]:
    for usage in usages:
        for span in usage.spans:
            if count := rating.rules(book, span):
                yield usage, span, count


def _traffic(sku: Sku, book: PriceBook, usages: Sequence[Usage], from_us: int) -> Iterator[Line]:
    """Graduated or included: by the account's reading of the month, hour after hour."""
    hours: defaultdict[int, defaultdict[Owner, int]] = defaultdict(lambda: defaultdict(int))
    estimated: set[int] = set()
    for usage in usages:
        for hour in usage.hours:
            hours[hour.start_us][usage.resource, hour.attribution] += _reading(sku, hour)
            if hour.estimated:
                estimated.add(hour.start_us)
    unit = prices.UNITS[sku.unit]
    month, total = -1, 0
    for start, weights in sorted(hours.items(), key=itemgetter(0)):
        this_month = quantities.month_of(start)[0]
        if this_month != month:
            month, total = this_month, 0
        before, total = total, total + sum(weights.values())
        if start < from_us:
            continue
        earlier = _parts(sku, before * MICRO // unit)
        for (part, price, quantity), (_, _, had) in zip(
            _parts(sku, total * MICRO // unit), earlier, strict=True
        ):
            yield from _divided(
                sku,
                book,
                part,
                price,
                (start, start + HOUR_US),
                quantity - had,
                weights,
                estimated=start in estimated,
            )


def _reading(sku: Sku, hour: Hour) -> int:
    return rating.readings(hour)[sku.meter]


def _parts(sku: Sku, quantity: int) -> list[tuple[str, int, int]]:
    """Return (part, price, quantity) of a month's reading in micro-units."""
    if isinstance(sku.rate, prices.IncludedRate):
        included = money.micros(sku.rate.quantity)
        over = quantities.over(quantity, included)
        return [("included", 0, quantity - over), ("", sku.price_micros, over)]
    tiers = sku.tiers()
    found = quantities.graduated(quantity, tiers)
    return [
        ("free-tier" if tier.price_micros == 0 else f"tier-{number}", tier.price_micros, amount)
        for number, (tier, amount) in enumerate(zip(tiers, found, strict=True), start=1)
    ]


def _divided(
    sku: Sku,
    book: PriceBook,
    part: str,
    price_micros: int,
    period: tuple[int, int],
    quantity: int,
    weights: dict[Owner, int],
    *,
    estimated: bool = False,
) -> Iterator[Line]:
    if not quantity:
        return
    named = {
        f"{resource}\0{attribution}": weight for (resource, attribution), weight in weights.items()
    }
    for name, share in sorted(quantities.shares(quantity, named).items()):
        if not share:
            continue
        resource, _, attribution = name.partition("\0")
        yield Line(
            resource=resource,
            sku=sku.id,
            price_id=rating.price_id(book, sku, part),
            book=book.id,
            start_us=period[0],
            end_us=period[1],
            attribution=attribution,
            quantity_micros=share,
            price_micros=price_micros,
            billed_pico=share * price_micros,
            estimated=estimated,
        )
