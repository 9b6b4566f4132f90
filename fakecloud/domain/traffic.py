"""From totals that only grow to what every hour carried.

Hours are those of business time. The parts of a delta always sum up to it exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import msgspec

LONGEST_SPREAD: Final = timedelta(hours=24)
"""Business time can jump by months; traffic of one interval is not spread over more hours."""
GAP: Final = timedelta(seconds=60)

_MICROSECOND: Final = timedelta(microseconds=1)
_HOUR: Final = timedelta(hours=1)


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What a listener had carried at a moment of business time.

    active: connections at that moment; gaps: how often something was lost before it was read.
    """

    at: datetime
    active: int = 0
    connections: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    requests: int = 0
    gaps: int = 0


class HourPart(msgspec.Struct, frozen=True, kw_only=True):
    """What to add to an hour. connection_us: active connections times their microseconds."""

    hour: datetime
    connections: int
    bytes_in: int
    bytes_out: int
    requests: int
    connection_us: int
    estimated: bool


def changed(before: Totals, after: Totals) -> bool:
    """Return whether anything was carried, or is."""
    quiet = msgspec.structs.replace(before, at=after.at) == after
    return not quiet or bool(after.active)


def parts(before: Totals | None, after: Totals) -> Iterator[HourPart]:
    """Yield what each hour carried between two readings of one epoch.

    before: None when the epoch began since the reading before it; then all belongs to the hour
    of `after`. An interval longer than a minute that crosses hours, or one in which a process
    died unread, is estimated: shared among its hours by time.
    """
    if before is None:
        before = Totals(at=after.at)
    start = max(before.at, after.at - LONGEST_SPREAD)
    length = (after.at - start) // _MICROSECOND
    estimated = after.gaps > before.gaps or (
        after.at - start > GAP and _hour(start) != _hour(after.at)
    )
    deltas = [max(0, new - old) for new, old in zip(_counts(after), _counts(before), strict=True)]
    # The mean of both ends, by the trapezoid rule.
    deltas.append((before.active + after.active) * length // 2)
    if not any(deltas) and not estimated:
        return
    given = [0] * len(deltas)
    hour = _hour(start)
    while True:
        end = min(hour + _HOUR, after.at)
        upto = (end - start) // _MICROSECOND
        so_far = [delta * upto // length if length else delta for delta in deltas]
        if end == after.at:
            so_far = deltas
        connections, bytes_in, bytes_out, requests, connection_us = (
            new - old for new, old in zip(so_far, given, strict=True)
        )
        yield HourPart(
            hour=hour,
            connections=connections,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            requests=requests,
            connection_us=connection_us,
            estimated=estimated,
        )
        if end == after.at:
            return
        given, hour = so_far, hour + _HOUR


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _counts(totals: Totals) -> tuple[int, ...]:
    return (totals.connections, totals.bytes_in, totals.bytes_out, totals.requests)
