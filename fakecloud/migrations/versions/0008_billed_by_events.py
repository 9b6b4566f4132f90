"""Usage intervals go: billing events say the same, and more."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this step. Nothing was ever released that billed by intervals, so none are kept."""
    op.drop_table("usage_interval")
