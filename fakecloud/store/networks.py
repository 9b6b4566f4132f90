"""Rows of networks. Every saved change takes a resource version and leaves an event."""

from __future__ import annotations

from fakecloud.domain import documents
from fakecloud.domain.routing import Network
from fakecloud.store import named
from fakecloud.tables.cloud import network as table

rows = named.Rows(table, Network, "network", documents.network)
find, listing, living = rows.find, rows.listing, rows.living
add, save, remove = rows.add, rows.save, rows.remove
