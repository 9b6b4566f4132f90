"""The tables of what load balancers carry, and of what their hosts see of them."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, Table, Text

from fakecloud.tables.cloud import UtcDateTime, metadata

# The latest totals of each listener; they only grow while the epoch lasts.
usage_counter = Table(
    "usage_counter",
    metadata,
    Column("load_balancer_id", Text, ForeignKey("load_balancer.id"), primary_key=True),
    Column("listener", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("at", UtcDateTime, nullable=False),  # business time
    Column("active", BigInteger, nullable=False),
    Column("connections", BigInteger, nullable=False),
    Column("bytes_in", BigInteger, nullable=False),
    Column("bytes_out", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("gaps", BigInteger, nullable=False),
)


# What each listener carried in an hour of business time.
usage_hour = Table(
    "usage_hour",
    metadata,
    Column("load_balancer_id", Text, ForeignKey("load_balancer.id"), primary_key=True),
    Column("listener", Text, primary_key=True),
    Column("hour", UtcDateTime, primary_key=True),
    Column("project", Text, nullable=False),
    Column("connections", BigInteger, nullable=False),
    Column("bytes_in", BigInteger, nullable=False),
    Column("bytes_out", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("connection_us", BigInteger, nullable=False),  # active connections times microseconds
    Column("estimated", Boolean, nullable=False),  # part of it was shared out by time, or lost
    Index("ix_usage_hour_project_hour", "project", "hour"),
    Index("ix_usage_hour_hour", "hour"),
)


# How often anything was added to a project's hour: what was reckoned from hours whose marks are
# the same still holds.
usage_mark = Table(
    "usage_mark",
    metadata,
    Column("project", Text, primary_key=True),
    Column("hour", UtcDateTime, primary_key=True),
    Column("marks", BigInteger, nullable=False),
)

# What the host that runs a load balancer sees of it, for the other hosts.
runtime_view = Table(
    "runtime_view",
    metadata,
    Column("load_balancer_id", Text, ForeignKey("load_balancer.id"), primary_key=True),
    Column("host", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),  # wall time
    Column("counters", JSON, nullable=False),
    Column("configuration", Text, nullable=False),
    Column("log", JSON, nullable=False),
)
