"""From which day on an account's closed days are rated again, since traffic came late."""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import Connection, case, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from fakecloud.tables.billing import late_usage as table

_DIALECTS: Final = {"sqlite": sqlite, "postgresql": postgresql}


class Late(msgspec.Struct, frozen=True, kw_only=True):
    """Closed days of an account from this one on may have changed; `marks` counts how often."""

    account: str
    day: int
    marks: int


def mark(connection: Connection, account: str, day: int) -> None:
    """Say that something came late for a day; no harm is done if the day isn't closed yet."""
    made = _DIALECTS[connection.dialect.name].insert(table)
    earlier = case((table.c.day < made.excluded.day, table.c.day), else_=made.excluded.day)
    connection.execute(
        made.on_conflict_do_update(
            index_elements=[table.c.account],
            set_={"day": earlier, "marks": table.c.marks + 1},
        ),
        {"account": account, "day": day, "marks": 0},
    )


def all(connection: Connection) -> list[Late]:
    """Return what every account has to look at again."""
    rows = connection.execute(select(table).order_by(table.c.account))
    return [Late(account=row.account, day=row.day, marks=row.marks) for row in rows]


def move(connection: Connection, late: Late, to: int | None) -> bool:
    """Go on with another day, or be done; False if there is news, or another server was faster."""
    same = (
        table.c.account == late.account,
        table.c.day == late.day,
        table.c.marks == late.marks,
    )
    statement = delete(table) if to is None else update(table).values(day=to)
    return connection.execute(statement.where(*same)).rowcount == 1
