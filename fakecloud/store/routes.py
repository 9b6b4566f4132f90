"""Rows of routes. Every saved change takes a resource version and leaves an event."""

from __future__ import annotations

from sqlalchemy import Connection

from fakecloud.domain import documents
from fakecloud.domain.routing import Route
from fakecloud.store import named
from fakecloud.tables.cloud import route as table

rows = named.Rows(table, Route, "route", documents.route)
find, listing, living = rows.find, rows.listing, rows.living
add, save, remove = rows.add, rows.save, rows.remove


def of_network(connection: Connection, project: str, network: str) -> list[Route]:
    """Return every route of a network, by its name."""
    return rows.chosen(connection, table.c.project == project, table.c.network == network)


def leading_to(
    connection: Connection, project: str, network: str, destination: str
) -> Route | None:
    """Return the route of a network to exactly this destination, None if there is none."""
    found = rows.chosen(
        connection,
        table.c.project == project,
        table.c.network == network,
        table.c.destination == destination,
    )
    return found[0] if found else None


def everyones(connection: Connection) -> list[Route]:
    """Return every route of all projects, the oldest first."""
    return rows.chosen(connection, order_by="created_version")


def get(connection: Connection, id: str) -> Route | None:
    """Return the route of that id, None if it is gone."""
    found = rows.chosen(connection, table.c.id == id)
    return found[0] if found else None
