"""What all desks for resources with a name do alike: find, list, count in and out."""

from __future__ import annotations

from typing import Any, Final, Generic

import msgspec

from fakecloud.access import suspension
from fakecloud.access.quotas import Quotas
from fakecloud.billing.events import seconds_us
from fakecloud.clock import Clock
from fakecloud.errors import NotFound
from fakecloud.ids import new_id
from fakecloud.store import events, listings, named
from fakecloud.store.database import Connection, Database
from fakecloud.store.named import T

IDS: Final = {"certificate": "cert", "instance": "i", "network": "net", "route": "rt"}
"""What the ids of each kind begin with."""


class Desk(Generic[T]):
    """A desk for the resources of one kind. Every method may raise Unavailable."""

    def __init__(
        self, database: Database, clock: Clock, quotas: Quotas, rows: named.Rows[T]
    ) -> None:
        """Write `rows` of `database`; count them by `quotas`, where the metric is the plural."""
        self._database: Database = database
        self._clock: Clock = clock
        self._quotas: Quotas = quotas
        self._rows: named.Rows[T] = rows
        self._metric: str = f"{rows.kind}s"

    def page(self, project: str, page: listings.Page) -> tuple[int, list[tuple[listings.Key, T]]]:
        """Return a page of the project's and the version of it."""
        with self._database.read() as connection:
            return events.current_version(connection), self._rows.listing(connection, project, page)

    def _find(
        self, connection: Connection, project: str, name: str, *, for_update: bool = False
    ) -> T:
        """Return the one of that name or id. Raises: NotFound."""
        found = self._rows.find(connection, project, name, for_update=for_update)
        if found is None:
            raise NotFound(f"there is no {self._rows.kind} {name!r}")
        return found

    def _add(self, connection: Connection, project: str, name: str, **fields: Any) -> T:
        """Insert a new one of these fields. Raises: ProjectSuspended, QuotaExceeded."""
        now = self._clock.now()
        suspension.refuse(connection, project, seconds_us(now))
        self._quotas.take(connection, project, self._metric)
        made = self._rows.of(
            id=new_id(IDS[self._rows.kind], now),
            project=project,
            name=name,
            **fields,
            resource_version=0,
            created_at=now,
            updated_at=now,
        )
        return self._rows.add(connection, made)

    def _change(self, connection: Connection, current: T, **fields: Any) -> T:
        """Write these fields of it anew."""
        changed = msgspec.structs.replace(current, **fields, updated_at=self._clock.now())
        return self._rows.save(connection, changed)

    def _remove(self, connection: Connection, found: T) -> None:
        """Delete it, and count it off."""
        self._quotas.give_back(connection, found.project, self._metric)
        gone = msgspec.structs.replace(found, updated_at=self._clock.now())
        self._rows.remove(connection, gone)
