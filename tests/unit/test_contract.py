"""The table of the contract is what the tests say, and every number in a test's name exists."""

from __future__ import annotations

import pytest

from tests import contract


def test_the_table_is_up_to_date():
    rendered = contract.render(contract.load(), contract.shown_by())
    assert contract.README.read_text("utf-8") == rendered, "run: python -m tests.contract"


def test_every_point_that_a_test_or_a_reason_names_exists():
    known = contract.load()
    assert set(contract.shown_by()) <= set(known.points)
    assert set(known.reasons) <= set(known.points)


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("test_s_14_success_forgets", ["S-14"]),
        ("test_s_22_a_03_b_30_removal", ["S-22", "A-03", "B-30"]),
        ("test_rb_01_rules", ["RB-01"]),
        ("test_a_service_s_14_in_the_middle", []),
        ("test_plain", []),
    ],
)
def test_a_name_begins_with_its_points(name, points):
    assert contract.numbers(name) == points


def test_a_point_is_shown_explained_or_open():
    known = contract.Contract({"S-01": "a | b", "S-02": "c", "S-03": "d"}, {"S-02": "Because."})
    text = contract.render(known, {"S-01": ["unit/test_x.py::test_s_01_x"]})
    assert "| S-01 | a \\| b | [test_s_01_x](../unit/test_x.py) |" in text
    assert "| S-02 | c | Because. |" in text
    assert "| S-03 | d | open |" in text
    assert "3 points: 1 shown, 1 explained, 1 open." in text
