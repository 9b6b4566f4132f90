"""A database that billed by usage intervals is upgraded: the bill stays what it was."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command

from fakecloud.accounting.costs import Costs
from fakecloud.accounting.invoices import Invoices
from fakecloud.accounting.ledger import Ledger
from fakecloud.billing import books, events, report
from fakecloud.store import billing_events
from fakecloud.store.database import Database, alembic_config
from tests.fakes import postgresql
from tests.fakes.clock import FakeClock

START = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Database]:
    """Return a database of version 0007."""
    if request.param == "sqlite":
        yield from _at_0007(f"sqlite:///{tmp_path}/cloud.db")
        return
    server: postgresql.Server = request.getfixturevalue("postgresql_server")
    url = server.database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE of_0007")
        yield from _at_0007(url.rsplit("/", 1)[0] + "/of_0007")
        connection.execute("DROP DATABASE of_0007")


def _at_0007(url: str) -> Iterator[Database]:
    database = Database(url)
    with database.engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0007")
    yield database
    database.close()


def _us(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def balancer(connection: Any, tables: sa.MetaData, name: str, **more: Any) -> None:
    """Insert a load balancer as it was then."""
    table = tables.tables["load_balancer"]
    empty = {"TEXT": "", "JSON": {}, "BOOLEAN": False}
    values = {
        column.name: empty.get(str(column.type), 0)
        for column in table.columns
        if not (column.nullable or column.name == "pk")
    }
    values |= {
        "id": f"lb_{name}", "name": name, "project": "default", "created_at": _us(START),
        "spec": {"type": "lb-s", "listeners": [{"protocol": "tcp"}, {"protocol": "udp"}]},
        "addresses": [{"family": "ipv4"}, {"family": "ipv6"}],
    }  # fmt: skip
    connection.execute(sa.insert(table).values(values | more))


def interval(
    connection: Any, tables: sa.MetaData, name: str, start: int, end: int | None, **labels: str
) -> None:
    """Insert an interval in hours after the start."""
    connection.execute(
        sa.insert(tables.tables["usage_interval"]).values(
            load_balancer_id=f"lb_{name}",
            project="default",
            name=name,
            labels=labels,
            type="lb-s",
            started_at=_us(START + start * HOUR),
            ended_at=None if end is None else _us(START + end * HOUR),
        )
    )


def test_intervals_become_events_that_cost_the_same(old: Database) -> None:
    """a: 10 h for x, then 5 h for y; b: 3 h until it was deleted; c: never active; d: made, gone.

    15 and 3 started hours at 0.0225 and 18 hours of an address at 0.005: 0.405 + 0.09.
    """
    with old.engine.begin() as connection:
        tables = sa.MetaData()
        tables.reflect(connection, only=["load_balancer", "usage_interval"])
        gone = _us(START + 4 * HOUR)
        balancer(connection, tables, "a", state="ACTIVE", was_active=True)
        balancer(connection, tables, "b", state="DELETED", was_active=True, deleted_at=gone)
        balancer(connection, tables, "c", state="PENDING")
        balancer(connection, tables, "d", state="DELETED", deleted_at=gone)
        interval(connection, tables, "a", 0, 10, team="x")
        interval(connection, tables, "a", 10, None, team="y")
        interval(connection, tables, "b", 0, 3)
    old.migrate()
    clock = FakeClock(START + 15 * HOUR)
    ledger = Ledger(old, clock, books.load("aws-nlb-us-east-1"))
    ledger.start()
    asked = report.Asked(start=START, end=clock.now(), group_by=("load_balancer", "label:team"))
    made = Costs(old, ledger).report("default", asked)
    assert made["total"] == "0.495"
    assert {tuple(one["key"].values()): one["amount"] for one in made["groups"]} == {
        ("a", "x"): "0.275",
        ("a", "y"): "0.1375",
        ("b", None): "0.0825",
    }
    with old.read() as connection:
        found = billing_events.histories(connection, ["lb_a", "lb_b", "lb_c", "lb_d"])
        there = billing_events.resources(
            connection, "default", events.seconds_us(clock.now()), 1 << 60, after="", limit=9
        )
    kinds = {name: [str(event.kind) for event in found.get(name, [])] for name in sorted(found)}
    assert kinds == {
        "lb_a": ["created", "activated", "attributed"],
        "lb_b": ["created", "activated", "delete_requested", "deleted"],
        "lb_c": ["created"],
    }
    assert there == ["lb_a", "lb_c"]
    clock.advance(10 * 86_400)
    while ledger.step():
        pass
    assert Invoices(old, ledger, clock).verify("default")["verified"]
