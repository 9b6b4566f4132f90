"""What clusters said they have."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from fakecloud.tables.spending import inventory as table

_DIALECTS: Final = {"sqlite": sqlite, "postgresql": postgresql}


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """UIDs of the Services of a cluster that want load balancers; moments are wall time.

    taken_us: when it was taken in business time, microseconds of Unix time.
    """

    cluster_uid: str
    services: frozenset[str]
    taken_at: datetime
    lease_until: datetime
    taken_us: int


def put(connection: Connection, project: str, found: Inventory) -> None:
    """Replace what a cluster said before."""
    values = {
        "project": project,
        "cluster_uid": found.cluster_uid,
        "services": sorted(found.services),
        "taken_at": found.taken_at,
        "lease_until": found.lease_until,
        "taken_us": found.taken_us,
    }
    statement = _DIALECTS[connection.dialect.name].insert(table).values(values)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[table.c.project, table.c.cluster_uid], set_=values
        )
    )


def of_project(connection: Connection, project: str) -> dict[str, Inventory]:
    """Return what every cluster of a project said last, by its UID."""
    names = Inventory.__struct_fields__
    rows = connection.execute(
        select(*(table.c[name] for name in names)).where(table.c.project == project)
    )
    found = (msgspec.convert(dict(zip(names, row, strict=True)), Inventory) for row in rows)
    return {one.cluster_uid: one for one in found}


def find(connection: Connection, project: str, cluster_uid: str) -> Inventory | None:
    """Return what a cluster said last, None if it never did."""
    names = Inventory.__struct_fields__
    row = connection.execute(
        select(*(table.c[name] for name in names)).where(
            table.c.project == project, table.c.cluster_uid == cluster_uid
        )
    ).first()
    return None if row is None else msgspec.convert(dict(zip(names, row, strict=True)), Inventory)


def count(connection: Connection, project: str) -> int:
    """Return how many clusters of a project have said something."""
    found: int = connection.execute(
        select(func.count()).select_from(table).where(table.c.project == project)
    ).scalar_one()
    return found


def remove(connection: Connection, project: str, cluster_uid: str) -> bool:
    """Forget a cluster; False if it isn't known."""
    return (
        connection.execute(
            delete(table).where(table.c.project == project, table.c.cluster_uid == cluster_uid)
        ).rowcount
        == 1
    )
