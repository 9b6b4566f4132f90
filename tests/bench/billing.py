"""`python -m tests.bench.billing`: reports over a million lines, closing days, the export.

A million lines are 500 load balancers with traffic in every hour of 40 days, closed by the real
ledger. Reports are asked over HTTP of a server in a process of its own, data plane off.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import sqlalchemy

from fakecloud import logs, serving, settings
from fakecloud.accounting.ledger import Ledger
from fakecloud.billing import books, events
from fakecloud.billing.events import BillingEvent, Kind, Terms
from fakecloud.clock import SystemClock
from fakecloud.dataplane import premises
from fakecloud.store import billing_events
from fakecloud.store.database import Database
from fakecloud.tables import cloud as tables
from fakecloud.tables.billing import line
from fakecloud.tables.traffic import usage_hour
from tests.bench import api_server
from tests.fakes import postgresql
from tests.flows import servers

BALANCERS, DAYS = 500, 40
MANY = 10_000
ROUNDS = 10
GROUPS = (
    "namespace", "load_balancer", "sku", "namespace,service", "label:service", "price_book",
    "day", "namespace,day", "month,sku", "load_balancer,sku", "project,cluster",
)  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Set:
    """A clock by hand."""

    def __init__(self, now: datetime) -> None:
        self.at = now
        self.wall, self.monotonic = SystemClock().wall, SystemClock().monotonic
        self.wait = SystemClock().wait

    def now(self) -> datetime:
        """Return what it is set to."""
        return self.at


def fill(url: str, count: int, days: int, *, hours: bool) -> tuple[Database, datetime]:
    """Let `count` load balancers have been active for whole days up to today, with traffic."""
    api_server.fill(url, count + 1)
    database = Database(url)
    begun = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    begun -= timedelta(days=days)
    with database.write() as connection:
        rows = connection.execute(
            sqlalchemy.select(tables.load_balancer.c.id, tables.load_balancer.c.name).where(
                tables.load_balancer.c.name != "lb-0"
            )
        ).all()
        for number, row in enumerate(rows):
            terms = Terms(
                name=row.name,
                labels=api_server.labels(number),
                type="lb-s",
                ports=2,
                protocols=1,
                ipv4=1,
            )
            billing_events.append(connection, [
                BillingEvent(
                    id=f"{row.id}/{kind}", account="default", resource=row.id,
                    resource_kind="load_balancer", kind=kind, at_us=events.seconds_us(begun),
                    recorded_us=events.seconds_us(begun), terms=terms,
                )
                for kind in (Kind.CREATED, Kind.ACTIVATED)
            ])  # fmt: skip
    if hours:
        _carry(database, [row.id for row in rows], begun)
    return database, begun


def _carry(database: Database, ids: list[str], begun: datetime) -> None:
    last = int((datetime.now(UTC) - begun) / timedelta(hours=1))
    for hour in range(last + 1):
        values = [
            {
                "load_balancer_id": id, "listener": "http", "project": "default",
                "hour": begun + timedelta(hours=hour), "connections": 3000 + number,
                "bytes_in": 10**7 + hour, "bytes_out": 10**8 + number, "requests": 4000,
                "connection_us": 10**10, "estimated": False,
            }
            for number, id in enumerate(ids)
        ]  # fmt: skip
        with database.write() as connection:
            connection.execute(sqlalchemy.insert(usage_hour), values)


def close(database: Database, clock: Any) -> float:
    """Close every day that is over; return how many seconds that took."""
    ledger = Ledger(database, clock, books.load("aws-nlb-us-east-1"))
    ledger.start()
    before = time.perf_counter()
    while ledger.step():
        pass
    return time.perf_counter() - before


def main() -> int:
    """Measure on both databases; print a table and one line of JSON."""
    if sys.argv[1:2] == ["serve"]:
        _serve(*sys.argv[2:])
        return 0
    figures: dict[str, float] = {"invariants_held": 1}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fc-bench-")))
        _closing(directory, figures)
        for kind in ("sqlite", "postgresql"):
            if kind == "postgresql" and postgresql.binaries() is None:
                print(postgresql.MISSING)
                continue
            (directory / kind).mkdir()
            url = stack.enter_context(servers.databases(kind, directory / kind))
            _reports(kind, url, directory / kind, figures)
    for name, value in figures.items():
        print(f"{name:28} {value:10.3f}")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    return 0


def _closing(directory: Path, figures: dict[str, float]) -> None:
    """A month of 500 load balancers, and a day of 10,000 with traffic."""
    database, begun = fill(f"sqlite:///{directory}/month.db", BALANCERS, 30, hours=False)
    figures["advance_30d_s"] = close(database, Set(begun + timedelta(days=30, seconds=31)))
    database.close()
    database, begun = fill(f"sqlite:///{directory}/many.db", MANY, 1, hours=True)
    before = time.process_time()
    close(database, Set(begun + timedelta(days=1, seconds=31)))
    figures["closer_core_share"] = (time.process_time() - before) / 86_400
    database.close()


def _reports(kind: str, url: str, directory: Path, figures: dict[str, float]) -> None:
    database, begun = fill(url, BALANCERS, DAYS, hours=True)
    took = close(database, SystemClock())
    with database.read() as connection:
        lines = connection.execute(sqlalchemy.select(sqlalchemy.func.count(line.c.id))).scalar_one()
    database.close()
    print(f"{kind}: {lines} lines, closed in {took:.1f} s", flush=True)
    with _server(url, directory) as (client, pid):
        asked = {"from": begun.isoformat(), "to": datetime.now(UTC).isoformat()}
        times: list[float] = []
        totals = set()
        for group in GROUPS:
            own = []
            for _ in range(ROUNDS):
                before = time.perf_counter()
                answer = client.get("/v1/cost-report", params=asked | {"group_by": group})
                own.append(time.perf_counter() - before)
            made = answer.raise_for_status().json()
            parts = sum(Decimal(one["amount"]) for one in made["groups"])
            totals.add(Decimal(made["total"]))
            if parts != Decimal(made["total"]):
                figures["invariants_held"] = 0
            print(f"  {group:24} {statistics.median(own) * 1000:8.1f} ms", flush=True)
            times += own
        figures[f"report_p95_ms_{kind}"] = statistics.quantiles(times, n=20)[-1] * 1000
        if len(totals) > 1 or not client.get("/v1/billing/verify").json()["verified"]:
            figures["invariants_held"] = 0
        if kind == "sqlite":
            _export(client, pid, asked, figures)


def _export(
    client: httpx2.Client, pid: int, asked: dict[str, str], figures: dict[str, float]
) -> None:
    columns = (
        "ChargePeriodStart,ChargePeriodEnd,ResourceId,SkuId,SkuPriceId,PricingQuantity,"
        "ListUnitPrice,BilledCost,Tags,x_UsageLineId"
    )
    rss, rows, before = _rss_mb(pid), 0, time.perf_counter()
    most = rss
    asked = asked | {"format": "focus", "columns": columns}
    with client.stream("GET", "/v1/billing/export", params=asked) as answer:
        for number, part in enumerate(answer.iter_bytes()):
            rows += part.count(b"\n")
            if number % 200 == 0:
                most = max(most, _rss_mb(pid))
    figures["csv_1m_s"] = (time.perf_counter() - before) * 1_000_000 / rows
    figures["csv_rss_growth_mb"] = most - rss


def _rss_mb(pid: int) -> float:
    for row in Path(f"/proc/{pid}/status").read_text().splitlines():
        if row.startswith("VmRSS:"):
            return int(row.split()[1]) / 1024
    raise RuntimeError(f"{pid} has no VmRSS")


@contextmanager
def _server(url: str, directory: Path) -> Iterator[tuple[httpx2.Client, int]]:
    made = servers.Process(
        directory / "state", directory, url, module="tests.bench.billing", command="serve"
    )
    made.start()
    try:
        made.http.timeout = 60
        yield made.http, made.pid
    finally:
        made.kill()


def _serve(*words: str) -> None:
    """Serve without a data plane, by the options of `fakecloud serve`."""
    options = dict(
        zip((w.removeprefix("--").replace("-", "_") for w in words[::2]), words[1::2], strict=True)
    )
    logs.configure("info")  # on standard error: the first line of the other is the address
    vars(premises)["data_plane"] = lambda *_args: api_server.NoDataPlane()
    serving.serve(settings.load(**options))


if __name__ == "__main__":
    sys.exit(main())
