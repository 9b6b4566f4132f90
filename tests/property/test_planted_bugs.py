"""Each of the 21 invariants of billing is held, and was seen to fail."""

from __future__ import annotations

import sys

import pytest

from tests.property import (
    invariants,
    test_billing_advice,
    test_billing_life,
    test_billing_machine,
    test_focus,
    test_rating,
)
from tests.property.invariants import HELD, NUMBERS, PROPERTIES, Property

MODULES = (
    test_billing_advice,
    test_billing_life,
    test_billing_machine,
    test_focus,
    test_rating,
)
"""Where properties are; to be imported is to be known."""
CASES = [pytest.param(one, bug, id=f"{one.number}-{bug}") for one in PROPERTIES for bug in one.bugs]


@pytest.mark.parametrize(("of", "bug"), CASES)
def test_a_planted_bug_is_caught(of: Property, bug: str, request: pytest.FixtureRequest) -> None:
    if of.needs_databases:
        request.getfixturevalue("databases")
    assert not invariants.missed(of, bug), f"{of.name} doesn't notice that {bug}"


def test_every_invariant_has_a_property_with_a_bug() -> None:
    assert {one.number for one in PROPERTIES if one.bugs} == set(NUMBERS)


def test_the_invariants_that_were_held_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """It comes after the properties; where some of them weren't run, there is nothing to tell."""
    by_number = {n: {one.name for one in PROPERTIES if one.number == n} for n in NUMBERS}
    held = [number for number, names in by_number.items() if names <= HELD]
    with capsys.disabled():
        sys.stdout.write(f"\ninvariants held: {len(held)} of {len(NUMBERS)}\n")
    if not {one.name for one in PROPERTIES} <= HELD:
        pytest.skip("not every property was run before this")
    assert held == list(NUMBERS)
