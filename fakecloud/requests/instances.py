"""Instances: the machines that targets run on, as a cloud's compute service lists them."""

from __future__ import annotations

import msgspec

from fakecloud.access.quotas import Quotas
from fakecloud.clock import Clock
from fakecloud.errors import NameInUse
from fakecloud.requests.desk import Desk
from fakecloud.resources import Instance, InstanceWish
from fakecloud.store import instances as rows
from fakecloud.store.database import Database


class Instances(Desk[Instance]):
    """The customer's desk for instances. Every method may raise Unavailable."""

    def __init__(self, database: Database, clock: Clock, quotas: Quotas) -> None:
        """Write to `database`; count instances by `quotas`."""
        super().__init__(database, clock, quotas, rows.rows)

    def create(self, project: str, name: str, wish: InstanceWish) -> Instance:
        """Create an instance; again with the same document changes nothing. Raises: NameInUse."""
        with self._database.write() as connection:
            current = rows.find(connection, project, name)
            if current is None:
                return self._add(connection, project, name, **msgspec.structs.asdict(wish))
            if current.wish != wish:
                raise NameInUse(f"{name} exists with another document; PUT replaces it")
            return current

    def put(self, project: str, name: str, wish: InstanceWish) -> tuple[Instance, bool]:
        """Create or replace an instance; say whether it is new."""
        with self._database.write() as connection:
            current = rows.find(connection, project, name)
            if current is None:
                return self._add(connection, project, name, **msgspec.structs.asdict(wish)), True
            if current.wish == wish:
                return current, False
            return self._change(connection, current, **msgspec.structs.asdict(wish)), False

    def find(self, project: str, name: str) -> Instance:
        """Return the instance of that name or id. Raises: NotFound."""
        with self._database.read() as connection:
            return self._find(connection, project, name)

    def delete(self, project: str, name: str) -> None:
        """Delete an instance. Raises: NotFound."""
        with self._database.write() as connection:
            self._remove(connection, self._find(connection, project, name))
