"""The highest fence that each line of writers has written with."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, update

from fakecloud.tables.cloud import fence as table

MOST: Final = 1000
"""Of one project; beyond that the one that grew longest ago is forgotten."""


def raise_to(connection: Connection, project: str, name: str, number: int, at: datetime) -> int:
    """Return the highest number seen under `name`; `number` counts as seen if it is the highest.

    A writer with a higher one waits until this transaction is over, and the other way round.
    """
    here = (table.c.project == project) & (table.c.name == name)
    seen: int | None = connection.execute(
        select(table.c.number).where(here).with_for_update(read=True)
    ).scalar()
    if seen is None:
        _make_room(connection, project)
        values = {"project": project, "name": name, "number": number, "at": at}
        connection.execute(insert(table).values(values))
    elif seen < number:
        connection.execute(update(table).where(here).values(number=number, at=at))
    return max(number, seen or 0)


def _make_room(connection: Connection, project: str) -> None:
    mine = table.c.project == project
    count = connection.execute(select(func.count()).select_from(table).where(mine)).scalar_one()
    if count >= MOST:
        oldest = select(table.c.name).where(mine).order_by(table.c.at).limit(1).scalar_subquery()
        connection.execute(delete(table).where(mine, table.c.name == oldest))
