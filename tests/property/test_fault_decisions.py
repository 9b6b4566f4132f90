"""A fault's decisions depend on seed, id and ordinal alone, so that a run can be replayed."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fakecloud.domain import chaos_labels, faults
from fakecloud.domain.faults import Action, Layer, Match, Rule, Trigger, Window

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
IDS = st.text("abcdef0123456789", min_size=1, max_size=20).map("flt_".__add__)
SEEDS = st.integers(0, (1 << 63) - 1)
COUNTS = st.integers(1, 50)
TRIGGERS = st.one_of(
    st.builds(Trigger, probability=st.floats(0, 1)),
    st.builds(Trigger, every_n=COUNTS),
    st.builds(Trigger, first_n=COUNTS),
    st.builds(Trigger, nth=COUNTS),
    st.builds(Trigger, sequence=st.lists(st.booleans(), min_size=1).map(tuple)),
    st.builds(Trigger, window=st.builds(Window, first=COUNTS, last=COUNTS)),
)


def rule(id: str, seed: int, trigger: Trigger, **changes) -> Rule:
    made = Rule(
        id=id,
        project="default",
        name="",
        layer=Layer.API,
        priority=0,
        enabled=True,
        match=Match(),
        trigger=trigger,
        action=Action(type="html_502"),
        seed=seed,
        looks=0,
        hits=0,
        max_hits=None,
        created_at=NOW,
        expires_at=NOW + timedelta(seconds=600),
    )
    return msgspec.structs.replace(made, **changes)


@given(id=IDS, seed=SEEDS, trigger=TRIGGERS)
def test_the_same_rule_hits_the_same_looks_whatever_else_differs(id, seed, trigger):
    once = rule(id, seed, trigger)
    again = rule(
        id, seed, trigger, priority=9, looks=77, hits=3, created_at=NOW + timedelta(days=9)
    )
    looks = range(1, 60)
    assert [faults.triggers(once, n) for n in looks] == [
        faults.triggers(again, n) for n in reversed(looks)
    ][::-1]


@given(id=IDS, seed=SEEDS, share=st.floats(0.05, 0.95))
def test_a_probability_is_kept_over_many_looks(id, seed, share):
    made = rule(id, seed, Trigger(probability=share))
    hits = sum(faults.triggers(made, n) for n in range(1, 2001))
    assert abs(hits / 2000 - share) < 0.08  # seven standard deviations


@given(id=IDS, seed=SEEDS, ordinal=st.integers(1, 1 << 40), salt=st.text(max_size=20))
def test_every_draw_is_in_the_unit_interval(id, seed, ordinal, salt):
    assert 0.0 <= faults.draw(seed, id, ordinal, salt) < 1.0


@given(
    seconds=st.floats(0.001, 3600),
    most=st.floats(0.001, 3600),
    sigma=st.floats(0, 5),
    kind=st.sampled_from(["fixed", "uniform", "lognormal"]),
    number=st.floats(0, 1, exclude_max=True),
)
def test_no_duration_passes_its_bound(seconds, most, sigma, kind, number):
    action = Action(type="latency", seconds=seconds, most_s=most, sigma=sigma, distribution=kind)
    assert 0 <= faults.duration_s(action, number) <= max(seconds, most) <= faults.MAX_SECONDS


@given(value=st.text(max_size=80), key=st.sampled_from(["provision", "delete", "state", "x"]))
def test_any_label_is_either_understood_or_refused_by_name(value, key):
    pairs = {f"chaos.fakecloud.dev/{key}": value}
    wrong = chaos_labels.mistakes(pairs, {})
    asked = chaos_labels.parse(pairs, {})
    assert (asked is chaos_labels.NOTHING) == bool(wrong)
    for one in wrong:
        assert f"chaos.fakecloud.dev/{key}" in one.message


def test_another_process_draws_the_same():
    """Not by `hash`, whose seed each process has its own."""
    program = "from fakecloud.domain import faults; print(faults.draw(1, 'flt_a', 2, 'x'))"
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert float(shown) == faults.draw(1, "flt_a", 2, "x") == 0.4436672399631425
