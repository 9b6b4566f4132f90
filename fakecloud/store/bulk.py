"""Many rows into tables at once.

SQLite runs a prepared statement for each row, inside the process: nothing is faster. For
PostgreSQL all rows of a table are one JSON parameter and all tables one statement: one round trip,
and a statement that is the same, and prepared, however many rows there are.
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
"""The parameter of `selection`, unless it is told another."""
_insertion: Final = cache(insert)


def insert_all(connection: Connection, rows: Mapping[Table, Sequence[Mapping[str, Any]]]) -> None:
    """Insert rows of values as the tables' types take them; a table's have the same columns."""
    filled = {table: found for table, found in rows.items() if found}
    if connection.dialect.name == "sqlite":
        for table, found in filled.items():
            connection.execute(_insertion(table), found)
    elif filled:
        shapes = tuple((table, tuple(found[0])) for table, found in filled.items())
        values = {f"{ROWS}_{n}": encoded(found) for n, found in enumerate(filled.values())}
        connection.execute(_from_json(shapes), values)


@cache
def _from_json(shapes: tuple[tuple[Table, tuple[str, ...]], ...]) -> Insert:
    """Return the insertion into the last table that inserts into those before it, too."""
    *before, last = (
        insert(table).from_select(names, selection(table, names, f"{ROWS}_{n}"))
        for n, (table, names) in enumerate(shapes)
    )
    return last.add_cte(*(one.cte(f"insertion_{n}") for n, one in enumerate(before)))


def selection(table: Table, names: Iterable[str], parameter: str = ROWS) -> Select[Any]:
    """Return PostgreSQL's query of these columns of the rows in `parameter`."""
    columns = [column(name, table.c[name].type) for name in names]
    given = cast(bindparam(parameter, type_=Text), JSON)
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
