"""Instances: the machines that targets run on, as a cloud's compute service lists them."""

from __future__ import annotations

import msgspec

from fakecloud.access import suspension
from fakecloud.access.quotas import Quotas
from fakecloud.billing.events import seconds_us
from fakecloud.clock import Clock
from fakecloud.errors import NameInUse, NotFound
from fakecloud.ids import new_id
from fakecloud.resources import Instance, InstanceWish
from fakecloud.store import events, listings
from fakecloud.store import instances as rows
from fakecloud.store.database import Connection, Database


class Instances:
    """The customer's desk for instances. Every method may raise Unavailable."""

    def __init__(self, database: Database, clock: Clock, quotas: Quotas) -> None:
        """Write to `database`; count instances by `quotas`."""
        self._quotas = quotas
        self._database = database
        self._clock = clock

    def create(self, project: str, name: str, wish: InstanceWish) -> Instance:
        """Create an instance; again with the same document changes nothing. Raises: NameInUse."""
        with self._database.write() as connection:
            current = rows.find(connection, project, name)
            if current is None:
                return self._add(connection, project, name, wish)
            if current.wish != wish:
                raise NameInUse(f"{name} exists with another document; PUT replaces it")
            return current

    def put(self, project: str, name: str, wish: InstanceWish) -> tuple[Instance, bool]:
        """Create or replace an instance; say whether it is new."""
        with self._database.write() as connection:
            current = rows.find(connection, project, name)
            if current is None:
                return self._add(connection, project, name, wish), True
            if current.wish == wish:
                return current, False
            changed = msgspec.structs.replace(
                current, **msgspec.structs.asdict(wish), updated_at=self._clock.now()
            )
            return rows.save(connection, changed), False

    def find(self, project: str, name: str) -> Instance:
        """Return the instance of that name or id. Raises: NotFound."""
        with self._database.read() as connection:
            return _found(rows.find(connection, project, name), name)

    def page(
        self, project: str, page: listings.Page
    ) -> tuple[int, list[tuple[listings.Key, Instance]]]:
        """Return a page of instances and the version of it."""
        with self._database.read() as connection:
            return events.current_version(connection), rows.listing(connection, project, page)

    def delete(self, project: str, name: str) -> None:
        """Delete an instance. Raises: NotFound."""
        with self._database.write() as connection:
            found = _found(rows.find(connection, project, name), name)
            self._quotas.give_back(connection, project, "instances")
            rows.remove(connection, msgspec.structs.replace(found, updated_at=self._clock.now()))

    def _add(self, connection: Connection, project: str, name: str, wish: InstanceWish) -> Instance:
        suspension.refuse(connection, project, seconds_us(self._clock.now()))
        self._quotas.take(connection, project, "instances")
        now = self._clock.now()
        made = Instance(
            id=new_id("i", now),
            project=project,
            name=name,
            **msgspec.structs.asdict(wish),
            resource_version=0,
            created_at=now,
            updated_at=now,
        )
        return rows.add(connection, made)


def _found(found: Instance | None, name: str) -> Instance:
    if found is None:
        raise NotFound(f"there is no instance {name!r}")
    return found
