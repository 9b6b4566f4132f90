"""What reports remember is never stale: they say the same as those of a desk that knows nothing.

What makes a memory stale: marks of hours, events before the hour, corrections of closed days (seen
red without them), new price books, and days closed since.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from fakecloud.accounting import day_sums
from fakecloud.accounting.costs import Costs
from fakecloud.billing import books, report
from fakecloud.billing.events import Kind
from fakecloud.billing.prices import PriceBook
from fakecloud.domain.traffic import HourPart
from fakecloud.store import late, price_assignments, traffic
from fakecloud.store.database import Database
from tests.unit.fakecloud.test_costs import HOUR, START, World, known

GROUPS = ("load_balancer", "namespace,sku", "day", "namespace,day", "month,price_book")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def add(world: World, name: str, hour: datetime, gigabytes: int) -> None:
    """Let traffic come in; the meter marks days before today only."""
    part = HourPart(
        hour=hour,
        connections=7,
        bytes_in=gigabytes,
        bytes_out=gigabytes * 10**9 + 1,
        requests=3,
        connection_us=10**9,
        estimated=gigabytes % 2 == 0,
    )
    with world.database.write() as connection:
        traffic.add_hours(connection, [("default", (f"lb_{name}", "web", "e"), part)])
        if hour.date() < world.clock.now().date():
            late.mark(connection, "default", (hour - EPOCH).days)


class Days:
    """Things that happen to a few load balancers in a random order."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = random.Random(seed)
        self.names = iter(f"n{number}" for number in range(1000))
        self.there: dict[str, dict[str, str]] = {}
        self.versions = iter(range(10, 1000))
        self.made()

    def made(self) -> None:
        name = next(self.names)
        self.there[name] = {"namespace": self.rng.choice(["shop", "pay"]), "cluster": "kind"}
        known(self.world, name)
        self.world.live(name, **self.there[name])

    def gone(self) -> None:
        if len(self.there) > 1:
            name, labels = self.there.popitem()
            self.world.gone(name, **labels)

    def relabelled(self) -> None:
        name = self.rng.choice(sorted(self.there))
        self.there[name] = {"namespace": self.rng.choice(["shop", "pay", "it"])}
        self.world.happened(name, Kind.ATTRIBUTED, terms={"labels": self.there[name]})

    def traffic_now(self) -> None:
        now = self.world.clock.now().replace(minute=0, second=0)
        self._carried(now)

    def traffic_late(self) -> None:
        now = self.world.clock.now().replace(minute=0, second=0)
        hours = int((now - START) / HOUR)
        self._carried(now - self.rng.randint(0, min(hours, 60)) * HOUR)

    def _carried(self, hour: datetime) -> None:
        add(self.world, self.rng.choice(sorted(self.there)), hour, self.rng.randint(1, 90))

    def closed(self) -> None:
        self.world.close()

    def priced(self) -> None:
        made: PriceBook = msgspec.structs.replace(
            books.load(self.rng.choice(["generic", "aws-nlb-us-east-1", "gcp-us-central1"])),
            version=next(self.versions),
            currency="USD",
            applies_to=self.rng.choice(["all", "new"]),
        )
        with self.world.database.write() as connection:
            price_assignments.assign(connection, made, self.world.ledger.now_us())

    def time(self) -> None:
        self.world.clock.advance(self.rng.choice([1, 40, 1800, 3600, 4 * 3600, 86_400]))

    def step(self) -> Callable[[], None]:
        return self.rng.choice(
            [self.made, self.gone, self.relabelled, self.traffic_now, self.traffic_late,
             self.closed, self.priced, *[self.time] * 5]
        )  # fmt: skip


def asked(world: World, group_by: str, start: datetime = START) -> report.Asked:
    return report.Asked(start=start, end=world.clock.now(), group_by=tuple(group_by.split(",")))


@pytest.mark.parametrize("seed", range(6))
def test_reports_say_what_a_desk_that_knows_nothing_says(database_url: str, seed: int) -> None:
    database = Database(database_url)
    database.migrate()
    world = World(database)
    days = Days(world, seed)
    world.clock.advance(60)
    for _ in range(45):
        days.step()()
        if world.clock.now() == START:
            continue
        for group_by in days.rng.sample(GROUPS, 2):
            wish = asked(world, group_by)
            fresh = Costs(database, world.ledger).report("default", wish)
            assert world.costs.report("default", wish) == fresh
    database.close()


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    database = Database(database_url)
    database.migrate()
    made = World(database)
    for name in ("a", "b"):
        known(made, name)
        made.live(name, namespace="shop")
    yield made
    database.close()


def test_what_is_remembered_is_what_is_rated_hour_by_hour(world: World) -> None:
    """Grouped by the hour nothing is remembered, so both ways come to the same."""
    for hour in range(80):
        add(world, "ab"[hour % 2], START + hour * HOUR, hour)
        world.clock.advance(3600)
    world.close()
    world.clock.advance(5 * 3600 + 77)
    for _ in range(3):
        remembered: dict[str, Any] = world.report("namespace,day")
        by_hour = world.report("hour")
        assert remembered["total"] == by_hour["total"]
        assert sum(Decimal(one["amount"]) for one in remembered["groups"]) == Decimal(
            by_hour["total"]
        )
        world.clock.advance(1000)


def test_too_many_sums_to_be_kept_are_added_up_by_the_database(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.clock.advance(12 * 86_400 + 4000)
    world.close()
    wishes = [asked(world, one) for one in GROUPS]
    kept = [world.costs.report("default", one) for one in wishes]
    monkeypatch.setattr(day_sums, "MOST_SUMS", 5)
    few = Costs(world.database, world.ledger)
    assert [few.report("default", one) for one in wishes] == kept


def test_a_range_that_begins_earlier_is_read_anew(world: World) -> None:
    world.clock.advance(9 * 86_400 + 4000)
    world.close()
    later = asked(world, "day", START + timedelta(days=5))
    assert len(world.costs.report("default", later)["groups"]) == 5
    assert len(world.report("day")["groups"]) == 10
