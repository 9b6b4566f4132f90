"""Whatever happens in whatever order, and wherever a process dies: the books are right.

A machine over creating, activating, resizing, relabelling, deleting, traffic in time and late,
prices, the clock, closing, crashes and restarts, on SQLite and PostgreSQL at once.
"""

from __future__ import annotations

import contextlib
import heapq
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from fakecloud import errors
from fakecloud.accounting.costs import Costs
from fakecloud.billing import corrections, events
from fakecloud.billing.events import BillingEvent, Kind, Terms
from fakecloud.billing.quantities import DAY_US, MICRO
from fakecloud.store import billing_events, charges, invoices, late
from tests.property import billing_world, invariants
from tests.property.billing_world import BOOK, GROUPS, START, Crashed, Pair, World
from tests.property.invariants import Bug, replaced

NAMES = st.sampled_from(["lb_a", "lb_b", "lb_c"])
TERMS = st.builds(
    Terms,
    name=st.just("web"),
    labels=st.sampled_from([{"namespace": "shop"}, {"namespace": "pay", "team": "x"}]),
    type=st.sampled_from(["lb-s", "lb-m"]),
    ports=st.integers(1, 3),
    protocols=st.just(1),
    ipv4=st.integers(0, 2),
)
LIFE = (Kind.CREATED, Kind.ACTIVATED, Kind.DELETE_REQUESTED, Kind.DELETED)


