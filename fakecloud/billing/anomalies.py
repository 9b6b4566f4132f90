"""Days that cost something else than such days did before, and what the difference is made of.

A day is compared with the working days, or the days of weekends, among the 14 before it. It stands out
if it is further from their median than 3.5 times their median deviation, a fifth of the median,
and one unit of the currency. The day among them that is nearest to the median tells why: what the
two differ in adds up to their difference exactly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median_low
from typing import Any, Final, Literal

import msgspec

from fakecloud.billing import money, quantities
from fakecloud.billing.prices import TIME_METERS, PriceBook
from fakecloud.billing.quantities import DAY_US
from fakecloud.billing.usage import Attribution

BEFORE_DAYS: Final = 14
FEWEST_DAYS: Final = 5
Kind = Literal["added", "removed", "price", "traffic", "changed"]
Place = tuple[str | None, str | None]  # cluster, namespace
_SATURDAY: Final = 5


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a resource cost on a day (since 1970) by one price."""

    day: int
    resource: str
    attribution: str
    sku: str
    book: str
    billed_pico: int


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a difference. names: of the load balancers that have it, the dearest first."""

    kind: Kind
    amount_pico: int
    names: tuple[str, ...]


class Anomaly(msgspec.Struct, frozen=True, kw_only=True):
    """A day of a namespace that stands out; `compared_with`: the usual day that causes refer to."""

    day: int
    place: Place
    amount_pico: int
    usual_pico: int
    compared_with: int
    compared_pico: int
    causes: tuple[Cause, ...]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What stands out, and the namespaces of which too little is known, with their days."""

    anomalies: list[Anomaly]
    insufficient: dict[Place, int]


def find(
    costs: Iterable[Cost],
    people: Mapping[str, Attribution],
    books: Mapping[str, PriceBook],
    first_day: int,
    after_day: int,
) -> Found:
    """Return which days of [first_day, after_day) stand out.

    costs: of whole days, of the 14 before `first_day` too.
    """
    by_place: defaultdict[Place, defaultdict[int, list[Cost]]]
    by_place = defaultdict(lambda: defaultdict(list))
    for cost in costs:
        labels = people[cost.attribution].labels
        by_place[labels.get("cluster"), labels.get("namespace")][cost.day].append(cost)
    found, insufficient = [], {}
    for place, days in sorted(by_place.items(), key=lambda one: _order(one[0])):
        begun = min(days)
        totals = {
            day: sum(one.billed_pico for one in days.get(day, ()))
            for day in range(begun, after_day)
        }
        judged = 0
        for day in range(max(first_day, begun), after_day):
            usual = [other for other in range(day - BEFORE_DAYS, day) if _alike(day, other, totals)]
            if len(usual) >= FEWEST_DAYS:
                judged += 1
                if (other := _unusual(day, usual, totals)) is not None:
                    found.append(_anomaly(place, day, other, usual, totals, days, people, books))
        if not judged:
            insufficient[place] = len(totals)
    return Found(anomalies=sorted(found, key=lambda one: -one.day), insufficient=insufficient)


def _order(place: Place) -> tuple[str, str]:
    return (place[0] or "", place[1] or "")


def _alike(day: int, other: int, totals: Mapping[int, int]) -> bool:
    return other in totals and _at_weekend(day) == _at_weekend(other)


def _at_weekend(day: int) -> bool:
    return quantities.moment(day * DAY_US).weekday() >= _SATURDAY


