"""What goes on costing: a month at the present rate, and the rest of this month.

Both are the same rating as that of the bill, on time that hasn't passed yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from fakecloud.billing import accounts, quantities, rating
from fakecloud.billing.prices import PriceBook
from fakecloud.billing.quantities import HOUR_US, MICRO
from fakecloud.billing.rating import Schedule
from fakecloud.billing.usage import Charge, Hour, Line, Span, Usage, charge

_WHOLE_US: Final = 1 << 62  # no line is that long
HOURS_PER_MONTH: Final = 730
_SOME_MONTH_US: Final = 1_772_323_200 * MICRO  # March 2026: it has 744 hours, so 730 fit in


def bill(
    usages: Sequence[Usage],
    book: PriceBook,
    from_us: int = 0,
    step_us: int = quantities.DAY_US,
) -> Iterator[Line]:
    """Yield what usages cost under one book from `from_us` on, each by itself and together.

    step_us: how long a line is at most, where nothing else ends it.
    """
    schedule = rating.by_one(book)
    return accounts.bill(usages, {one.resource: schedule for one in usages}, from_us, step_us)


def month_of(spans: Iterable[tuple[str, Span]]) -> list[Usage]:
    """Return 730 hours of resources as they are in these spans, without traffic.

    spans: (resource, span), one for each resource that is there.
    """
    end = _SOME_MONTH_US + HOURS_PER_MONTH * HOUR_US
    return [
        Usage(
            resource=resource,
            kind="load_balancer" if span.type else "address",
            spans=(msgspec.structs.replace(span, start_us=_SOME_MONTH_US, end_us=end),),
        )
        for resource, span in spans
    ]


def monthly(
    usages: Sequence[Usage], schedules: Mapping[str, Schedule], at_us: int
) -> Iterator[Charge]:
    """Yield what usages of `month_of` come to, each by itself and all together.

    schedules: of each; what is in force at a moment is as if it were for ever.
    """
    forever = from_now_on(schedules, at_us)
    alike: dict[tuple[int, Span], list[Charge]] = {}  # most are: what one costs all of them do
    for usage in usages:
        schedule = forever[usage.resource]
        kind = (id(schedule.books[0]), msgspec.structs.replace(usage.spans[0], attribution=""))
        if kind not in alike:
            alike[kind] = [charge(line) for line in rating.rate(usage, schedule, step_us=_WHOLE_US)]
        for one in alike[kind]:
            yield msgspec.structs.replace(
                one, resource=usage.resource, attribution=usage.spans[0].attribution
            )
    yield from map(charge, accounts.rate(usages, forever, step_us=_WHOLE_US))


def from_now_on(schedules: Mapping[str, Schedule], at_us: int) -> dict[str, Schedule]:
    """Return schedules as if what is in force for each at a moment were in force for ever."""
    return {name: rating.by_one(one.at(at_us)) for name, one in schedules.items()}


def open_spans(usages: Iterable[Usage], at_us: int) -> Iterator[tuple[str, Span]]:
    """Yield the span in which each resource is at a moment, if any."""
    for usage in usages:
        if usage.spans and usage.spans[-1].start_us < at_us <= usage.spans[-1].end_us:
            yield usage.resource, usage.spans[-1]


def prolonged(usages: Iterable[Usage], now_us: int) -> Iterator[Usage]:
    """Yield usages as they will be at the month's end if nothing but time goes on."""
    end = quantities.month_of(now_us)[1]
    for usage in usages:
        if usage.spans and usage.spans[-1].end_us == now_us:
            last = msgspec.structs.replace(usage.spans[-1], end_us=end)
            yield msgspec.structs.replace(usage, spans=(*usage.spans[:-1], last))
        else:
            yield usage


def with_traffic_held(
    usages: Iterable[Usage], now_us: int, chosen: Callable[[list[Hour]], Hour | None]
) -> Iterator[Usage]:
    """Yield usages with the traffic of one hour in every hour that is left of the month.

    chosen: picks or makes that hour from the last 24 whole ones, None: no traffic.
    """
    month_end = quantities.month_of(now_us)[1]
    first = now_us - now_us % HOUR_US
    for usage in usages:
        last = [hour for hour in usage.hours if first - 24 * HOUR_US <= hour.start_us < first]
        typical = chosen(last) if usage.spans and usage.spans[-1].end_us >= now_us else None
        if typical is None:
            yield usage
            continue
        held = [
            msgspec.structs.replace(typical, start_us=start)
            for start in range(first + HOUR_US, month_end, HOUR_US)
        ]
        yield msgspec.structs.replace(usage, hours=(*usage.hours, *held))


def mean(hours: list[Hour]) -> Hour | None:
    """Return the mean of up to 24 hours, those without a record counting as none."""
    if not hours:
        return None
    return Hour(
        start_us=0,
        attribution=hours[-1].attribution,
        bytes_in=sum(hour.bytes_in for hour in hours) // 24,
        bytes_out=sum(hour.bytes_out for hour in hours) // 24,
        new_connections=sum(hour.new_connections for hour in hours) // 24,
        connection_us=sum(hour.connection_us for hour in hours) // 24,
        requests=sum(hour.requests for hour in hours) // 24,
        estimated=True,
    )
