"""Rows of networks. Every saved change takes a resource version and leaves an event."""

from __future__ import annotations

from fakecloud.domain import documents
from fakecloud.domain.routing import Network
from fakecloud.store import named
from fakecloud.tables.cloud import network as table

_rows = named.Rows(table, Network, "network", documents.network)
find, listing, living = _rows.find, _rows.listing, _rows.living
add, save, remove = _rows.add, _rows.save, _rows.remove
