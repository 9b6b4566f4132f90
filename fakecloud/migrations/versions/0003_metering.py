"""What load balancers carry."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fakecloud.tables import cloud as tables

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this step."""
    op.create_table(
        "usage_counter",
        sa.Column("load_balancer_id", sa.Text(), nullable=False),
        sa.Column("listener", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("at", tables.UtcDateTime(), nullable=False),
        *_counts("active", "connections", "bytes_in", "bytes_out", "requests", "gaps"),
        sa.ForeignKeyConstraint(
            ["load_balancer_id"],
            ["load_balancer.id"],
            name=op.f("fk_usage_counter_load_balancer_id"),
        ),
        sa.PrimaryKeyConstraint(
            "load_balancer_id", "listener", "epoch", name=op.f("pk_usage_counter")
        ),
    )
    op.create_table(
        "usage_hour",
        sa.Column("load_balancer_id", sa.Text(), nullable=False),
        sa.Column("listener", sa.Text(), nullable=False),
        sa.Column("hour", tables.UtcDateTime(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        *_counts("connections", "bytes_in", "bytes_out", "requests", "connection_us"),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["load_balancer_id"],
            ["load_balancer.id"],
            name=op.f("fk_usage_hour_load_balancer_id"),
        ),
        sa.PrimaryKeyConstraint("load_balancer_id", "listener", "hour", name=op.f("pk_usage_hour")),
    )
    op.create_index("ix_usage_hour_project_hour", "usage_hour", ["project", "hour"])
    op.create_index("ix_usage_hour_hour", "usage_hour", ["hour"])
    op.create_table(
        "runtime_view",
        sa.Column("load_balancer_id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("at", tables.UtcDateTime(), nullable=False),
        sa.Column("counters", sa.JSON(), nullable=False),
        sa.Column("configuration", sa.Text(), nullable=False),
        sa.Column("log", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["load_balancer_id"],
            ["load_balancer.id"],
            name=op.f("fk_runtime_view_load_balancer_id"),
        ),
        sa.PrimaryKeyConstraint("load_balancer_id", name=op.f("pk_runtime_view")),
    )


def _counts(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]
