"""A server that dies at any commit of closing and invoicing loses nothing, and bills nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from fakecloud.billing.events import Kind, Terms
from fakecloud.store.database import Database
from tests.property.billing_world import Crashed, World

TERMS = Terms(name="web", labels={"team": "x"}, type="lb-s", ports=2, protocols=1, ipv4=1)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    database = Database(database_url)
    database.migrate()
    yield World(database)
    database.close()
    structlog.reset_defaults()


def history(world: World) -> None:
    """Two load balancers to the end of the month, traffic in time, and some that comes late."""
    for name in ("lb_a", "lb_b"):
        for kind in (Kind.CREATED, Kind.ACTIVATED):
            world.happened(name, kind, TERMS, "default")
    world.clock.advance(2 * 86_400)
    world.carried("lb_a", 3, 12_000)
    world.steps()
    world.carried("lb_b", 40, 9_000)
    world.clock.advance(2 * 86_400 + 60)


def finish(world: World) -> None:
    world.steps()
    world.invoices.close("default", "2026-11")


def outcome(world: World) -> tuple[Any, ...]:
    return (
        world.lines(),
        world.days(),
        world.invoices.list("default"),
        world.invoices.verify("default"),
    )


def test_wherever_it_dies_the_books_become_the_same(world: World) -> None:
    history(world)
    finish(world)
    expected = outcome(world)
    assert expected[3]["verified"]
    assert len(expected[0]) > 20
    commits = 0
    while True:
        for where in ("instead", "after"):
            world.empty()
            world.begin()
            history(world)
            with world.dying(commits, where):
                try:
                    finish(world)
                except Crashed:
                    died = True
                else:
                    died = False
            world.put_in_force(world.ledger._book)  # a new life of the server
            finish(world)
            assert outcome(world) == expected, (commits, where)
        if not died:
            break
        commits += 1
    assert commits >= 8, "every day, the late one, the invoice"
