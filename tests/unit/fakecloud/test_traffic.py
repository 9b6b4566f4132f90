"""From totals to hours: nothing is lost between them, and nothing invented."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakecloud.domain import traffic
from fakecloud.domain.traffic import HourPart, Totals

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def at(seconds: float, **counts: int) -> Totals:
    return Totals(at=NOON + timedelta(seconds=seconds), **counts)


def hours(before: Totals | None, after: Totals) -> list[tuple[int, int, bool]]:
    """Return hour of day, bytes and whether estimated."""
    found = traffic.parts(before, after)
    return [(part.hour.hour, part.bytes_in, part.estimated) for part in found]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param(at(0), at(10, bytes_in=7), [(12, 7, False)], id="within an hour"),
        pytest.param(None, at(10, bytes_in=7), [(12, 7, False)], id="first reading"),
        pytest.param(
            at(-5), at(5, bytes_in=10), [(11, 5, False), (12, 5, False)], id="short, two hours"
        ),
        pytest.param(
            at(-1800), at(5400, bytes_in=400), [(11, 100, True), (12, 200, True), (13, 100, True)],
            id="long gap",
        ),
        pytest.param(at(0), at(1800, bytes_in=5), [(12, 5, False)], id="long, one hour"),
        pytest.param(at(0), at(10, bytes_in=5, gaps=1), [(12, 5, True)], id="a process died unread"),
        pytest.param(at(0), at(10, gaps=1), [(12, 0, True)], id="all of it was lost"),
        pytest.param(at(0, bytes_in=9), at(10, bytes_in=9), [], id="nothing"),
        pytest.param(at(0), at(0, bytes_in=9), [(12, 9, False)], id="the clock stands still"),
        pytest.param(at(0, bytes_in=9), at(10, bytes_in=3), [], id="never less than nothing"),
    ],
)  # fmt: skip
def test_bytes_belong_to_the_hours_they_were_carried_in(before, after, expected) -> None:
    assert hours(before, after) == expected


def test_a_jump_of_business_time_is_not_spread_over_months() -> None:
    found = list(traffic.parts(at(0), at(86400 * 40, bytes_in=1_000_001)))
    assert len(found) <= 25
    assert sum(part.bytes_in for part in found) == 1_000_001


def test_active_connections_count_by_their_time() -> None:
    (part,) = traffic.parts(at(0, active=2), at(10, active=4))
    assert part.connection_us == 3 * 10_000_000


counts = st.integers(0, 1 << 50)


@given(
    start=st.integers(-10_000_000, 0),
    end=st.integers(0, 40_000_000),
    before=st.tuples(counts, counts, counts, counts),
    more=st.tuples(counts, counts, counts, counts),
)
def test_parts_sum_up_to_the_delta(start, end, before, more) -> None:
    names = ("connections", "bytes_in", "bytes_out", "requests")
    old = Totals(at=NOON + timedelta(milliseconds=start), **dict(zip(names, before, strict=True)))
    new = msgspec.structs.replace(
        old,
        at=NOON + timedelta(milliseconds=end),
        **{n: a + b for n, a, b in zip(names, before, more, strict=True)},
    )
    found: list[HourPart] = list(traffic.parts(old, new))
    assert tuple(sum(getattr(part, n) for part in found) for n in names) == more
    assert all(getattr(part, n) >= 0 for part in found for n in names)
    seen = [part.hour for part in found]
    assert seen == sorted(set(seen))
