"""Rows of instances. Every saved change takes a resource version and leaves an event."""

from __future__ import annotations

from fakecloud.domain import documents
from fakecloud.resources import Instance
from fakecloud.store import named
from fakecloud.tables.cloud import instance as table

rows = named.Rows(table, Instance, "instance", documents.instance)
find, listing, living = rows.find, rows.listing, rows.living
add, save, remove = rows.add, rows.save, rows.remove
