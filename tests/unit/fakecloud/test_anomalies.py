"""Days that cost something else than usual, and what the difference is made of."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from fakecloud.store.database import Database
from tests.unit.fakecloud.test_costs import START, World, known
from tests.unit.fakecloud.test_remembered_costs import add

SHOP = {"cluster": "kind", "namespace": "shop"}
DAY = timedelta(days=1)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """Four load balancers since the 1st of November, a Sunday."""
    database = Database(database_url)
    database.migrate()
    made = World(database)
    for name in "abcd":
        known(made, name)
        made.live(name, **SHOP)
    yield made
    database.close()


def days(world: World, count: int) -> None:
    world.clock.advance(count * 86_400)


def found(world: World) -> dict[str, Any]:
    world.clock.advance(60)
    world.close()
    return world.costs.anomalies("default", START, world.clock.now())


def test_new_load_balancers_are_the_cause(world: World) -> None:
    """Six more from the midnight before the 18th on: 24 h at 0.0225 + 0.005 each, 3.96 a day."""
    days(world, 17)
    for number in range(6):
        world.live(f"preview-{number}", **SHOP)
    days(world, 1)
    one = found(world)["items"][0]
    names = {f"preview-{number}" for number in range(6)}
    assert set(one["causes"][0].pop("load_balancers")) == names
    assert one == {
        "day": "2026-11-18",
        "cluster": "kind",
        "namespace": "shop",
        "amount": "6.60",
        "usual": "2.64",
        "compared_with": {"day": "2026-11-17", "amount": "2.64"},
        "difference": "3.96",
        "causes": [
            {
                "kind": "added",
                "amount": "3.96",
                "count": 6,
                "message": "6 load balancers that weren't there",
            }
        ],
    }


def test_traffic_and_what_went_are_told_apart_and_add_up(world: World) -> None:
    """What is left of three load balancers, and 200 capacity units for one of them."""
    days(world, 17)
    world.gone("d", **SHOP)
    add(world, "a", START + 17 * DAY, 400)
    days(world, 1)
    (one,) = found(world)["items"]
    kinds = {cause["kind"]: Decimal(cause["amount"]) for cause in one["causes"]}
    assert kinds["removed"] == Decimal("-0.66")
    assert kinds["traffic"] > 20
    assert sum(kinds.values()) == Decimal(one["difference"])
    assert [cause["load_balancers"] for cause in one["causes"]] == [["a"], ["d"]]


def test_steady_days_are_usual_and_few_days_are_not_judged(world: World) -> None:
    days(world, 4)
    before = found(world)
    assert before["items"] == []
    assert before["insufficient_history"] == [{"cluster": "kind", "namespace": "shop", "days": 4}]
    days(world, 20)
    after = found(world)
    assert (after["items"], after["insufficient_history"]) == ([], [])


def test_working_days_are_not_compared_with_weekends(world: World) -> None:
    """Every Saturday and Sunday carries much; that is usual for them."""
    for day in range(21):
        if (START + day * DAY).weekday() >= 5:
            add(world, "a", START + day * DAY, 900)
        days(world, 1)
    assert found(world)["items"] == []
