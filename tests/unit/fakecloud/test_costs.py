"""Costs over a real database: reports, closing of days, price changes, seals."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from sqlalchemy import insert, select, text

from fakecloud import errors
from fakecloud.accounting.costs import Costs
from fakecloud.accounting.invoices import Invoices, rounded
from fakecloud.accounting.ledger import Ledger
from fakecloud.billing import (
    books,
    corrections,
    events,
    focus,
    focus_check,
    focus_invoice_check,
    report,
)
from fakecloud.billing.events import BillingEvent, Kind, Terms
from fakecloud.billing.prices import PriceBook
from fakecloud.billing.usage import Line
from fakecloud.domain.traffic import HourPart
from fakecloud.store import billing_events, charges, late, traffic
from fakecloud.store.database import Database
from fakecloud.tables.billing import line
from fakecloud.tables.cloud import UtcDateTime, load_balancer
from tests.fakes.clock import FakeClock

START = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
BOOK = books.load("aws-nlb-us-east-1")


class World:
    """A database, a clock by hand and a ledger."""

    def __init__(self, database: Database, book: PriceBook = BOOK) -> None:
        self.database = database
        self.clock = FakeClock(START)
        self.ledger = Ledger(database, self.clock, book)
        self.ledger.start()
        self.costs = Costs(database, self.ledger)
        self._numbers = itertools.count()

    def happened(self, name: str, *kinds: Kind, terms: dict[str, Any] | None = None) -> None:
        of = {"name": name, "labels": {}, "type": "lb-s", "ports": 1, "protocols": 1, "ipv4": 1}
        with self.database.write() as connection:
            for kind in kinds:
                at_us = events.seconds_us(self.clock.now())
                event = BillingEvent(
                    id=str(next(self._numbers)),
                    account="default",
                    resource=f"lb_{name}",
                    resource_kind="load_balancer",
                    kind=kind,
                    at_us=at_us,
                    recorded_us=at_us,
                    terms=msgspec.convert(of | (terms or {}), Terms),
                )
                billing_events.append(connection, [event])

    def live(self, name: str, **labels: str) -> None:
        self.happened(name, Kind.CREATED, Kind.ACTIVATED, terms={"labels": labels})

    def gone(self, name: str, **labels: str) -> None:
        self.happened(name, Kind.DELETE_REQUESTED, Kind.DELETED, terms={"labels": labels})

    def report(self, group_by: str = "load_balancer", **asked: Any) -> dict[str, Any]:
        wanted = {"start": START, "end": self.clock.now(), "group_by": tuple(group_by.split(","))}
        return self.costs.report("default", report.Asked(**(wanted | asked)))

    def ledger_lines(self, start: datetime, end: datetime) -> list[Line]:
        with self.database.read() as connection:
            return list(
                self.ledger.charge(
                    connection, "default", events.seconds_us(start), events.seconds_us(end)
                )
            )

    def closed_us(self) -> int:
        with self.database.read() as connection:
            return self.ledger.closed_until_us(connection, "default")

    def close(self) -> int:
        return sum(1 for _ in iter(self.ledger.step, False))


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    database = Database(database_url)
    database.migrate()
    yield World(database)
    database.close()


def test_the_document(world: World) -> None:
    """61 started hours at 0.0225 and 61 hours of an address at 0.005; one that ended after 1 h."""
    world.live("b", cluster="kind")
    world.clock.advance(3600)
    world.gone("b", cluster="kind")
    world.clock.advance(38 * 3600)
    world.live("a", cluster="kind", namespace="shop")
    world.clock.advance(61 * 3600)
    assert world.report("namespace,load_balancer") == {
        "from": "2026-11-01T00:00:00.000000Z",
        "to": "2026-11-05T04:00:00.000000Z",
        "currency": "USD",
        "price_book": "aws-nlb-us-east-1@2",
        "complete_until": "2026-11-05T04:00:00.000000Z",
        "estimated": False,
        "notes": [],
        "groups": [
            {
                "key": {"namespace": None, "load_balancer": "b"},
                "amount": "0.0275",
                "list_amount": "0.0275",
                "monthly_run_rate": "0.00",
            },
            {
                "key": {"namespace": "shop", "load_balancer": "a"},
                "amount": "1.6775",
                "list_amount": "1.6775",
                "monthly_run_rate": "20.075",
            },
        ],
        "total": "1.705",
        "monthly_run_rate": "20.075",
    }


def test_closed_days_say_what_was_rated_as_asked(world: World) -> None:
    """Also in ranges that begin and end within days, by any grouping, and after every chunk."""
    for number in range(5):
        world.live(f"lb-{number}", namespace="shop" if number % 2 else "pay")
        world.clock.advance(7 * 3600 + 13)
    world.gone("lb-2", namespace="pay")
    world.clock.advance(3 * 86_400)
    ranges = [
        {"start": START + a * HOUR, "end": START + b * HOUR}
        for a, b in ((0, 24), (5, 50), (24, 72), (30, 31), (0, 100))
    ]
    groups = ("load_balancer", "namespace,sku", "day", "hour", "price_book,month")
    asked = [(by, range_) for by in groups for range_ in ranges]
    before = [world.report(by, **range_) for by, range_ in asked]
    assert world.close() > 4
    assert [world.report(by, **range_) for by, range_ in asked] == before
    totals = {world.report(by)["total"] for by in groups}
    assert len(totals) == 1
    for by in groups:
        made = world.report(by)
        assert sum(Decimal(one["amount"]) for one in made["groups"]) == Decimal(made["total"])


def test_a_day_is_closed_once_and_its_lines_stay(world: World) -> None:
    world.live("a")
    world.clock.advance(86_400 + 29)
    world.close()
    with world.database.read() as connection:
        assert connection.execute(select(line)).all() == []  # counters may still come in
    world.clock.advance(1)
    world.close()
    with world.database.read() as connection:
        lines = connection.execute(select(line)).all()
    assert [(one.sku, one.quantity_micros) for one in lines] == [
        ("lb-network-hour", 24_000_000),
        ("ipv4-inuse-hour", 24_000_000),
    ]
    assert world.close() == 0
    for change in ("UPDATE line SET billed_pico = 0", "DELETE FROM billing_event"):
        with pytest.raises(errors.Unavailable, match="append-only"):  # noqa: SIM117
            with world.database.write() as connection:
                connection.execute(text(change))


def test_a_new_price_holds_from_when_it_is_put_in_force(world: World) -> None:
    world.live("a")
    world.clock.advance(2 * 3600)
    dearer = msgspec.structs.replace(
        BOOK,
        version=BOOK.version + 1,
        skus=[
            msgspec.structs.replace(sku, price="1") if sku.id == "lb-network-hour" else sku
            for sku in BOOK.skus
        ],
    )
    world.ledger = Ledger(world.database, world.clock, dearer)
    world.ledger.start()
    world.costs = Costs(world.database, world.ledger)
    world.clock.advance(3 * 3600)
    assert world.report()["total"] == "3.07"  # 2 x 0.0225 + 3 x 1 + 5 x 0.005
    world.ledger.start()  # the same again is no change
    assert [one["key"]["price_book"] for one in world.report("price_book")["groups"]] == [
        BOOK.id,
        dearer.id,
    ]


def test_labels_that_change_begin_a_new_owner(world: World) -> None:
    """The started hour is the first one's; addresses are by the second."""
    world.live("a", team="x")
    world.clock.advance(600)
    world.happened("a", Kind.ATTRIBUTED, terms={"labels": {"team": "y"}})
    world.clock.advance(3600)
    by_team = {
        one["key"]["label:team"]: one["amount"] for one in world.report("label:team")["groups"]
    }
    assert by_team == {"x": "0.02333333", "y": "0.0275"}


