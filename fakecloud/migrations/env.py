"""Alembic's entry: runs the migrations on the connection that the caller gives."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

# Their tables are in the metadata when they are imported.
from fakecloud.tables import access, billing, spending, traffic  # noqa: F401
from fakecloud.tables.cloud import UtcDateTime, metadata


def _render_item(type_: str, item: Any, _context: Any) -> str | Literal[False]:
    """Write our own column type by its name in `tables`."""
    if type_ == "type" and isinstance(item, UtcDateTime):
        return "tables.UtcDateTime()"
    return False


def _compare_type(
    _context: Any, _inspected: Any, _column: Any, _in_db: Any, ours: Any
) -> bool | None:
    return False if isinstance(ours, UtcDateTime) else None


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=False,
    compare_type=_compare_type,
    render_item=_render_item,
)
with context.begin_transaction():
    context.run_migrations()
