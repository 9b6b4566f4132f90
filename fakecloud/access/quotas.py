"""How many of each kind of resource a project may have.

A metric is counted in the transaction that creates or deletes the resource, so that the counter
always equals the number of living ones (invariant I10), limited or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from fakecloud.errors import NotFound, QuotaExceeded
from fakecloud.store import quotas as rows
from fakecloud.store.database import Connection

METRICS: Final = (
    "load_balancers",
    "addresses",
    "certificates",
    "instances",
    "networks",
    "routes",
    "faults",
    "tokens",
    "watches",
)

STANDARD: Final[Mapping[str, int]] = {
    "load_balancers": 100,
    "addresses": 100,
    "certificates": 100,
    "networks": 20,
    "routes": 500,
    "watches": 20,
    "faults": 200,
}
"""The limits of a cloud with limits; what isn't here is unlimited."""


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a project's quotas; `limit` None: unlimited."""

    metric: str
    limit: int | None
    in_use: int


class Quotas:
    """Counts what is created and deleted, against a limit where there is one."""

    def __init__(self, standard: Mapping[str, int] | None = None) -> None:
        """Limit projects to `standard`, by metric, where nothing else was set for them."""
        self._standard = dict(standard or {})

    def take(self, connection: Connection, project: str, metric: str, count: int = 1) -> None:
        """Count new resources, in the transaction that creates them. Raises: QuotaExceeded."""
        assert metric in METRICS, metric
        if rows.take(connection, project, metric, count, self._standard.get(metric)):
            return
        quota = self.find(connection, project, metric)
        raise QuotaExceeded(
            f"project {project!r} has {quota.in_use} of at most {quota.limit} "
            f"{metric.replace('_', ' ')}; delete some, or ask an administrator for more",
            metric=metric,
            limit=quota.limit,
            in_use=quota.in_use,
        )

    def give_back(self, connection: Connection, project: str, metric: str, count: int = 1) -> None:
        """Count resources off, in the transaction that deletes them."""
        assert metric in METRICS, metric
        rows.give_back(connection, project, metric, count)

    def find(self, connection: Connection, project: str, metric: str) -> Quota:
        """Return one quota. Raises: NotFound for a metric that doesn't exist."""
        if metric not in METRICS:
            raise NotFound(f"there is no quota {metric!r}; there are {', '.join(METRICS)}")
        return self._quota(metric, rows.find(connection, project, metric))

    def of_project(self, connection: Connection, project: str) -> list[Quota]:
        """Return every quota of a project."""
        found = rows.of_project(connection, project)
        return [self._quota(metric, found.get(metric)) for metric in METRICS]

    def set_limit(
        self, connection: Connection, project: str, metric: str, limit: int | None
    ) -> Quota:
        """Set a project's limit, None: the standard one; what it has already stays.

        Raises: NotFound for a metric that doesn't exist.
        """
        self.find(connection, project, metric)
        rows.set_most(connection, project, metric, limit)
        return self.find(connection, project, metric)

    def _quota(self, metric: str, counter: rows.Counter | None) -> Quota:
        standard = self._standard.get(metric)
        if counter is None:
            return Quota(metric=metric, limit=standard, in_use=0)
        limit = standard if counter.most is None else counter.most
        return Quota(metric=metric, limit=limit, in_use=counter.used)