def test_never_active_costs_nothing_and_a_moment_a_started_hour(world: World) -> None:
    world.happened("never", Kind.CREATED)
    world.live("moment")
    world.gone("moment")
    world.clock.advance(3600)
    assert [one["key"]["load_balancer"] for one in world.report()["groups"]] == ["moment"]
    assert world.report("sku")["groups"][-1]["amount"] == "0.0225"


def test_forecast_is_what_the_month_then_costs(world: World) -> None:
    world.live("a")
    world.clock.advance(10 * 86_400)
    forecast = world.costs.forecast("default")
    assert forecast["month_end"]["fixed"] == forecast["month_end"]["total"] == "19.80"
    world.clock.advance(20 * 86_400)
    assert world.report(end=START + timedelta(days=30))["total"] == "19.80"


def test_compare_says_what_is_unpriced(world: World) -> None:
    world.live("a")
    world.clock.advance(100 * 3600)
    asked = [BOOK.id, "hetzner-eu", "scaleway-par"]
    made = world.costs.compare("default", asked, START, world.clock.now())
    assert [(one["id"], one["currency"], one["total"]) for one in made["books"]] == [
        (BOOK.id, "USD", "2.75"),
        ("hetzner-eu@2", "EUR", "1.20"),
        ("scaleway-par@1", "EUR", "2.30"),
    ]
    assert made["books"][2]["unpriced"] == ["ipv4-idle-hour", "ipv4-inuse-hour"]
    assert made["books"][0]["total"] == world.report()["total"]
    with pytest.raises(errors.BookUnknown, match="hetzner-eu"):
        world.costs.compare("default", ["hetzner"], START, world.clock.now())


