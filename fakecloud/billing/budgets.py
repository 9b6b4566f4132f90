"""Budgets: their periods, and which thresholds are passed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, Literal

import msgspec

from fakecloud.billing import quantities
from fakecloud.billing.quantities import DAY_US, HOUR_US

Period = Literal["day", "week", "month"]
Basis = Literal["actual", "forecast"]
_WEEK_US: Final = 7 * DAY_US
_MONDAY_US: Final = 4 * DAY_US  # 1970-01-05
MONTH_HOURS: Final = 730


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What may be spent in each period on what has all of `labels`; thresholds in percent."""

    project: str
    name: str
    labels: dict[str, str]
    amount_pico: int
    currency: str
    period: Period
    thresholds: tuple[int, ...]
    basis: Basis
    kind: Literal["soft", "hard"]
    created_at: datetime
    updated_at: datetime
    evaluated_us: int | None = None
    spent_pico: int = 0
    forecast_pico: int = 0
    exceeded_until_us: int = 0


def covers(labels: Mapping[str, str], scope: Mapping[str, str]) -> bool:
    """Say whether something with these labels is in the scope."""
    return all(labels.get(name) == value for name, value in scope.items())


def window(period: Period, at_us: int) -> tuple[int, int]:
    """Return [start, end) of the UTC period that a moment is in; weeks begin on Monday."""
    if period == "month":
        return quantities.month_of(at_us)
    if period == "day":
        start = at_us - at_us % DAY_US
        return start, start + DAY_US
    start = at_us - (at_us - _MONDAY_US) % _WEEK_US
    return start, start + _WEEK_US


def windows(period: Period, since_us: int, now_us: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield the windows from a moment's to the present one, only the last `most` of them."""
    found = [window(period, now_us)]
    while found[-1][0] > since_us and len(found) < most:
        found.append(window(period, found[-1][0] - 1))
    yield from reversed(found)


def forecast(spent_pico: int, monthly_pico: int, now_us: int, end_us: int) -> int:
    """Return what the period will come to if what is there goes on at its rate."""
    left = max(0, end_us - now_us)
    return spent_pico + monthly_pico * left // (MONTH_HOURS * HOUR_US)


def passed(budget: Budget, amount_pico: int) -> list[int]:
    """Return the thresholds that an amount has reached."""
    return [one for one in budget.thresholds if amount_pico * 100 >= budget.amount_pico * one]
