"""Billing: a log of events, lines, and what is summed from them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fakecloud.tables import billing as billing_tables

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this step."""
    op.create_table(
        "attribution",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attribution")),
    )
    op.create_table(
        "billed_resource",
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("begun_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("resource", name=op.f("pk_billed_resource")),
    )
    op.create_index(
        "ix_billed_resource_account_ended_us",
        "billed_resource",
        ["account", "ended_us"],
        unique=False,
    )
    op.create_table(
        "billing_event",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("resource_kind", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("recorded_us", sa.BigInteger(), nullable=False),
        sa.Column("terms", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_billing_event")),
        sa.UniqueConstraint("id", name=op.f("uq_billing_event_id")),
    )
    op.create_index(
        "ix_billing_event_account_seq", "billing_event", ["account", "seq"], unique=False
    )
    op.create_index(
        "ix_billing_event_resource_seq", "billing_event", ["resource", "seq"], unique=False
    )
    op.create_table(
        "billing_period",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("closed_us", sa.BigInteger(), nullable=False),
        sa.Column("lines", sa.BigInteger(), nullable=False),
        sa.Column("total_pico", sa.Text(), nullable=False),
        sa.Column("root_hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "period", name=op.f("pk_billing_period")),
    )
    op.create_table(
        "billing_progress",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_billing_progress")),
    )
    op.create_table(
        "billing_seal",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_billing_seal")),
    )
    op.create_index("ix_billing_seal_account_seq", "billing_seal", ["account", "seq"], unique=False)
    op.create_table(
        "cost_day",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("attribution", sa.Text(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("price_id", sa.Text(), nullable=False),
        sa.Column("book", sa.Text(), nullable=False),
        sa.Column("quantity_micros", sa.BigInteger(), nullable=False),
        sa.Column("list_pico", sa.BigInteger(), nullable=False),
        sa.Column("billed_pico", sa.BigInteger(), nullable=False),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint(
            "account",
            "day",
            "resource",
            "attribution",
            "price_id",
            "book",
            name=op.f("pk_cost_day"),
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "line",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("price_id", sa.Text(), nullable=False),
        sa.Column("book", sa.Text(), nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=False),
        sa.Column("attribution", sa.Text(), nullable=False),
        sa.Column("quantity_micros", sa.BigInteger(), nullable=False),
        sa.Column("price_micros", sa.BigInteger(), nullable=False),
        sa.Column("billed_pico", sa.BigInteger(), nullable=False),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("corrects", sa.Text(), nullable=True),
        sa.Column("period", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_line")),
    )
    op.create_index("ix_line_account_period_id", "line", ["account", "period", "id"], unique=False)
    op.create_index("ix_line_resource_start_us", "line", ["resource", "start_us"], unique=False)
    op.create_table(
        "price_assignment",
        sa.Column(
            "pk",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("from_us", sa.BigInteger(), nullable=False),
        sa.Column("book", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_price_assignment")),
    )
    op.create_index("ix_price_assignment_from_us", "price_assignment", ["from_us"], unique=False)
    for statement in billing_tables.refuse_changes(op.get_bind().dialect.name):
        op.execute(statement)
