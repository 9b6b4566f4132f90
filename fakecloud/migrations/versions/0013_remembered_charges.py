"""Marks that tell whether what was reckoned from traffic and closed days still holds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fakecloud.tables.cloud import UtcDateTime

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this step."""
    op.create_table(
        "usage_mark",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("hour", UtcDateTime(), nullable=False),
        sa.Column("marks", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "hour", name=op.f("pk_usage_mark")),
    )
    op.drop_index("ix_line_resource_start_us", table_name="line")
    op.create_index("ix_line_account_start_us", "line", ["account", "start_us"])
    with op.batch_alter_table("billing_progress") as batch:
        batch.add_column(sa.Column("corrections", sa.Integer(), nullable=False, server_default="0"))
