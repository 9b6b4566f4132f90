"""Networks and routes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fakecloud.tables import cloud as tables

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this step."""
    for name, columns in (
        ("network", [sa.Column("ranges", sa.JSON(), nullable=False)]),
        (
            "route",
            [
                sa.Column("network", sa.Text(), nullable=False),
                sa.Column("destination", sa.Text(), nullable=False),
                sa.Column("next_hop", sa.Text(), nullable=False),
                sa.Column("state", sa.Text(), nullable=False),
                sa.Column("last_error", sa.JSON(none_as_null=True), nullable=True),
            ],
        ),
    ):
        op.create_table(
            name,
            sa.Column("id", sa.Text(), nullable=False),
            sa.Column("project", sa.Text(), nullable=False),
            sa.Column("name", sa.Text(), nullable=False),
            sa.Column("labels", sa.JSON(), nullable=False),
            *columns,
            sa.Column("resource_version", sa.BigInteger(), nullable=False),
            sa.Column("created_at", tables.UtcDateTime(), nullable=False),
            sa.Column("updated_at", tables.UtcDateTime(), nullable=False),
            sa.Column("created_version", sa.BigInteger(), nullable=False, server_default="0"),
            sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
        )
        op.create_index(f"ix_{name}_project_created_version", name, ["project", "created_version"])
        op.create_index(f"uq_{name}_project_name", name, ["project", "name"], unique=True)
    op.create_index(
        "uq_route_project_network_destination",
        "route",
        ["project", "network", "destination"],
        unique=True,
    )


def downgrade() -> None:
    """Undo this step."""
    op.drop_table("route")
    op.drop_table("network")
