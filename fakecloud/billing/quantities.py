"""Cumulative quantities: what a meter has come to since it began, in micro-units.

Each function maps a meter's reading to what is billable of it. All are 0 at 0 and never fall, so
a charge is a difference of two readings, and any way to cut time adds up to the same whole.
Times are microseconds, quantities micro-units of the pricing unit, money pico-units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

import msgspec

MICRO: Final = 10**6
HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def hours(us: int, minimum_us: int = 0) -> int:
    """Return micro-hours of `us`, of `minimum_us` at least once there is any."""
    return max(us, minimum_us) // 3600 if us > 0 else 0


def started_hours(us: int) -> int:
    """Return micro-hours when every hour that has begun is charged as a whole."""
    return -(-us // HOUR_US) * MICRO


def over(quantity: int, included: int) -> int:
    """Return what goes beyond an included quantity."""
    return max(0, quantity - included)


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a graduated price: quantities up to `up_to` (None: no end) at this price."""

    up_to: int | None
    price_micros: int


def graduated(quantity: int, tiers: Sequence[Tier]) -> list[int]:
    """Return how much of `quantity` falls into each tier; the tiers' bounds grow."""
    below, found = 0, []
    for tier in tiers:
        top = quantity if tier.up_to is None else min(quantity, tier.up_to)
        found.append(max(0, top - below))
        below = max(below, top)
    return found


class Dimension(msgspec.Struct, frozen=True, kw_only=True):
    """One way to fill a capacity unit: `per_unit` of `meter` in an hour is one unit-hour."""

    meter: str
    per_unit: int


def capacity(readings: dict[str, int], dimensions: Iterable[Dimension]) -> int:
    """Return micro-unit-hours of one clock hour: the dimension that fills most decides.

    An average over more than an hour would hide peaks, so hours are added up after this.
    """
    return max((readings[one.meter] * MICRO // one.per_unit for one in dimensions), default=0)


def capped(spent: Mapping[tuple[str, int], int]) -> int:
    """Return the billed pico of a month that was spent under several plans or prices.

    spent: pico by plan and its cap. Each costs its cap at most, and all together the highest of
    the caps (NTT Communications bills a changed plan so). A cap that grows in the middle of a
    month never brings back what the one before it has saved.
    """
    under = sum(min(pico, cap) for (_, cap), pico in spent.items())
    return min(under, max((cap for _, cap in spent), default=0))


def months(start_us: int, end_us: int) -> int:
    """Return micro-months of an interval inside one UTC month, as part of that month's length."""
    first, after = month_of(start_us)
    assert first <= start_us <= end_us <= after
    length = after - first
    return (end_us - first) * MICRO // length - (start_us - first) * MICRO // length


def month_of(us: int) -> tuple[int, int]:
    """Return the UTC month around a moment, [first, after), in microseconds of Unix time."""
    return _month_of_day(us // DAY_US)


@lru_cache(maxsize=4096)
def _month_of_day(day: int) -> tuple[int, int]:
    first = moment(day * DAY_US).replace(day=1)
    after = (first + timedelta(days=32)).replace(day=1)
    return microseconds(first), microseconds(after)


def moment(us: int) -> datetime:
    """Return the aware UTC datetime of microseconds of Unix time."""
    return _EPOCH + timedelta(microseconds=us)


def microseconds(at: datetime) -> int:
    """Return microseconds of Unix time."""
    return (at - _EPOCH) // _MICROSECOND


def shares(whole: int, weights: dict[str, int]) -> dict[str, int]:
    """Divide `whole` in proportion to `weights`, so that the parts add up to it exactly.

    The largest remainders get what is left, the name deciding between equals: the same parts
    whatever the order. Nobody gets anything when all weights are 0.
    """
    total = sum(weights.values())
    if total == 0:
        return dict.fromkeys(weights, 0)
    found = {name: whole * weight // total for name, weight in weights.items()}
    left = whole - sum(found.values())
    by_remainder = sorted(weights, key=lambda name: (-(whole * weights[name] % total), name))
    for name in by_remainder[:left]:
        found[name] += 1
    return found
