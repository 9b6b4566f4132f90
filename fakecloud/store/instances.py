"""Rows of instances. Every saved change takes a resource version and leaves an event."""

from __future__ import annotations

from fakecloud.domain import documents
from fakecloud.resources import Instance
from fakecloud.store import named
from fakecloud.tables.cloud import instance as table

_rows = named.Rows(table, Instance, "instance", documents.instance)
find, listing, living = _rows.find, _rows.listing, _rows.living
add, save, remove = _rows.add, _rows.save, _rows.remove
