"""Fences: a writer that was deposed is refused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fakecloud.tables.cloud import UtcDateTime

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this step."""
    op.create_table(
        "fence",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name=op.f("pk_fence")),
    )