class BillingMachine(RuleBasedStateMachine):
    """Two worlds to which the same happens; on the first, somebody else is busy too.

    Catches, by invariant:
    3   sums lose what is below a millionth · the end of a day is left out of reports
    7   a closer that comes late adds too · a line has another id each time
    8   closing loses a line
    9   seals leave out the time · lines may be changed
    10  late traffic is forgotten · a closed month grows
    20  sums of one database are one off
    21  charges are of everybody · daily sums are of everybody
    """

    @initialize(terms=TERMS, size=st.integers(1, 20_000))
    def begin(self, terms: Terms, size: int) -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
        self.pair = Pair(billing_world.DATABASES[0].all)
        self.lives: dict[str, list[Kind]] = {}
        self.terms: dict[str, Terms] = {}
        self.last: list[BillingEvent] = []
        self.closed: dict[str, Any] = {}
        self.stored: set[tuple[Any, ...]] = set()
        self.version = 1
        for kind in (Kind.CREATED, Kind.ACTIVATED):
            self._event("lb_a", kind, terms)
        self.traffic("lb_a", 0, size)
        self.somebody_else_is_busy("lb_b", terms)
        self.time_passes(86_400 + 31)  # there is a day to close

    def _event(self, name: str, kind: Kind, terms: Terms) -> None:
        self.lives.setdefault(name, []).append(kind)
        self.terms[name] = terms
        self.last = self.pair.each(lambda world: world.happened(name, kind, terms, "default"))

    @rule(name=NAMES, terms=TERMS, active=st.booleans())
    def create(self, name: str, terms: Terms, active: bool) -> None:
        if name not in self.lives:
            self._event(name, Kind.CREATED, terms)
            if active:
                self._event(name, Kind.ACTIVATED, terms)

    @precondition(lambda self: self.lives)
    @rule(name=NAMES)
    def goes_on(self, name: str) -> None:
        """It is activated, or asked to go, or gone."""
        life = self.lives.get(name, [*LIFE])
        left = [kind for kind in LIFE[1:] if kind not in life]
        if left:
            self._event(name, left[0], self.terms[name])

    @precondition(lambda self: self.lives)
    @rule(name=NAMES, terms=TERMS)
    def change(self, name: str, terms: Terms) -> None:
        if name in self.lives and Kind.DELETE_REQUESTED not in self.lives[name]:
            same = self.terms[name].labels == terms.labels
            self._event(name, Kind.CHANGED if same else Kind.ATTRIBUTED, terms)

    @precondition(lambda self: self.last)
    @rule()
    def the_same_is_written_again(self) -> None:
        for world, event in zip(self.pair.worlds, self.last, strict=True):
            assert world.repeated(event), "an event that is repeated counts once"

    @precondition(lambda self: self.lives)
    @rule(name=NAMES, ago=st.integers(0, 80), size=st.integers(1, 20_000))
    def traffic(self, name: str, ago: int, size: int) -> None:
        if name in self.lives:
            self.pair.each(lambda world: world.carried(name, ago, size))

    @rule(seconds=st.sampled_from([1, 59, 3600, 5 * 3600 + 7, 86_400, 3 * 86_400 + 30]))
    def time_passes(self, seconds: int) -> None:
        self.pair.each(lambda world: world.clock.advance(seconds))

    @rule(cents=st.integers(1, 90), whom=st.sampled_from(["all", "new", "new_and_resized"]))
    def prices_change(self, cents: int, whom: str) -> None:
        self.version += 1
        skus = [
            msgspec.structs.replace(sku, price=f"0.{cents:02d}")
            if sku.id in ("lb-hour", "rules", "ipv4")
            else sku
            for sku in BOOK.skus
        ]
        made = msgspec.structs.replace(BOOK, version=self.version, skus=skus, applies_to=whom)
        self.pair.each(lambda world: world.put_in_force(made))

    @rule(number=st.integers(1, 5))
    def days_are_closed(self, number: int) -> None:
        self.pair.each(lambda world: world.steps(number))

    @rule(commits=st.integers(0, 4), where=st.sampled_from(["before", "instead", "after"]))
    def a_process_dies(self, commits: int, where: str) -> None:
        def die(world: World) -> None:
            with contextlib.suppress(Crashed), world.dying(commits, where):
                world.steps()

        self.pair.each(die)

    @precondition(lambda self: self.lives)
    @rule()
    def two_close_the_same(self) -> None:
        """Another server is as fast; what it adds is there already."""

        def both(world: World) -> None:
            before, again = _progress(world)
            world.steps(3)
            if before is not None and _progress(world)[0] != before:
                world.ledger._close("default", before)
                for one in again:
                    world.ledger._settle(one)

        self.pair.each(both)

    @rule(days=st.integers(0, 9))
    def rating_again_is_asked(self, days: int) -> None:
        start = START + timedelta(days=days)
        self.pair.each(lambda world: world.ledger.rerate("default", events.seconds_us(start)))

    @rule()
    def the_month_is_closed(self) -> None:
        for world in self.pair.worlds:
            with contextlib.suppress(errors.PeriodOpen):
                self.closed["2026-11"] = world.invoices.close("default", "2026-11")

    @rule(name=NAMES, terms=TERMS)
    def somebody_else_is_busy(self, name: str, terms: Terms) -> None:
        """On one of the databases only: whoever saw that would say something else there."""
        world = self.pair.worlds[0]
        other = f"other_{world.happenings['other']}_{name}"
        for kind in (Kind.CREATED, Kind.ACTIVATED):
            world.happened(other, kind, terms, "other")

    @rule()
    def is_right(self) -> None:
        """Everything that can be said of the books at this moment."""
        first, second = self.pair.each(World.answers)
        # A death comes before another day on each, since one has somebody else's days to close
        # too. The invoice of an open month and the export have what is closed so far, the rest all.
        days, others = self.pair.each(World.days)
        if days != others and "2026-11" not in self.closed:
            second |= {what: first[what] for what in ("invoices", "export", "verify")}
        for what, said in first.items():
            assert said == second[what], f"invariants 20 and 21: {what}"
        _conserved(self.pair.worlds[0], first)
        _verified(self.pair.worlds[0], first)
        for world in self.pair.worlds:
            stored = set(world.lines())
            assert self.stored <= stored, "invariant 9: what is there stays"
            for period, proved in self.closed.items():
                assert world.invoices.find("default", period) == proved, "invariant 10"
        self.stored = stored

    @rule()
    def settles(self) -> None:
        """When all is closed, lines are what events say; to close again adds nothing."""
        for world in self.pair.worlds:
            world.steps()
            lines = world.lines()
            world.put_in_force(world.ledger._book)
            assert world.steps() == 0
            assert world.lines() == lines, "invariant 7"
            _rebuilt(world)

    def teardown(self) -> None:
        if hasattr(self, "pair"):
            self.settles()
            self.is_right()
            assert self.pair.worlds[0].export_findings() == [], "invariant 18"
            for world in self.pair.worlds:
                _tampered(world)


def _progress(world: World) -> tuple[tuple[int, str] | None, list[late.Late]]:
    with world.database.read() as connection:
        return charges.progress(connection, "default"), late.all(connection)


