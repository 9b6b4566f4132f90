"""${message}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fakecloud.tables import cloud as tables

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this step."""
    ${upgrades if upgrades else "pass"}
