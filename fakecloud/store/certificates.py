"""Rows of certificates. Every saved change takes a resource version and leaves an event."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection

from fakecloud.domain import documents
from fakecloud.resources import Certificate
from fakecloud.store.named import Rows
from fakecloud.tables.cloud import certificate as table

rows = Rows(table, Certificate, "certificate", documents.certificate)
find, listing, living = rows.find, rows.listing, rows.living
add, save, remove = rows.add, rows.save, rows.remove


def named(connection: Connection, project: str, names: Collection[str]) -> list[Certificate]:
    """Return the certificates of these names, held until the transaction ends."""
    conditions = table.c.project == project, table.c.name.in_(set(names))
    return rows.chosen(connection, *conditions, held=True)


def expiries(connection: Connection, project: str, names: Collection[str]) -> dict[str, datetime]:
    """Return when each certificate of these names ends."""
    if not names:
        return {}
    return {one.name: one.not_after for one in named(connection, project, names)}
