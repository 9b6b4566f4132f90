"""Certificates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fakecloud.tables import cloud as tables

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this step."""
    op.create_table(
        "certificate",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("sealed_key", sa.Text(), nullable=False),
        sa.Column("hosts", sa.JSON(), nullable=False),
        sa.Column("not_before", tables.UtcDateTime(), nullable=False),
        sa.Column("not_after", tables.UtcDateTime(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("resource_version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(), nullable=False),
        sa.Column("updated_at", tables.UtcDateTime(), nullable=False),
        sa.Column("created_version", sa.BigInteger(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_certificate")),
    )
    op.create_index(
        "ix_certificate_project_created_version", "certificate", ["project", "created_version"]
    )
    op.create_index("uq_certificate_project_name", "certificate", ["project", "name"], unique=True)


def downgrade() -> None:
    """Undo this step."""
    op.drop_table("certificate")
