"""Active time to money, by cumulative functions.

A charge is the difference of a function that only grows: what the load balancer has cost up to
the end, less what it had cost up to the start. So adjacent ranges add up exactly, however a
range, or the recorded intervals, are cut.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

import msgspec

_MICROSECOND: Final = timedelta(microseconds=1)
_US_PER_MICRO_HOUR: Final = 3600


class UsageInterval(msgspec.Struct, frozen=True, kw_only=True):
    """A load balancer was active in [started_at, ended_at) with these labels; None: it still is."""

    lb_id: str
    project: str
    name: str
    labels: dict[str, str]
    type: str
    started_at: datetime
    ended_at: datetime | None


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What one interval costs within the asked range, in pico-units of the book's currency."""

    interval: UsageInterval
    pico: int


def micro_hours(active_us: int) -> int:
    """Return billable micro-hours of `active_us` microseconds; the started one isn't charged."""
    return active_us // _US_PER_MICRO_HOUR


def charges(
    intervals: Iterable[UsageInterval],
    price_micros: int,
    start: datetime,
    end: datetime,
    now: datetime,
) -> Iterator[Charge]:
    """Yield the charge of each interval that touches [start, end).

    intervals: all of each load balancer from its beginning, since charges are cumulative.
    An open one counts up to `now`, which is the latest moment that can be charged.
    """
    by_balancer: defaultdict[str, list[UsageInterval]] = defaultdict(list)
    for interval in intervals:
        by_balancer[interval.lb_id].append(interval)
    for history in by_balancer.values():
        before_us = 0
        for interval in sorted(history, key=lambda one: one.started_at):
            until = min(interval.ended_at or now, now)
            first = max(interval.started_at, min(start, until))
            last = max(first, min(end, until))
            from_us = before_us + (first - interval.started_at) // _MICROSECOND
            to_us = from_us + (last - first) // _MICROSECOND
            if to_us > from_us:
                billed = micro_hours(to_us) - micro_hours(from_us)
                yield Charge(interval=interval, pico=billed * price_micros)
            before_us += max(until - interval.started_at, timedelta()) // _MICROSECOND
