"""The cost report: charges grouped, totalled, and what goes on costing per month."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from fakecloud.billing import money, rating
from fakecloud.billing.prices import LOAD_BALANCER_HOUR, PriceBook
from fakecloud.billing.rating import UsageInterval
from fakecloud.clock import rfc3339
from fakecloud.errors import InvalidParameter

HOURS_PER_MONTH: Final = 730

Key = tuple[str | None, ...]

_TOKENS: Final[dict[str, Callable[[UsageInterval], str | None]]] = {
    "project": lambda interval: interval.project,
    "cluster": lambda interval: interval.labels.get("cluster"),
    "namespace": lambda interval: interval.labels.get("namespace"),
    "service": lambda interval: interval.labels.get("service"),
    "load_balancer": lambda interval: interval.name,
    "sku": lambda interval: LOAD_BALANCER_HOUR,
}


def build(
    intervals: Sequence[UsageInterval],
    book: PriceBook,
    start: datetime,
    end: datetime,
    *,
    group_by: Sequence[str],
    now: datetime,
) -> dict[str, Any]:
    """Return the report's document for [start, end).

    intervals: as for rating.charges. Amounts are exact decimal strings of the book's currency;
    the groups' amounts add up to the total exactly. `monthly_run_rate` is what the load balancers
    that are active at the end cost per 730 hours.
    Raises: InvalidParameter for an unknown token in `group_by`.
    """
    readers = [_reader(token) for token in group_by]
    price = book.prices[LOAD_BALANCER_HOUR].price_micros
    amounts: defaultdict[Key, int] = defaultdict(int)
    rates: defaultdict[Key, int] = defaultdict(int)
    edge = min(end, now)
    for charge in rating.charges(intervals, price, start, end, now):
        interval = charge.interval
        key = tuple(read(interval) for read in readers)
        amounts[key] += charge.pico
        if interval.ended_at is None or interval.ended_at > edge:
            rates[key] += HOURS_PER_MONTH * price * money.MICRO
    groups = [
        {
            "key": dict(zip(group_by, key, strict=True)),
            "amount": money.text(amounts[key]),
            "monthly_run_rate": money.text(rates[key]),
        }
        for key in sorted(amounts, key=lambda key: [(part is not None, part or "") for part in key])
    ]
    return {
        "from": rfc3339(start),
        "to": rfc3339(end),
        "currency": book.currency,
        "price_book": book.id,
        "complete_until": rfc3339(edge),
        "groups": groups,
        "total": money.text(sum(amounts.values())),
        "monthly_run_rate": money.text(sum(rates.values())),
    }


def to_csv(report: dict[str, Any], group_by: Sequence[str]) -> str:
    """Return the groups as CSV with a header; the total is the sum of the rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*group_by, "amount", "monthly_run_rate", "currency", "from", "to"])
    for group in report["groups"]:
        writer.writerow(
            [
                *(_cell(group["key"][name]) for name in group_by),
                group["amount"],
                group["monthly_run_rate"],
                report["currency"],
                report["from"],
                report["to"],
            ]
        )
    return text.getvalue()


def _cell(value: str | None) -> str:
    """Return a cell that a spreadsheet doesn't take for a formula."""
    if value is None:
        return ""
    return f"'{value}" if value.lstrip()[:1] in ("=", "+", "-", "@") else value


def _reader(token: str) -> Callable[[UsageInterval], str | None]:
    if token.startswith("label:") and len(token) > len("label:"):
        label = token.removeprefix("label:")
        return lambda interval: interval.labels.get(label)
    reader = _TOKENS.get(token)
    if reader is None:
        known = ", ".join([*_TOKENS, "label:NAME"])
        raise InvalidParameter(f"group_by={token!r} is not one of {known}")
    return reader
