"""Projects: the boundary between tenants."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select, true, update

from fakecloud.resources import Project
from fakecloud.tables.access import project as table
from fakecloud.tables.access import token
from fakecloud.tables.cloud import (
    certificate,
    fault,
    instance,
    load_balancer,
    network,
    reserved_address,
)

_COLUMNS = tuple(getattr(table.c, name) for name in Project.__struct_fields__)
_LIVING = {
    "load balancers": (load_balancer.c.project, load_balancer.c.deleted_at.is_(None)),
    "addresses": (reserved_address.c.project, true()),
    "certificates": (certificate.c.project, true()),
    "instances": (instance.c.project, true()),
    "networks": (network.c.project, true()),  # routes are of one
    "faults": (fault.c.project, true()),
    "tokens": (token.c.project, token.c.revoked_at.is_(None)),
}


def _value(row: Row[Any]) -> Project:
    return msgspec.convert(dict(zip(Project.__struct_fields__, row, strict=True)), Project)


def add(connection: Connection, project: Project) -> None:
    """Store a new project."""
    values = {name: getattr(project, name) for name in Project.__struct_fields__}
    connection.execute(insert(table).values(values))


def get(connection: Connection, id: str) -> Project | None:
    """Return a project, None if there is none."""
    row = connection.execute(select(*_COLUMNS).where(table.c.id == id)).first()
    return None if row is None else _value(row)


def page(connection: Connection, *, after: str, limit: int) -> list[Project]:
    """Return up to `limit` projects with an id above `after`."""
    rows = connection.execute(
        select(*_COLUMNS).where(table.c.id > after).order_by(table.c.id).limit(limit)
    )
    return [_value(row) for row in rows]


def holds(connection: Connection, id: str) -> str | None:
    """Return what a project still has, in words, None if nothing."""
    for what, (project, living) in _LIVING.items():
        query = select(project).where(project == id, living).limit(1)
        if connection.execute(query).first() is not None:
            return what
    return None


def suspended(connection: Connection) -> set[str]:
    """Return the projects that are suspended."""
    return set(connection.execute(select(table.c.id).where(table.c.suspended)).scalars())


def suspend(connection: Connection, id: str, suspended: bool) -> bool:
    """Say whether a project is suspended; False if that is known already."""
    statement = update(table).where(table.c.id == id, table.c.suspended != suspended)
    return connection.execute(statement.values(suspended=suspended)).rowcount == 1


def remove(connection: Connection, id: str) -> None:
    """Forget an empty project."""
    connection.execute(delete(table).where(table.c.id == id))