def _unusual(day: int, usual: Sequence[int], totals: Mapping[int, int]) -> int | None:
    """Return the most usual day to compare with, the latest of several; None: nothing stands out."""
    middle = median_low([totals[one] for one in usual])
    deviation = median_low([abs(totals[one] - middle) for one in usual])
    far = max(deviation * 7 // 2, middle // 5, money.PICO)
    if abs(totals[day] - middle) <= far:
        return None
    return min(usual, key=lambda one: (abs(totals[one] - middle), -one))


def _anomaly(
    place: Place,
    day: int,
    other: int,
    usual: Sequence[int],
    totals: Mapping[int, int],
    days: Mapping[int, Sequence[Cost]],
    people: Mapping[str, Attribution],
    books: Mapping[str, PriceBook],
) -> Anomaly:
    return Anomaly(
        day=day,
        place=place,
        amount_pico=totals[day],
        usual_pico=median_low([totals[one] for one in usual]),
        compared_with=other,
        compared_pico=totals[other],
        causes=tuple(_causes(days.get(other, ()), days.get(day, ()), people, books)),
    )


def _causes(
    before: Sequence[Cost],
    after: Sequence[Cost],
    people: Mapping[str, Attribution],
    books: Mapping[str, PriceBook],
) -> Iterator[Cause]:
    """Yield what two days differ in, the largest first; all of it together is the difference."""
    parts: defaultdict[Kind, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    names = {one.resource: people[one.attribution].name for one in (*before, *after)}
    was, now = _by_sku(before), _by_sku(after)
    there, then = {one[0] for one in now}, {one[0] for one in was}
    for key in was.keys() | now.keys():
        (old_books, old), (new_books, new) = was.get(key, _NOTHING), now.get(key, _NOTHING)
        kind: Kind = "changed"
        if key[0] not in then:
            kind = "added"
        elif key[0] not in there:
            kind = "removed"
        elif old_books and new_books and old_books != new_books:
            kind = "price"
        elif _is_traffic(key[1], books):
            kind = "traffic"
        parts[kind][key[0]] += new - old
    causes = [
        Cause(
            kind=kind,
            amount_pico=sum(of.values()),
            names=tuple(
                names[one] for one in sorted(of, key=lambda one: (-abs(of[one]), one)) if of[one]
            ),
        )
        for kind, of in parts.items()
        if any(of.values())
    ]
    yield from sorted(causes, key=lambda one: (-abs(one.amount_pico), one.kind))


_NOTHING: Final[tuple[frozenset[str], int]] = (frozenset(), 0)


def _by_sku(costs: Iterable[Cost]) -> dict[tuple[str, str], tuple[frozenset[str], int]]:
    found: dict[tuple[str, str], tuple[frozenset[str], int]] = {}
    for one in costs:
        key = (one.resource, one.sku)
        of_books, amount = found.get(key, _NOTHING)
        found[key] = (of_books | {one.book}, amount + one.billed_pico)
    return found


def _is_traffic(sku: str, books: Mapping[str, PriceBook]) -> bool:
    meters = {one.meter for book in books.values() for one in book.skus if one.id == sku}
    return not meters & TIME_METERS


def document(found: Found, book: PriceBook) -> dict[str, Any]:
    """Return the answer's items; amounts are exact decimal strings."""
    return {
        "currency": book.currency,
        "items": [_item(one) for one in found.anomalies],
        "insufficient_history": [
            {"cluster": cluster, "namespace": namespace, "days": days}
            for (cluster, namespace), days in found.insufficient.items()
        ],
    }


MOST_NAMES: Final = 20


def _item(one: Anomaly) -> dict[str, Any]:
    return {
        "day": _date(one.day),
        "cluster": one.place[0],
        "namespace": one.place[1],
        "amount": money.text(one.amount_pico),
        "usual": money.text(one.usual_pico),
        "compared_with": {"day": _date(one.compared_with), "amount": money.text(one.compared_pico)},
        "difference": money.text(one.amount_pico - one.compared_pico),
        "causes": [
            {
                "kind": cause.kind,
                "amount": money.text(cause.amount_pico),
                "load_balancers": list(cause.names[:MOST_NAMES]),
                "count": len(cause.names),
                "message": _message(cause),
            }
            for cause in one.causes
        ],
    }


def _message(cause: Cause) -> str:
    count = len(cause.names)
    who = "1 load balancer" if count == 1 else f"{count} load balancers"
    return {
        "added": f"{who} that weren't there",
        "removed": f"{who} that were there and aren't any more",
        "price": f"another price for {who}",
        "traffic": f"traffic of {who}",
        "changed": f"{who} with another type, other listeners or addresses, or less of the day",
    }[cause.kind]


def _date(day: int) -> str:
    return quantities.moment(day * DAY_US).date().isoformat()
