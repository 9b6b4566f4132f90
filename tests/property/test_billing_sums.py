"""Money adds up, however time, intervals or groups are cut."""

from __future__ import annotations

import ast
import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import fakecloud.billing
from fakecloud.billing import books, money, rating, report

START = datetime(2026, 11, 1, tzinfo=UTC)
BOOK = books.load("aws-nlb-us-east-1")
TOKENS = ("project", "cluster", "namespace", "service", "load_balancer", "sku", "label:team")
HOURS_US = 3_600_000_000

moments = st.integers(0, 400 * HOURS_US).map(lambda us: START + timedelta(microseconds=us))
labels = st.dictionaries(
    st.sampled_from(["cluster", "namespace", "service", "team"]), st.sampled_from("abc"), max_size=4
)


@st.composite
def histories(draw: st.DrawFn) -> list[rating.UsageInterval]:
    """A few load balancers, each with disjoint intervals; the last may be open."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        edges = sorted(draw(st.lists(moments, min_size=1, max_size=6, unique=True)))
        for i in range(0, len(edges), 2):
            ended_at = edges[i + 1] if i + 1 < len(edges) else None
            found.append(
                rating.UsageInterval(
                    lb_id=f"lb_{number}",
                    project="default",
                    name=f"web-{number}",
                    labels=draw(labels),
                    type="lb-s",
                    started_at=edges[i],
                    ended_at=ended_at,
                )
            )
    return found


def pico(
    intervals: list[rating.UsageInterval], start: datetime, end: datetime, now: datetime
) -> int:
    return sum(one.pico for one in rating.charges(intervals, 22_500, start, end, now))


@given(histories(), st.lists(moments, min_size=3, max_size=6), moments)
def test_adjacent_ranges_add_up(
    intervals: list[rating.UsageInterval], cuts: list[datetime], now: datetime
) -> None:
    cuts = sorted(cuts)
    parts = [pico(intervals, a, b, now) for a, b in itertools.pairwise(cuts)]
    assert sum(parts) == pico(intervals, cuts[0], cuts[-1], now)
    assert all(part >= 0 for part in parts)


@given(histories(), st.data(), moments, moments, moments)
def test_cutting_an_interval_changes_nothing(
    intervals: list[rating.UsageInterval],
    data: st.DataObject,
    a: datetime,
    b: datetime,
    now: datetime,
) -> None:
    start, end = min(a, b), max(a, b)
    cut: list[rating.UsageInterval] = []
    for one in intervals:
        last = one.ended_at or max(now, one.started_at)
        span_us = (last - one.started_at) // timedelta(microseconds=1)
        at = one.started_at + timedelta(microseconds=data.draw(st.integers(0, span_us)))
        fields = {name: getattr(one, name) for name in one.__struct_fields__}
        cut.append(rating.UsageInterval(**{**fields, "ended_at": at}))
        cut.append(rating.UsageInterval(**{**fields, "started_at": at}))
    assert pico(cut, start, end, now) == pico(intervals, start, end, now)


@given(histories(), moments, moments, st.lists(st.sampled_from(TOKENS), unique=True), moments)
def test_any_grouping_has_the_same_total(
    intervals: list[rating.UsageInterval],
    a: datetime,
    b: datetime,
    tokens: list[str],
    now: datetime,
) -> None:
    start, end = min(a, b), max(a, b)
    whole = report.build(intervals, BOOK, start, end, group_by=["load_balancer"], now=now)
    made = report.build(intervals, BOOK, start, end, group_by=tokens, now=now)
    for field, total in (("amount", "total"), ("monthly_run_rate", "monthly_run_rate")):
        assert made[total] == whole[total]
        assert sum(Decimal(one[field]) for one in made["groups"]) == Decimal(made[total])
    assert len({tuple(one["key"].items()) for one in made["groups"]}) == len(made["groups"])


@given(st.integers(0, 10_000 * HOURS_US))
def test_less_than_a_micro_hour_is_lost(us: int) -> None:
    assert 0 <= Decimal(us) / 3600 - rating.micro_hours(us) < 1


@given(st.integers(-(10**24), 10**24))
def test_text_is_exact(amount: int) -> None:
    text = money.text(amount)
    assert Decimal(text) * money.PICO == amount
    decimals = text.partition(".")[2]
    assert len(decimals) >= 2
    assert len(decimals) == 2 or not decimals.endswith("0")


def test_no_float_in_billing() -> None:
    """Not by name, literal or true division."""
    folder = Path(fakecloud.billing.__path__[0])
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            floats = (
                (isinstance(node, ast.Name) and node.id == "float")
                or (isinstance(node, ast.Constant) and isinstance(node.value, float))
                or isinstance(node, ast.Div)
            )
            assert not floats, f"{path.name}:{getattr(node, 'lineno', '?')}"
