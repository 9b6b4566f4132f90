"""Rows of instances. Every saved change takes a resource version and leaves an event."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from fakecloud import documents
from fakecloud.resources import Instance
from fakecloud.store import events, listings
from fakecloud.tables import instance as table

_NAMES = Instance.__struct_fields__
_COLUMNS = tuple(getattr(table.c, name) for name in _NAMES)


def _value(row: Row[Any]) -> Instance:
    return msgspec.convert(dict(zip(_NAMES, row, strict=True)), Instance)


def find(connection: Connection, project: str, name: str) -> Instance | None:
    """Return the instance of that name or id, None if the project has none."""
    row = connection.execute(
        select(*_COLUMNS).where(
            table.c.project == project, or_(table.c.name == name, table.c.id == name)
        )
    ).first()
    return None if row is None else _value(row)


def listing(
    connection: Connection, project: str, page: listings.Page
) -> list[tuple[listings.Key, Instance]]:
    """Return a page of instances of a project with their keys."""
    found = listings.find(connection, table, project, page, _NAMES)
    return [(key, _value(row)) for key, row in found]


def living(connection: Connection, project: str) -> list[Instance]:
    """Return every instance of a project."""
    rows = connection.execute(
        select(*_COLUMNS).where(table.c.project == project).order_by(table.c.id)
    )
    return [_value(row) for row in rows]


def add(connection: Connection, instance: Instance) -> Instance:
    """Insert an instance with its event; return it with its resource version."""
    made = msgspec.structs.replace(instance, resource_version=events.next_version(connection))
    values = _values(made) | {"created_version": made.resource_version}
    connection.execute(insert(table).values(values))
    _record(connection, made, "ADDED")
    return made


def save(connection: Connection, instance: Instance) -> Instance:
    """Write a changed instance with its event; return it with its resource version."""
    made = msgspec.structs.replace(instance, resource_version=events.next_version(connection))
    connection.execute(update(table).where(table.c.id == made.id).values(_values(made)))
    _record(connection, made, "MODIFIED")
    return made


def remove(connection: Connection, instance: Instance) -> None:
    """Delete an instance with its event."""
    gone = msgspec.structs.replace(instance, resource_version=events.next_version(connection))
    connection.execute(delete(table).where(table.c.id == gone.id))
    _record(connection, gone, "DELETED")


def _values(instance: Instance) -> dict[str, Any]:
    values = {name: getattr(instance, name) for name in _NAMES}
    return values | {"addresses": msgspec.to_builtins(instance.addresses)}


def _record(connection: Connection, instance: Instance, type: str) -> None:
    events.append(
        connection,
        resource_version=instance.resource_version,
        project=instance.project,
        type=type,
        kind="instance",
        object_id=instance.id,
        document=documents.instance(instance),
        at=instance.updated_at,
    )
