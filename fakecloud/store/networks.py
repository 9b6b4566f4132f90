"""Rows of networks. Every saved change takes a resource version and leaves an event."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from fakecloud import documents
from fakecloud.routing import Network
from fakecloud.store import events, listings
from fakecloud.tables import network as table

_NAMES = Network.__struct_fields__
_COLUMNS = tuple(getattr(table.c, name) for name in _NAMES)


def _value(row: Row[Any]) -> Network:
    return msgspec.convert(dict(zip(_NAMES, row, strict=True)), Network)


def find(connection: Connection, project: str, name: str) -> Network | None:
    """Return the network of that name or id, None if the project has none."""
    row = connection.execute(
        select(*_COLUMNS).where(
            table.c.project == project, or_(table.c.name == name, table.c.id == name)
        )
    ).first()
    return None if row is None else _value(row)


def listing(
    connection: Connection, project: str, page: listings.Page
) -> list[tuple[listings.Key, Network]]:
    """Return a page of networks of a project with their keys."""
    found = listings.find(connection, table, project, page, _NAMES)
    return [(key, _value(row)) for key, row in found]


def living(connection: Connection, project: str) -> list[Network]:
    """Return every network of a project."""
    rows = connection.execute(
        select(*_COLUMNS).where(table.c.project == project).order_by(table.c.id)
    )
    return [_value(row) for row in rows]


def everyones(connection: Connection) -> list[Network]:
    """Return every network of all projects."""
    return [_value(row) for row in connection.execute(select(*_COLUMNS).order_by(table.c.id))]


def add(connection: Connection, network: Network) -> Network:
    """Insert a network with its event; return it with its resource version."""
    made = msgspec.structs.replace(network, resource_version=events.next_version(connection))
    values = _values(made) | {"created_version": made.resource_version}
    connection.execute(insert(table).values(values))
    _record(connection, made, "ADDED")
    return made


def save(connection: Connection, network: Network) -> Network:
    """Write a changed network with its event; return it with its resource version."""
    made = msgspec.structs.replace(network, resource_version=events.next_version(connection))
    connection.execute(update(table).where(table.c.id == made.id).values(_values(made)))
    _record(connection, made, "MODIFIED")
    return made


def remove(connection: Connection, network: Network) -> None:
    """Delete a network with its event."""
    gone = msgspec.structs.replace(network, resource_version=events.next_version(connection))
    connection.execute(delete(table).where(table.c.id == gone.id))
    _record(connection, gone, "DELETED")


def _values(network: Network) -> dict[str, Any]:
    values = {name: getattr(network, name) for name in _NAMES}
    return values | {"ranges": list(network.ranges)}


def _record(connection: Connection, network: Network, type: str) -> None:
    events.append(
        connection,
        resource_version=network.resource_version,
        project=network.project,
        type=type,
        kind="network",
        object_id=network.id,
        document=documents.network(network),
        at=network.updated_at,
    )
