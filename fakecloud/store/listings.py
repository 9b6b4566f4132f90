"""Pages of rows in a chosen order, after a key: the same few lines for every kind of list."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Row,
    Select,
    Table,
    select,
    tuple_,
    type_coerce,
)

from fakecloud.tables import cloud as tables

Key = tuple[int | str, ...]

# A page is found by the values of these columns; the last of them tells equals apart. What is
# created is listed in the order of commits: by time, one of the same moment as the end of a page
# could come before it and be seen on no page.
ORDERS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "load_balancer": {
        "created_at": ("pk",),
        "name": ("name",),
        "updated_at": ("updated_at", "pk"),
    },
    "operation": {"created_at": ("created_version",), "updated_at": ("updated_at", "id")},
    "reserved_address": {
        "created_at": ("created_version",),
        "name": ("name",),
        "updated_at": ("updated_at", "id"),
    },
    "certificate": {
        "created_at": ("created_version",),
        "name": ("name",),
        "updated_at": ("updated_at", "id"),
    },
    "instance": {
        "created_at": ("created_version",),
        "name": ("name",),
        "updated_at": ("updated_at", "id"),
    },
    "network": {
        "created_at": ("created_version",),
        "name": ("name",),
        "updated_at": ("updated_at", "id"),
    },
    "route": {
        "created_at": ("created_version",),
        "name": ("name",),
        "updated_at": ("updated_at", "id"),
    },
}
_PLAIN_LABEL = re.compile(r"[A-Za-z0-9._/-]{1,253}")


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows: in what order, after which key (None: from the start), and how many.

    columns: those that must equal a value; labels: those that must be there with that value.
    """

    order: str
    descending: bool = False
    after: Key | None = None
    limit: int = 100
    columns: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


def find(
    connection: Connection, table: Table, project: str, page: Page, names: tuple[str, ...]
) -> list[tuple[Key, Row[Any]]]:
    """Return rows of a project with their keys; `names` are the columns of each row."""
    keys = [_plain(table.c[name]) for name in ORDERS[table.name][page.order]]
    statement = select(*keys, *(table.c[name] for name in names)).where(
        table.c.project == project, *(table.c[name] == value for name, value in page.columns)
    )
    if "deleted_at" in table.c:
        statement = statement.where(table.c.deleted_at.is_(None))
    for label, value in page.labels if "labels" in table.c else ():
        if _PLAIN_LABEL.fullmatch(label):  # any other would need quoting inside a JSON path
            statement = statement.where(table.c.labels[label].as_string() == value)
    statement = _ordered(statement, keys, page)
    size = len(keys)
    return [(tuple(row[:size]), row[size:]) for row in connection.execute(statement)]  # type: ignore[misc]


def _ordered(statement: Select[Any], keys: list[Any], page: Page) -> Select[Any]:
    if page.after is not None:
        if page.descending:
            statement = statement.where(tuple_(*keys) < tuple_(*page.after))
        else:
            statement = statement.where(tuple_(*keys) > tuple_(*page.after))
    by = [key.desc() if page.descending else key.asc() for key in keys]
    return statement.order_by(*by).limit(page.limit)


def _plain(column: Column[Any]) -> Any:
    """Return a column whose values can stand in a page token."""
    return (
        type_coerce(column, BigInteger) if isinstance(column.type, tables.UtcDateTime) else column
    )