def test_seals_find_a_changed_event(world: World) -> None:
    world.live("a")
    world.live("b")
    world.close()
    with world.database.read() as connection:
        assert billing_events.first_broken_seal(connection, "default") is None
    with world.database.engine.begin() as connection:
        name = "update" if world.database.is_sqlite else "change ON billing_event"
        connection.execute(text(f"DROP TRIGGER billing_event_{name}"))
        connection.execute(text("UPDATE billing_event SET at_us = at_us + 1 WHERE seq = 3"))
    with world.database.read() as connection:
        assert billing_events.first_broken_seal(connection, "default") == 3


def test_other_accounts_are_never_seen(world: World) -> None:
    world.live("a")
    world.clock.advance(3600)
    asked = report.Asked(start=START, end=world.clock.now(), group_by=("project",))
    assert world.costs.report("other", asked)["groups"] == []


@pytest.mark.parametrize("token", ["", "colour", "label:", "Namespace"])
def test_an_unknown_group_is_refused_with_the_known_ones(world: World, token: str) -> None:
    with pytest.raises(errors.InvalidParameter, match="load_balancer"):
        world.report(f"namespace,{token}")


def test_csv_is_safe_in_a_spreadsheet(world: World) -> None:
    world.live("a", team='=1+"2"')
    world.clock.advance(3600)
    text = report.to_csv(world.report("label:team"), ["label:team"])
    span = "USD,2026-11-01T00:00:00.000000Z,2026-11-01T01:00:00.000000Z"
    assert text.splitlines() == [
        "label:team,amount,monthly_run_rate,currency,from,to",
        f'"\'=1+""2""",0.0275,20.075,{span}',
    ]


def test_a_closed_month_is_proved(world: World) -> None:
    world.live("a", team="x")
    world.clock.advance(30 * 86_400)
    invoices = Invoices(world.database, world.ledger, world.clock)
    with pytest.raises(errors.PeriodOpen):
        invoices.close("default", "2026-11")
    world.clock.advance(60)
    with pytest.raises(errors.PeriodOpen):
        invoices.close("default", "2026-11")  # over, but not rated
    world.close()
    closed = invoices.close("default", "2026-11")
    assert (closed["status"], closed["total"], closed["amount_due"]) == ("closed", "19.80", "19.80")
    assert invoices.close("default", "2026-11") == closed
    assert invoices.find("default", "2026-11") == closed == invoices.list("default")[0]
    assert invoices.verify("default") == {"project": "default", "verified": True, "problems": []}
    with world.database.engine.begin() as connection:
        name = "update" if world.database.is_sqlite else "change ON line"
        connection.execute(text(f"DROP TRIGGER line_{name}"))
        connection.execute(text("UPDATE line SET billed_pico = billed_pico + 1"))
    found = invoices.verify("default")["problems"]
    assert [one["what"] for one in found] == ["day", "invoice"]
    with pytest.raises(errors.NotFound):
        invoices.find("default", "november")


def exported(invoices: Invoices, until: datetime) -> list[dict[str, str]]:
    """Return the rows of the whole export."""
    parts = invoices.export("default", START, until, focus.COLUMNS)
    return list(csv.DictReader(io.StringIO("".join(parts))))


