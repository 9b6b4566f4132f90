"""Two clouds' books, one on each kind of database, to which the same happens."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml
from sqlalchemy import Connection, insert, select, text

from fakecloud import errors
from fakecloud.accounting.costs import Costs
from fakecloud.accounting.invoices import Invoices
from fakecloud.accounting.ledger import Ledger
from fakecloud.billing import events, focus, focus_check, prices, report
from fakecloud.billing.events import BillingEvent, Kind, Terms
from fakecloud.billing.prices import PriceBook
from fakecloud.domain.traffic import HourPart
from fakecloud.store import billing_events, late, traffic
from fakecloud.store.database import Database
from fakecloud.tables.billing import APPEND_ONLY, cost_day, line, refuse_changes
from fakecloud.tables.cloud import UtcDateTime, load_balancer
from tests.fakes.clock import FakeClock

START: Final = datetime(2026, 11, 29, tzinfo=UTC)  # a month ends soon
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
TABLES: Final = (
    "usage_hour", "usage_mark", "load_balancer", "billing_event", "billing_seal", "billed_resource", "attribution",
    "price_assignment", "line", "cost_day", "billing_progress", "late_usage", "billing_period",
)  # fmt: skip
GROUPS: Final = ("load_balancer", "namespace,sku", "day", "price_book,month", "project")
_SOURCE = "{url: 'https://example.org/', read: 2026-11-23, grade: B}"
BOOK: Final = prices.parse(
    yaml.safe_load(f"""
name: everything
version: 1
provider: {{name: nobody, region: nowhere}}
currency: USD
effective_from: 2026-01-01T00:00:00Z
topology: rule_per_port
plans: {{lb-s: small, lb-m: large}}
skus:
  - {{id: lb-hour, plan: small, meter: alive, unit: Hours, price: "0.3", description: "-",
     rate: {{kind: started_hour, cap: {{amount: "9"}}}}, source: {_SOURCE}}}
  - {{id: lb-hour, plan: large, meter: alive, unit: Hours, price: "0.7", description: "-",
     rate: {{kind: started_hour, cap: {{amount: "15"}}}}, source: {_SOURCE}}}
  - {{id: ipv4, meter: ipv4, unit: Hours, price: "0.005", description: "-",
     rate: {{kind: linear, min_seconds: 60}}, source: {_SOURCE}}}
  - {{id: rules, meter: rules, unit: Hours, price: "0.025", description: "-",
     rate: {{kind: package, first: 2, extra: "0.01"}}, source: {_SOURCE}}}
  - {{id: capacity, meter: capacity, unit: Unit-Hours, price: "0.006", description: "-",
     rate: {{kind: capacity, dimensions: [{{meter: bytes, per_unit: 1000000000}}]}},
     source: {_SOURCE}}}
  - {{id: egress, meter: bytes_out, unit: GB, price: "0.09", description: "-",
     rate: {{kind: graduated, tiers: [{{price: "0", up_to: "10"}}, {{price: "0.09"}}]}},
     source: {_SOURCE}}}
  - {{id: ingress, meter: bytes_in, unit: GB, price: "0.02", description: "-",
     rate: {{kind: included, quantity: "5"}}, source: {_SOURCE}}}
