"""New prices in the middle of things: what was before stays, nothing is charged twice or never."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from fakecloud.accounting.costs import Costs
from fakecloud.accounting.ledger import Ledger
from fakecloud.billing import books, projection, quantities, rating
from fakecloud.billing.events import Kind
from fakecloud.billing.prices import PriceBook
from fakecloud.billing.quantities import HOUR_US, MICRO
from fakecloud.billing.usage import Span, Usage
from fakecloud.store.database import Database
from tests.unit.fakecloud.test_costs import START, World, timedelta

GCP = books.load("gcp-us-central1")


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    database = Database(database_url)
    database.migrate()
    yield World(database, GCP)
    database.close()


def assign(world: World, book: PriceBook) -> None:
    world.ledger = Ledger(world.database, world.clock, book)
    world.ledger.start()
    world.costs = Costs(world.database, world.ledger)


def rules_at(price: str, extra: str, **more: Any) -> PriceBook:
    """Return the next version, with another price of forwarding rules."""
    skus = [
        msgspec.structs.replace(
            sku, price=price, rate=msgspec.structs.replace(sku.rate, extra=extra)
        )
        if sku.id == "forwarding-rules"
        else sku
        for sku in GCP.skus
    ]
    return msgspec.structs.replace(GCP, version=2, skus=skus, **more)


def test_a_package_goes_on_at_the_new_price_from_the_minute_it_is_in_force(world: World) -> None:
    """6 h x 0.025 + 4 h x 1; the day in which the price changed isn't free from there on."""
    world.live("a")
    world.clock.advance(6 * 3600)
    assign(world, rules_at("1", "1"))
    world.clock.advance(4 * 3600)
    assert world.report()["total"] == "4.15"


def test_reports_that_meet_within_a_day_add_up_to_one(world: World) -> None:
    world.live("a")
    world.clock.advance(20 * 3600)
    edges = [START, START + timedelta(hours=5), START + timedelta(hours=20)]
    parts = [world.report(start=a, end=b)["total"] for a, b in pairwise(edges)]
    assert parts == ["0.125", "0.375"]
    compared = world.costs.compare("default", [GCP.id], edges[1], edges[2])
    assert compared["books"][0]["total"] == "0.375"


def test_a_new_package_price_is_only_for_whom_it_is_for(world: World) -> None:
    """Six rules: 0.025 + 0.01 an hour, a sixth of it each; the new one pays at the new price.

    The five old ones go on at 0.025 / 6 + 0.01 / 6 each; the sixth pays (1 + 2) / 6 = 0.5.
    """
    for number in range(5):
        world.live(f"old-{number}")
    world.clock.advance(3600)
    assign(world, rules_at("1", "2", applies_to="new"))
    world.live("new")
    begun = world.clock.now()
    world.clock.advance(6 * 3600)
    made = world.report(start=begun)["groups"]
    found = {one["key"]["load_balancer"]: Decimal(one["amount"]) for one in made}
    assert found["new"] == Decimal("3")
    assert sum(found.values()) - found["new"] == Decimal("0.175")  # 5/6 of 6 h x 0.035
    rates = {one["key"]["load_balancer"]: one["monthly_run_rate"] for one in made}
    assert rates["new"] == "365.000001"  # 730/6 h in micro-hours, of it 1 and 2 an hour


def test_which_moments_begin_and_end_a_bill_is_said_by_the_book_of_then(world: World) -> None:
    """Who was gone before a book bills until the very end stays as he was billed."""
    world.live("a")
    world.clock.advance(3600)
    world.happened("a", Kind.DELETE_REQUESTED)
    world.clock.advance(3600)
    world.happened("a", Kind.DELETED)
    before = world.report()["total"]
    assign(
        world, msgspec.structs.replace(GCP, version=2, bill_from="created", bill_until="deleted")
    )
    assert world.report()["total"] == before == "0.025"


def test_a_cap_that_grows_brings_nothing_back_of_what_it_saved() -> None:
    """700 h at 0.0086 are 6.02, capped at 5.39; 30 more at 0.0120 are 0.36, and no more."""
    old, new = books.load("hetzner-eu@1"), books.load("hetzner-eu")
    start = 1_772_323_200 * MICRO  # 2026-03-01
    span = Span(start_us=start, end_us=start + 730 * HOUR_US, attribution="a", type="lb-s")
    schedule = rating.Schedule(
        [
            rating.Assignment(from_us=0, book=old),
            rating.Assignment(from_us=start + 700 * HOUR_US, book=new),
        ]
    )
    usage = Usage(resource="lb_1", kind="load_balancer", spans=(span,))
    lines = [one for one in rating.rate(usage, schedule) if one.sku == "lb-hour"]
    assert all(0 <= line.billed_pico <= line.list_pico for line in lines)
    assert sum(line.billed_pico for line in lines) == 5_750_000 * MICRO
    assert quantities.capped({("s", 5): 9, ("l", 7): 1}) == 6
    assert projection.from_now_on({"lb_1": schedule}, span.end_us)["lb_1"].books == [new]
