"""Many rows into a table by one statement.

SQLite runs a prepared statement for each row, inside the process: nothing is faster. For
PostgreSQL all rows are one JSON parameter: one round trip, and a statement that is the same, and
prepared, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final

import msgspec
from sqlalchemy import (
    JSON,
    Connection,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    insert,
    select,
)
from sqlalchemy.sql.dml import Insert

from fakecloud.tables.cloud import microseconds

ROWS: Final = "rows"
"""The parameter of `selection`."""
_insertion: Final = cache(insert)


def insert_all(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows of values as the table's types take them; all have the same columns."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(_insertion(table), rows)
    else:
        connection.execute(_from_json(table, tuple(rows[0])), {ROWS: encoded(rows)})


@cache
def _from_json(table: Table, names: tuple[str, ...]) -> Insert:
    return insert(table).from_select(names, selection(table, names))


def selection(table: Table, names: Iterable[str]) -> Select[Any]:
    """Return PostgreSQL's query of these columns of the rows in the parameter `ROWS`."""
    columns = [column(name, table.c[name].type) for name in names]
    given = cast(bindparam(ROWS, type_=Text), JSON)
    found = func.json_to_recordset(given).table_valued(*columns).render_derived(with_types=True)
    return select(*found.c)


def encoded(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as `selection` reads them."""
    plain = [
        {
            name: microseconds(value) if isinstance(value, datetime) else value
            for name, value in row.items()
        }
        for row in rows
    ]
    return msgspec.json.encode(plain).decode()