def test_the_export_passes_its_check_and_adds_up(world: World) -> None:
    world.live("a", **{"cluster": "kind", "cluster-uid": "6f1c", "namespace": "shop"})
    world.live("b")
    world.clock.advance(2 * 86_400 + 5000)
    world.close()
    invoices = Invoices(world.database, world.ledger, world.clock)
    rows = exported(invoices, world.clock.now())
    file = io.StringIO()
    focus.write(rows, file)
    file.seek(0)
    assert list(focus_check.check(file)) == []
    billed = sum(Decimal(row["BilledCost"]) for row in rows)
    assert billed == Decimal(world.report()["total"])


@pytest.mark.parametrize(
    ("pico", "cents"), [(0, 0), (4_999_999_999, 0), (5_000_000_000, 1), (-5_000_000_000, -1)]
)
def test_money_is_rounded_once(pico: int, cents: int) -> None:
    assert rounded(pico) == cents * 10_000_000_000


def known(world: World, name: str) -> None:
    """Let there be a row for traffic to belong to; billing reads nothing of it."""
    empty: dict[type, Any] = {str: "", int: 0, bool: False, object: {}}
    values = {
        column.name: START
        if isinstance(column.type, UtcDateTime)
        else empty[column.type.python_type]
        for column in load_balancer.columns
        if not (column.nullable or column.name == "pk")
    }
    with world.database.write() as connection:
        connection.execute(
            insert(load_balancer).values(values | {"id": f"lb_{name}", "name": name})
        )


def carried(world: World, name: str, hour: datetime, gigabytes: int) -> None:
    """Let traffic of an hour come in now, as the meter writes it."""
    part = HourPart(
        hour=hour,
        connections=1,
        bytes_in=0,
        bytes_out=gigabytes * 10**9,
        requests=0,
        connection_us=0,
        estimated=False,
    )
    with world.database.write() as connection:
        traffic.add_hours(connection, [("default", (f"lb_{name}", "web", "e"), part)])
        late.mark(connection, "default", (hour - datetime(1970, 1, 1, tzinfo=UTC)).days)


def on_record(world: World) -> list[str]:
    """Return every line that there is, as text."""
    with world.database.read() as connection:
        rows = connection.execute(select(line).order_by(line.c.id)).all()
    return [str(tuple(row)) for row in rows]


@pytest.mark.parametrize("closed", [False, True], ids=["open month", "closed month"])
def test_late_traffic_becomes_lines_of_its_own(database_url: str, closed: bool) -> None:
    """The bill is the same in the end; what was there stays, also in the same hour twice.

    100 GB are free in a month: what comes late on the 2nd makes the 40 GB of the 3rd cost.
    """
    database = Database(database_url)
    database.migrate()
    world = World(database, books.load("generic"))
    invoices = Invoices(database, world.ledger, world.clock)
    for name in ("a", "b"):
        known(world, name)
        world.live(name)
    carried(world, "a", START + 49 * HOUR, 40)
    world.clock.advance((30 if closed else 20) * 86_400 + 60)
    world.close()
    if closed:
        proved = invoices.close("default", "2026-11")
    before, end = on_record(world), START + timedelta(days=30)
    for gigabytes in (70, 1):
        carried(world, "b", START + 30 * HOUR, gigabytes)
        world.close()
    after = on_record(world)
    assert set(before) < set(after)
    live = [
        one
        for one in world.ledger_lines(START, min(end, world.clock.now()))
        if one.start_us < world.closed_us()
    ]
    with database.read() as connection:
        booked = list(charges.lines(connection, "default", 0, world.closed_us()))
    assert sums(one.line for one in booked) == sums(live)
    paid = sum(one.line.billed_pico for one in booked if one.line.sku == "egress")
    assert paid == 11 * 9 * 10**10  # 111 GB, 100 of them free, at 0.09
    assert invoices.verify("default")["verified"]
    assert world.close() == 0
    late_ones = [one for one in booked if one.corrects]
    assert {one.period for one in late_ones} == {"2026-12" if closed else "2026-11"}
    rows = exported(invoices, world.clock.now())
    assert {row["ChargeClass"] for row in rows if row["x_CorrectsLineId"]} == {
        "Correction" if closed else ""
    }
    file = io.StringIO()
    focus.write(rows, file)
    file.seek(0)
    assert list(focus_check.check(file)) == []
    for dataset in (invoices.billing_periods("default"), invoices.invoice_details("default")):
        assert list(focus_invoice_check.check(io.StringIO(dataset))) == []
    file.seek(0)
    due = io.StringIO(invoices.invoice_details("default"))
    assert list(focus_invoice_check.reconcile(file, due)) == []
    if closed:
        assert invoices.find("default", "2026-11") == proved
    database.close()


