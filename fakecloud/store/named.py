"""Rows of resources with a name: found, listed, written with a resource version and an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import JSON, ColumnElement, Connection, Table, delete, insert, or_, select, update

from fakecloud.domain.routing import Network, Route
from fakecloud.resources import Certificate, Instance
from fakecloud.store import events, listings

T = TypeVar("T", Certificate, Instance, Network, Route)


class Rows(Generic[T]):
    """The rows of one kind: their columns have the names of the fields of `of`."""

    def __init__(
        self, table: Table, of: type[T], kind: str, document: Callable[[T], dict[str, Any]]
    ) -> None:
        """kind and document: what events say of them."""
        self._table = table
        self.of: type[T] = of
        self.kind = kind
        self._document: Callable[[T], dict[str, Any]] = document
        self._names = of.__struct_fields__
        self._columns = [table.c[name] for name in self._names]
        self._nested = [column.name for column in self._columns if isinstance(column.type, JSON)]

    def find(
        self, connection: Connection, project: str, name: str, *, for_update: bool = False
    ) -> T | None:
        """Return the one of that name or id, None if the project has none."""
        table = self._table
        found = self.chosen(
            connection,
            table.c.project == project,
            or_(table.c.name == name, table.c.id == name),
            for_update=for_update,
        )
        return found[0] if found else None

    def listing(
        self, connection: Connection, project: str, page: listings.Page
    ) -> list[tuple[listings.Key, T]]:
        """Return a page of a project's with their keys."""
        found = listings.find(connection, self._table, project, page, self._names)
        return [(key, self._value(row)) for key, row in found]

    def living(self, connection: Connection, project: str | None = None) -> list[T]:
        """Return every one of a project, or of all, in the order of ids."""
        return self.chosen(
            connection, *(() if project is None else (self._table.c.project == project,))
        )

    def chosen(
        self,
        connection: Connection,
        *conditions: ColumnElement[bool],
        order_by: str = "id",
        for_update: bool = False,
        held: bool = False,
    ) -> list[T]:
        """Return those for which all `conditions` hold.

        for_update: nobody else may change them until the transaction ends; held: nor delete them,
        while others may hold them too.
        """
        statement = select(*self._columns).where(*conditions).order_by(self._table.c[order_by])
        if for_update or held:
            statement = statement.with_for_update(read=held)
        return [self._value(row) for row in connection.execute(statement)]

    def add(self, connection: Connection, one: T) -> T:
        """Insert one with its event; return it with its resource version."""
        made = self._newer(connection, one)
        values = self._values(made) | {"created_version": made.resource_version}
        connection.execute(insert(self._table).values(values))
        self._record(connection, made, "ADDED")
        return made

    def save(self, connection: Connection, one: T) -> T:
        """Write a changed one with its event; return it with its resource version."""
        made = self._newer(connection, one)
        statement = update(self._table).where(self._table.c.id == made.id)
        connection.execute(statement.values(self._values(made)))
        self._record(connection, made, "MODIFIED")
        return made

    def remove(self, connection: Connection, one: T) -> None:
        """Delete one with its event."""
        gone = self._newer(connection, one)
        connection.execute(delete(self._table).where(self._table.c.id == gone.id))
        self._record(connection, gone, "DELETED")

    def _newer(self, connection: Connection, one: T) -> T:
        return msgspec.structs.replace(one, resource_version=events.next_version(connection))

    def _value(self, row: Any) -> T:
        found: T = msgspec.convert(dict(zip(self._names, row, strict=True)), self.of)
        return found

    def _values(self, one: T) -> dict[str, Any]:
        values = {name: getattr(one, name) for name in self._names}
        return values | {name: msgspec.to_builtins(values[name]) for name in self._nested}

    def _record(self, connection: Connection, one: T, type: str) -> None:
        events.append(
            connection,
            resource_version=one.resource_version,
            project=one.project,
            type=type,
            kind=self.kind,
            object_id=one.id,
            document=self._document(one),
            at=one.updated_at,
        )
