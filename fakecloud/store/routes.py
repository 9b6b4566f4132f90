"""Rows of routes. Every saved change takes a resource version and leaves an event."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from fakecloud import documents
from fakecloud.routing import Route
from fakecloud.store import events, listings
from fakecloud.tables import route as table

_NAMES = Route.__struct_fields__
_COLUMNS = tuple(getattr(table.c, name) for name in _NAMES)


def _value(row: Row[Any]) -> Route:
    return msgspec.convert(dict(zip(_NAMES, row, strict=True)), Route)


def find(connection: Connection, project: str, name: str) -> Route | None:
    """Return the route of that name or id, None if the project has none."""
    row = connection.execute(
        select(*_COLUMNS).where(
            table.c.project == project, or_(table.c.name == name, table.c.id == name)
        )
    ).first()
    return None if row is None else _value(row)


def listing(
    connection: Connection, project: str, page: listings.Page
) -> list[tuple[listings.Key, Route]]:
    """Return a page of routes of a project with their keys."""
    found = listings.find(connection, table, project, page, _NAMES)
    return [(key, _value(row)) for key, row in found]


def living(connection: Connection, project: str) -> list[Route]:
    """Return every route of a project."""
    rows = connection.execute(
        select(*_COLUMNS).where(table.c.project == project).order_by(table.c.id)
    )
    return [_value(row) for row in rows]


def of_network(connection: Connection, project: str, network: str) -> list[Route]:
    """Return every route of a network, by its name."""
    rows = connection.execute(
        select(*_COLUMNS)
        .where(table.c.project == project, table.c.network == network)
        .order_by(table.c.id)
    )
    return [_value(row) for row in rows]


def leading_to(
    connection: Connection, project: str, network: str, destination: str
) -> Route | None:
    """Return the route of a network to exactly this destination, None if there is none."""
    row = connection.execute(
        select(*_COLUMNS).where(
            table.c.project == project,
            table.c.network == network,
            table.c.destination == destination,
        )
    ).first()
    return None if row is None else _value(row)


def everyones(connection: Connection) -> list[Route]:
    """Return every route of all projects, the oldest first."""
    rows = connection.execute(select(*_COLUMNS).order_by(table.c.created_version))
    return [_value(row) for row in rows]


def get(connection: Connection, id: str) -> Route | None:
    """Return the route of that id, None if it is gone."""
    row = connection.execute(select(*_COLUMNS).where(table.c.id == id)).first()
    return None if row is None else _value(row)


def add(connection: Connection, route: Route) -> Route:
    """Insert a route with its event; return it with its resource version."""
    made = msgspec.structs.replace(route, resource_version=events.next_version(connection))
    values = _values(made) | {"created_version": made.resource_version}
    connection.execute(insert(table).values(values))
    _record(connection, made, "ADDED")
    return made


def save(connection: Connection, route: Route) -> Route:
    """Write a changed route with its event; return it with its resource version."""
    made = msgspec.structs.replace(route, resource_version=events.next_version(connection))
    connection.execute(update(table).where(table.c.id == made.id).values(_values(made)))
    _record(connection, made, "MODIFIED")
    return made


def remove(connection: Connection, route: Route) -> None:
    """Delete a route with its event."""
    gone = msgspec.structs.replace(route, resource_version=events.next_version(connection))
    connection.execute(delete(table).where(table.c.id == gone.id))
    _record(connection, gone, "DELETED")


def _values(route: Route) -> dict[str, Any]:
    values = {name: getattr(route, name) for name in _NAMES}
    return values | {"last_error": msgspec.to_builtins(route.last_error)}


def _record(connection: Connection, route: Route, type: str) -> None:
    events.append(
        connection,
        resource_version=route.resource_version,
        project=route.project,
        type=type,
        kind="route",
        object_id=route.id,
        document=documents.route(route),
        at=route.updated_at,
    )
