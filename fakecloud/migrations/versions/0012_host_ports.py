"""Host ports: which port of the published range leads to which listener."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fakecloud.tables.cloud import UtcDateTime

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this step."""
    op.create_table(
        "host_port",
        sa.Column("transport", sa.Text(), nullable=False),
        sa.Column("host_port", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("load_balancer", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("given_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("transport", "host_port", name=op.f("pk_host_port")),
    )
    op.create_index("ix_host_port_load_balancer", "host_port", ["project", "load_balancer"])
    with op.batch_alter_table("load_balancer") as batch:
        batch.add_column(sa.Column("host_ports", sa.JSON(), nullable=False, server_default="[]"))
