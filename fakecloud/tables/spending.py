"""The tables of what watches over spending: inventories of clusters, budgets, webhooks.

Business times are microseconds of Unix time (`…_us`), others wall time; money is pico-units.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
)

from fakecloud.tables.cloud import UtcDateTime, metadata

# What a cluster said it has, and until when it is believed.
inventory = Table(
    "inventory",
    metadata,
    Column("project", Text, nullable=False),
    Column("cluster_uid", Text, nullable=False),
    Column("services", JSON, nullable=False),
    Column("taken_at", UtcDateTime, nullable=False),  # wall time
    Column("lease_until", UtcDateTime, nullable=False),  # wall time
    Column("taken_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("project", "cluster_uid"),
)

budget = Table(
    "budget",
    metadata,
    Column("project", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("labels", JSON, nullable=False),  # the scope: what has all of these
    Column("amount_pico", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("period", Text, nullable=False),  # day, week, month
    Column("thresholds", JSON, nullable=False),  # percent
    Column("basis", Text, nullable=False),  # actual, forecast
    Column("kind", Text, nullable=False),  # soft, hard
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    # Found by the evaluation:
    Column("evaluated_us", BigInteger),
    Column("spent_pico", BigInteger, nullable=False),
    Column("forecast_pico", BigInteger, nullable=False),
    Column("exceeded_until_us", BigInteger, nullable=False),  # 0: it isn't
    PrimaryKeyConstraint("project", "name"),
)

# A threshold that was passed: its key lets it fire once in a period, whoever evaluates.
budget_alert = Table(
    "budget_alert",
    metadata,
    Column("project", Text, nullable=False),
    Column("budget", Text, nullable=False),
    Column("period_us", BigInteger, nullable=False),
    Column("threshold", Integer, nullable=False),
    Column("basis", Text, nullable=False),
    Column("fired_us", BigInteger, nullable=False),
    Column("amount_pico", BigInteger, nullable=False),
    PrimaryKeyConstraint("project", "budget", "period_us", "threshold", "basis"),
)

webhook = Table(
    "webhook",
    metadata,
    Column("project", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),  # needed to sign; no answer of the API shows it again
    Column("enabled", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("project", "name"),
)

webhook_delivery = Table(
    "webhook_delivery",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("webhook", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("status", Text, nullable=False),  # PENDING, DELIVERED, FAILED
    Column("attempts", Integer, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),  # wall time
    Column("created_at", UtcDateTime, nullable=False),  # wall time
    Column("answer", Text),  # the latest status or failure
    Index("ix_webhook_delivery_status_due_at", "status", "due_at"),
    Index("ix_webhook_delivery_project_webhook", "project", "webhook"),
)
