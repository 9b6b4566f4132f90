"""Rows of certificates. Every saved change takes a resource version and leaves an event."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from fakecloud import documents
from fakecloud.resources import Certificate
from fakecloud.store import events, listings
from fakecloud.tables import certificate as table

_NAMES = Certificate.__struct_fields__
_COLUMNS = tuple(getattr(table.c, name) for name in _NAMES)


def _value(row: Row[Any]) -> Certificate:
    return msgspec.convert(dict(zip(_NAMES, row, strict=True)), Certificate)


def find(
    connection: Connection, project: str, name: str, *, for_update: bool = False
) -> Certificate | None:
    """Return the certificate of that name or id, None if the project has none."""
    statement = select(*_COLUMNS).where(
        table.c.project == project, or_(table.c.name == name, table.c.id == name)
    )
    row = connection.execute(statement.with_for_update() if for_update else statement).first()
    return None if row is None else _value(row)


def named(connection: Connection, project: str, names: Collection[str]) -> list[Certificate]:
    """Return the certificates of these names, held until the transaction ends."""
    statement = select(*_COLUMNS).where(table.c.project == project, table.c.name.in_(set(names)))
    return [_value(row) for row in connection.execute(statement.with_for_update(read=True))]


def expiries(connection: Connection, project: str, names: Collection[str]) -> dict[str, datetime]:
    """Return when each certificate of these names ends."""
    if not names:
        return {}
    return {one.name: one.not_after for one in named(connection, project, names)}


def listing(
    connection: Connection, project: str, page: listings.Page
) -> list[tuple[listings.Key, Certificate]]:
    """Return a page of certificates of a project with their keys."""
    found = listings.find(connection, table, project, page, _NAMES)
    return [(key, _value(row)) for key, row in found]


def living(connection: Connection, project: str | None = None) -> list[Certificate]:
    """Return every certificate, of one project or of all."""
    statement = select(*_COLUMNS).order_by(table.c.id)
    if project is not None:
        statement = statement.where(table.c.project == project)
    return [_value(row) for row in connection.execute(statement)]


def add(connection: Connection, certificate: Certificate) -> Certificate:
    """Insert a certificate with its event; return it with its resource version."""
    version = events.next_version(connection)
    made = msgspec.structs.replace(certificate, resource_version=version)
    connection.execute(insert(table).values(_values(made) | {"created_version": version}))
    _record(connection, made, "ADDED")
    return made


def save(connection: Connection, certificate: Certificate) -> Certificate:
    """Write a changed certificate with its event; return it with its resource version."""
    made = msgspec.structs.replace(certificate, resource_version=events.next_version(connection))
    connection.execute(update(table).where(table.c.id == made.id).values(_values(made)))
    _record(connection, made, "MODIFIED")
    return made


def remove(connection: Connection, certificate: Certificate) -> None:
    """Delete a certificate with its event."""
    gone = msgspec.structs.replace(certificate, resource_version=events.next_version(connection))
    connection.execute(delete(table).where(table.c.id == gone.id))
    _record(connection, gone, "DELETED")


def _values(certificate: Certificate) -> dict[str, Any]:
    values = {name: getattr(certificate, name) for name in _NAMES}
    return values | {"hosts": list(certificate.hosts)}


def _record(connection: Connection, certificate: Certificate, type: str) -> None:
    events.append(
        connection,
        resource_version=certificate.resource_version,
        project=certificate.project,
        type=type,
        kind="certificate",
        object_id=certificate.id,
        document=documents.certificate(certificate),
        at=certificate.updated_at,
    )