def _conserved(world: World, said: Mapping[str, Any]) -> None:
    """Invariant 3: every grouping, the export and the statements come to the same."""
    totals = {by: Decimal(said[by]["total"]) for by in GROUPS}
    assert len(set(totals.values())) == 1, totals
    for by in GROUPS:
        assert sum(Decimal(one["amount"]) for one in said[by]["groups"]) == totals[by]
    total = totals["project"]
    assert sum((Decimal(row["BilledCost"]) for row in said["export"]), Decimal()) == total
    statements = (
        one for one in (said[name] for name in ("lb_a", "lb_b", "lb_c")) if "total" in one
    )
    live = sum((Decimal(one["total"]) for one in statements), Decimal())
    with world.database.read() as connection:
        if not late.all(connection) and not said["invoices"]:
            assert live == total


def _verified(world: World, said: Mapping[str, Any]) -> None:
    """Invariants 3, 9 and 10: seals, daily sums and invoices agree with the lines."""
    assert said["verify"]["problems"] == []
    assert [
        one for one in said["export"] if one["ChargeClass"] and not one["x_CorrectsLineId"]
    ] == []
    with world.database.read() as connection:
        done = world.ledger.closed_until_us(connection, "default")
        booked = sum(one.line.billed_pico for one in charges.lines(connection, "default", 0, done))
        month = sum(
            invoices.content(connection, "default", period).total_pico
            for period in invoices.periods(connection, "default")
        )
    if not said["invoices"]:
        assert booked == 0
    assert (
        month
        == sum(row[_BILLED] for row in world.lines())
        == sum(row[_DAY_BILLED] for row in world.days())
    )


_BILLED = [column.name for column in billing_world.line.columns].index("billed_pico")
_DAY_BILLED = [column.name for column in billing_world.cost_day.columns].index("billed_pico")


def _rebuilt(world: World) -> None:
    """Invariants 8 and 10: events and hours alone say what the lines say, corrections added."""
    with world.database.read() as connection:
        done = world.ledger.closed_until_us(connection, "default")
        booked = [one.line for one in charges.lines(connection, "default", 0, done)]
        due = [
            one
            for one in world.ledger.charge(connection, "default", 0, done)
            if one.start_us < done
        ] if done else []  # fmt: skip
    assert dict(_sums(booked).items() ^ _sums(due).items()) == {}