"""),
    "everything",
)


class Crashed(BaseException):
    """The process ended here."""


class World:
    """The books of one cloud on one database, with a clock by hand."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.empty()
        self.begin()

    def empty(self) -> None:
        """Forget everything, past the triggers that refuse to."""
        sqlite = self.database.is_sqlite
        with self.database.engine.begin() as connection:
            if sqlite:
                for table in APPEND_ONLY:
                    for verb in ("update", "delete"):
                        connection.execute(text(f"DROP TRIGGER IF EXISTS {table}_{verb}"))
            else:
                connection.execute(text("SET LOCAL session_replication_role = replica"))
            for table in TABLES:
                connection.execute(text(f"DELETE FROM {table}"))
            if sqlite:
                for statement in refuse_changes("sqlite"):
                    connection.execute(text(statement))

    def begin(self) -> None:
        self.clock = FakeClock(START)
        self.happenings: Counter[str] = Counter()
        self.begun: dict[str, datetime] = {}
        self.put_in_force(BOOK)

    def put_in_force(self, book: PriceBook) -> None:
        """Start a server with a price book, as after a restart."""
        self.ledger = Ledger(self.database, self.clock, book)
        self.ledger.start()
        self.costs = Costs(self.database, self.ledger)
        self.invoices = Invoices(self.database, self.ledger, self.clock)

    def happened(self, resource: str, kind: Kind, terms: Terms, account: str) -> BillingEvent:
        at_us = events.seconds_us(self.clock.now())
        self.happenings[account] += 1
        event = BillingEvent(
            id=f"{account}/{self.happenings[account]}", account=account, resource=resource,
            resource_kind="load_balancer", kind=kind, at_us=at_us, recorded_us=at_us, terms=terms,
        )  # fmt: skip
        with self.database.write() as connection:
            billing_events.append(connection, [event])
            if kind is Kind.CREATED:
                now = self.clock.now()
                self.begun[resource] = now.replace(minute=0, second=0, microsecond=0)
                connection.execute(insert(load_balancer).values(_row(resource)))
        return event

    def repeated(self, event: BillingEvent) -> bool:
        """Write an event once more; say whether that was refused."""
        try:
            with self.database.write() as connection:
                billing_events.append(connection, [event])
        except errors.Unavailable:
            return True
        return False

    def carried(self, resource: str, hours_ago: int, megabytes: int) -> None:
        """Let traffic of an hour come in now."""
        hour = self.clock.now().replace(minute=0, second=0, microsecond=0)
        hour = max(self.begun[resource], hour - timedelta(hours=hours_ago))
        part = HourPart(
            hour=hour, connections=1, bytes_in=megabytes * 10**5, bytes_out=megabytes * 10**6,
            requests=1, connection_us=7, estimated=hours_ago > 3,
        )  # fmt: skip
        with self.database.write() as connection:
            traffic.add_hours(connection, [("default", (resource, "web", "e"), part)])
            late.mark(connection, "default", (hour - EPOCH).days)

    def steps(self, most: int = 10_000) -> int:
        return sum(1 for _, _ in zip(iter(self.ledger.step, False), range(most), strict=False))

    @contextmanager
    def dying(self, commits: int, where: str) -> Iterator[None]:
        """Let the process end at a commit: before it, instead of it, or right after it."""
        left = commits

        def write() -> AbstractContextManager[Connection]:
            return _dies() if left == 0 else _counts()

        @contextmanager
        def _counts() -> Iterator[Connection]:
            nonlocal left
            left -= 1
            with Database.write(self.database) as connection:
                yield connection

        @contextmanager
        def _dies() -> Iterator[Connection]:
            if where == "before":
                raise Crashed
            with Database.write(self.database) as connection:
                yield connection
                if where == "instead":
                    raise Crashed
            raise Crashed

        self.database.write = write  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self.database.write

    def lines(self) -> list[tuple[Any, ...]]:
        """Return every line of the account, as it is stored."""
        return self._all(select(line).where(line.c.account == "default").order_by(line.c.id))

    def days(self) -> list[tuple[Any, ...]]:
        """Return every sum of a day."""
        mine = select(cost_day).where(cost_day.c.account == "default")
        return self._all(mine.order_by(*cost_day.primary_key))

    def _all(self, statement: Any) -> list[tuple[Any, ...]]:
        with self.database.read() as connection:
            return [tuple(row) for row in connection.execute(statement)]

    def report(self, group_by: str, start: datetime = START, end: datetime | None = None) -> Any:
        asked = report.Asked(
            start=start, end=end or self.clock.now(), group_by=tuple(group_by.split(","))
        )
        return self.costs.report("default", asked)

    def export(self) -> list[dict[str, str]]:
        parts = self.invoices.export("default", START, self.clock.now(), focus.COLUMNS)
        return list(csv.DictReader(io.StringIO("".join(parts))))

    def export_findings(self) -> list[str]:
        file = io.StringIO()
        focus.write(self.export(), file)
        file.seek(0)
        return [str(one) for one in focus_check.check(file)]

    def answers(self) -> dict[str, Any]:
        """Return all that can be asked of the account, as it would be sent."""
        now, noon = self.clock.now(), START + timedelta(hours=31)
        found = {by: self.report(by) for by in GROUPS}
        found["from noon"] = self.report("sku", noon, max(noon, now))
        found["forecast"] = self.costs.forecast("default")
        found["compare"] = self.costs.compare("default", ["gcp-us-central1"], START, now)
        found["invoices"] = self.invoices.list("default")
        found["verify"] = self.invoices.verify("default")
        found["export"] = self.export()
        for name in ("lb_a", "lb_b", "lb_c"):
            try:
                found[name] = self.costs.statement("default", name, START, now)
            except errors.NotFound as error:
                found[name] = error.detail
        plain: dict[str, Any] = json.loads(msgspec.json.encode(found))
        return plain


class Pair:
    """The same books twice. `each` calls the same on both."""

    def __init__(self, databases: list[Database]) -> None:
        self.worlds = [World(database) for database in databases]

    def each(self, do: Callable[[World], Any]) -> list[Any]:
        return [do(world) for world in self.worlds]


class Databases:
    """One database of each kind, made once."""

    def __init__(self, postgresql_url: str | None) -> None:
        memory = Path("/dev/shm")  # as PostgreSQL here: nothing waits for a disk
        self._directory = tempfile.TemporaryDirectory(
            prefix="fakecloud-books-", dir=memory if memory.is_dir() else None
        )
        urls = [f"sqlite:///{Path(self._directory.name)}/cloud.db", postgresql_url]
        self.all = [Database(url) for url in urls if url]
        for database in self.all:
            database.migrate()

    def close(self) -> None:
        for database in self.all:
            database.close()
        self._directory.cleanup()


DATABASES: list[Databases] = []
"""The ones of this run, if any test needs them."""


def _row(resource: str) -> dict[str, Any]:
    """Return a row for traffic to belong to; billing reads nothing of it."""
    empty: dict[type, Any] = {str: "", int: 0, bool: False, object: {}}
    values = {
        column.name: START
        if isinstance(column.type, UtcDateTime)
        else empty[column.type.python_type]
        for column in load_balancer.columns
        if not (column.nullable or column.name == "pk")
    }
    return values | {"id": resource, "name": resource}
