"""Costs for tools that speak OpenCost or Prometheus."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any, Final

from fakecloud.accounting.costs import Costs
from fakecloud.billing import events, opencost, projection
from fakecloud.billing import report as reports
from fakecloud.billing.opencost import Picture
from fakecloud.clock import Clock, rfc3339
from fakecloud.errors import InvalidParameter
from fakecloud.metrics import Cost
from fakecloud.model import LoadBalancer
from fakecloud.store import billing_events, load_balancers
from fakecloud.store.database import Database

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MOST_DAYS: Final = 92
FRESH_S: Final = 10.0
"""Prometheus is told the same for so long, however often it asks."""


class OpenCost:
    """The desk for other tools. Every method may raise Unavailable."""

    def __init__(self, database: Database, costs: Costs, clock: Clock) -> None:
        """Tell of `costs`."""
        self._database = database
        self._costs = costs
        self._clock = clock
        self._lock = Lock()
        self._told: tuple[float, list[Cost]] | None = None

    def allocation(
        self, project: str, start: datetime, end: datetime, aggregate: Sequence[str]
    ) -> dict[str, Any]:
        """Return `/allocation`'s data. Raises: InvalidParameter."""
        return opencost.allocation(self._picture(project, start, end), aggregate)

    def assets(self, project: str, start: datetime, end: datetime) -> dict[str, Any]:
        """Return `/assets`' data."""
        return opencost.assets(self._picture(project, start, end))

    def custom_costs(self, project: str, start: datetime, end: datetime) -> dict[str, Any]:
        """Return `/customCost/total`'s data."""
        return opencost.custom_costs(self._picture(project, start, end))

    def timeseries(self, project: str, start: datetime, end: datetime) -> dict[str, Any]:
        """Return `/customCost/timeseries`' data of [start, end), not empty, by days of UTC.

        Raises: InvalidParameter.
        """
        if end - start > timedelta(days=MOST_DAYS):
            raise InvalidParameter(f"window: a series is of at most {MOST_DAYS} days")
        days = []
        while start < end:
            midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
            days.append((start, min(end, midnight + timedelta(days=1))))
            start = days[-1][1]
        return {
            "window": {"start": rfc3339(days[0][0]), "end": rfc3339(days[-1][1])},
            "timeseries": [self.custom_costs(project, *day) for day in days],
        }

    def series(self) -> list[Cost]:
        """Return what everything there is costs, of all accounts: for Prometheus."""
        with self._lock:
            if self._told is None or self._clock.monotonic() - self._told[0] > FRESH_S:
                self._told = (self._clock.monotonic(), self._series())
            return self._told[1]

    def _series(self) -> list[Cost]:
        with self._database.read() as connection:
            accounts = [name for name, _ in billing_events.accounts(connection)]
        return [cost for account in accounts for cost in self._of_account(account)]

    def _of_account(self, account: str) -> list[Cost]:
        asked = reports.Asked(start=_EPOCH, end=self._clock.now(), group_by=("load_balancer",))
        found = self._costs.found(account, asked)
        with self._database.read() as connection:
            ips = _ips(load_balancers.living(connection, account))
        totals: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        rates: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        for sums, charges in ((totals, found.charges), (rates, found.monthly)):
            for one in charges:
                sums[one.resource, one.attribution, one.sku] += one.billed_pico
        return [
            Cost(
                project=account,
                load_balancer=found.people[attribution].name,
                labels=found.people[attribution].labels,
                ip=ips.get(resource, ""),
                sku=sku,
                currency=found.book.currency,
                total=opencost.number(totals[key]),
                hourly=opencost.number(rates[key]) / projection.HOURS_PER_MONTH,
                there=key in rates,
            )
            for key in dict.fromkeys((*totals, *rates))
            for resource, attribution, sku in (key,)
        ]

    def _picture(self, project: str, start: datetime, end: datetime) -> Picture:
        asked = reports.Asked(start=start, end=end, group_by=("load_balancer",))
        found = self._costs.found(project, asked)
        first, last = events.seconds_us(start), events.seconds_us(end)
        with self._database.read() as connection:
            ips = _ips(load_balancers.living(connection, project))
            resources = list({one.resource for one in found.charges})
            lived = self._costs.lived(connection, resources, first, last)
            books = self._costs.books(connection)
        return Picture(
            start=start,
            end=end,
            charges=found.charges,
            people=found.people,
            lived_us=lived,
            ips=ips,
            books=books,
        )


def _ips(living: Sequence[LoadBalancer]) -> dict[str, str]:
    return {lb.id: lb.addresses[0].ip for lb in living if lb.addresses}