def _sums(lines: list[Any]) -> dict[Any, tuple[int, int]]:
    found: defaultdict[Any, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for one in lines:
        quantity, billed = found[corrections.key(one)]
        found[corrections.key(one)] = quantity + one.quantity_micros, billed + one.billed_pico
    return {key: value for key, value in found.items() if value != (0, 0)}


def _tampered(world: World) -> None:
    """Invariant 9: nobody changes a row; whoever gets past that is found out."""
    for table in billing_world.APPEND_ONLY:
        with world.database.read() as connection:
            if connection.execute(text(f"SELECT 1 FROM {table}")).first() is None:
                continue
        for change in (f"DELETE FROM {table}", f"UPDATE {table} SET account = 'mine'"):
            with pytest.raises(errors.Unavailable), world.database.write() as connection:
                connection.execute(text(change))
    if not world.database.is_sqlite:
        return
    with world.database.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER billing_event_update"))
        changed = connection.execute(
            text("UPDATE billing_event SET at_us = at_us + 1000000 WHERE account = 'default'")
        ).rowcount
    assert world.invoices.verify("default")["verified"] is (changed == 0)


SMALL = Terms(name="web", labels={"namespace": "shop"}, type="lb-s", ports=2, protocols=1, ipv4=1)
LARGE = Terms(name="web", labels={"namespace": "pay"}, type="lb-m", ports=1, protocols=1, ipv4=2)


def story(_: settings | None = None) -> None:
    """Let a bit of everything happen: what a bug is hunted with, since the machine takes long."""
    one = BillingMachine()
    one.begin(SMALL, 12_000)
    one.two_close_the_same()
    one.is_right()
    one.create("lb_b", SMALL, True)
    one.the_same_is_written_again()
    one.change("lb_a", LARGE)
    one.time_passes(5 * 3600 + 7)
    one.is_right()
    one.prices_change(50, "new")
    one.time_passes(86_400)
    one.traffic("lb_a", 30, 9_000)
    one.a_process_dies(2, "instead")
    one.settles()
    one.the_month_is_closed()
    one.traffic("lb_b", 40, 20_000)
    one.goes_on("lb_b")
    one.settles()
    assert one.closed
    one.teardown()


def prove_by_machine(how: settings) -> None:
    """Run the machine."""
    run_state_machine_as_test(
        BillingMachine,
        settings=settings(how, stateful_step_count=20, suppress_health_check=list(HealthCheck)),
    )


def _nothing_at_the_end(live: Any) -> Any:
    def found(self: Any, connection: Any, project: str, start: int, end: int, *more: Any) -> Any:
        whole = start % DAY_US or end % DAY_US == 0
        return live(self, connection, project, start, end, *more) if whole else iter(())

    return found


def _days(change: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """Return a bug in the days that are read: `change` makes of (connection, row) another row."""

    def buggy(days: Any) -> Any:
        @contextmanager
        def found(connection: Any, *of: Any) -> Iterator[Any]:
            with days(connection, *of) as rows:
                yield (change(connection, row) for row in rows)

        return found

    return buggy


def _one_off(connection: Any, row: Any) -> Any:
    key, day, listed, billed, estimated = row
    return key, day, listed, billed + (connection.dialect.name == "postgresql"), estimated


def _whole_millionths(_: Any, row: Any) -> Any:
    key, day, listed, billed, estimated = row
    return key, day, listed, billed // MICRO * MICRO, estimated


def _everybodys_resources(resources: Any) -> Any:
    def found(connection: Any, account: str, *of: int, **more: Any) -> list[str]:
        both = ("default", "other") if account == "default" else (account,)
        return sorted(one for who in both for one in resources(connection, who, *of, **more))

    return found


def _everybodys_days(days: Any) -> Any:
    @contextmanager
    def found(connection: Any, account: str, *of: Any) -> Iterator[Any]:
        with days(connection, account, *of) as rows, days(connection, "other", *of) as others:
            yield heapq.merge(rows, others, key=lambda row: row[1])

    return found


BUGS: dict[int, dict[str, Bug]] = {
    3: {
        "sums lose what is below a millionth": replaced(charges, "days", _days(_whole_millionths)),
        "the end of a day is left out of reports": replaced(Costs, "_live", _nothing_at_the_end),
    },
    7: {
        "a closer that comes late adds too": replaced(charges, "move", lambda _: lambda *of: True),
        "a line has another id each time": replaced(
            charges, "line_id", lambda _: lambda *of: uuid.uuid4().hex
        ),
    },
    8: {
        "closing loses a line": replaced(
            charges,
            "add",
            lambda add: lambda connection, account, lines: add(connection, account, lines[:3]),
        ),
    },
    9: {
        "seals leave out the time": replaced(
            events,
            "seal",
            lambda seal: (
                lambda before, event: seal(before, msgspec.structs.replace(event, at_us=0))
            ),
        ),
        "lines may be changed": replaced(
            billing_world,
            "refuse_changes",
            lambda all: lambda dialect: [one for one in all(dialect) if " line_" not in one],
        ),
    },
    10: {
        "late traffic is forgotten": replaced(late, "mark", lambda _: lambda *of: None),
        "a closed month grows": replaced(
            charges,
            "corrections",
            lambda made: (
                lambda account, before, found, closed, now: made(account, before, found, (), now)
            ),
        ),
    },
    20: {"sums of one database are one off": replaced(charges, "days", _days(_one_off))},
    21: {
        "charges are of everybody": replaced(billing_events, "resources", _everybodys_resources),
        "daily sums are of everybody": replaced(charges, "days", _everybodys_days),
    },
}
NAME = "test_the_books_are_right"
for number, bugs in BUGS.items():
    assert all(bug in (BillingMachine.__doc__ or "") for bug in bugs)
    invariants.PROPERTIES.append(
        invariants.Property(number, NAME, story, bugs, needs_databases=True)
    )


@pytest.mark.timeout(300)  # seconds when alone; both databases on a busy machine take longer
def test_the_books_are_right(databases: None) -> None:
    story()
    prove_by_machine(settings(max_examples=4, deadline=None))
    invariants.HELD.add(NAME)