def sums(lines: Iterable[Line]) -> dict[tuple[Any, ...], tuple[int, int]]:
    """Return quantity and amount by everything that a line and its corrections share."""
    found: dict[tuple[Any, ...], tuple[int, int]] = {}
    for one in lines:
        quantity, billed = found.get(corrections.key(one), (0, 0))
        found[corrections.key(one)] = (quantity + one.quantity_micros, billed + one.billed_pico)
    return {key: value for key, value in found.items() if value != (0, 0)}


def test_rating_again_changes_nothing_where_nothing_came(world: World) -> None:
    world.live("a")
    world.clock.advance(3 * 86_400 + 60)
    world.close()
    before = on_record(world)
    Invoices(world.database, world.ledger, world.clock).rerate("default", START)
    assert world.close() == 3
    assert on_record(world) == before


def priced(version: int, price: str, applies_to: Any) -> PriceBook:
    """Return a version of the book in which an hour has this price."""
    skus = [
        msgspec.structs.replace(sku, price=price) if sku.id == "lb-network-hour" else sku
        for sku in BOOK.skus
    ]
    return msgspec.structs.replace(BOOK, version=version, applies_to=applies_to, skus=skus)


def test_a_new_price_reaches_whom_it_is_for(world: World) -> None:
    """Old ones keep theirs for ever (`new`), or until they are resized (`new_and_resized`)."""
    world.live("old")
    world.live("resized")

    def assign(version: int, applies_to: str) -> None:
        world.clock.advance(3600)
        book = priced(version, str(version), applies_to)
        world.ledger = Ledger(world.database, world.clock, book)
        world.ledger.start()

    def charged_by() -> dict[str, int]:
        now = world.clock.now()
        return {
            one.resource.removeprefix("lb_"): int(one.book.split("@")[1])
            for one in world.ledger_lines(now - HOUR, now)
            if one.sku == "lb-network-hour"
        }

    assign(10, "new")
    world.clock.advance(3600)
    assert charged_by() == {"old": BOOK.version, "resized": BOOK.version}
    assign(20, "new_and_resized")
    world.live("new")
    world.clock.advance(3600)
    assert charged_by() == {"old": BOOK.version, "resized": BOOK.version, "new": 20}
    world.happened("resized", Kind.CHANGED, terms={"type": "lb-m"})
    world.clock.advance(3600)
    assert charged_by() == {"old": BOOK.version, "resized": 20, "new": 20}
    assign(30, "all")
    world.clock.advance(3600)
    world.happened("old", Kind.CHANGED, terms={"type": "lb-m"})
    world.clock.advance(3600)
    assert charged_by() == {"old": 30, "resized": 30, "new": 30}, "20 was replaced before"


def test_counters_that_are_read_after_midnight_are_on_the_bill(world: World) -> None:
    """It ended at 23:59:50, its final counters were read at 00:00:05: 2 GB are 2 capacity units."""
    known(world, "a")
    world.live("a")
    world.clock.advance(86_400 - 10)
    world.gone("a")
    world.clock.advance(15)
    carried(world, "a", START + 24 * HOUR, 2)
    world.clock.advance(86_400)
    by_sku = {one["key"]["sku"]: one["amount"] for one in world.report("sku")["groups"]}
    assert by_sku["lb-network-capacity"] == "0.012"
    world.clock.advance(60)
    world.close()
    assert {one["key"]["sku"]: one["amount"] for one in world.report("sku")["groups"]} == by_sku


def test_rates_are_of_each_shape_by_itself(world: World) -> None:
    made = world.costs.rates()
    found = {(o["type"], o["ports"], o["protocols"], o["ipv4"]): o for o in made["items"]}
    one = found["lb-s", 1, 1, 1]
    # An NLB-hour is 0.0225 USD, a public IPv4 address 0.005 USD an hour.
    assert (one["hourly"], one["monthly"]) == ("0.0275", "20.075")
    assert found["lb-s", 1, 1, 0]["hourly"] == "0.0225"
    assert ("lb-s", 6, 1, 1) not in found
    assert (made["currency"], made["price_book"]) == ("USD", BOOK.id)
    assert world.costs.rates() is made
