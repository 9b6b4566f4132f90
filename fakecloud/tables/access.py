"""The tables of who may ask, for what and how much, and of what was asked."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, Table, Text

from fakecloud.tables.cloud import Key, UtcDateTime, metadata

token = Table(
    "token",
    metadata,
    Column("id", Text, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("prefix", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("scopes", JSON, nullable=False, server_default='["admin"]'),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    Index("ix_token_prefix", "prefix"),
    Index("ix_token_project", "project"),
)

project = Table(
    "project",
    metadata,
    Column("id", Text, primary_key=True),
    Column("description", Text, nullable=False),
    Column("suspended", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

# A counter per project and metric, changed only by conditional updates: `used` never passes
# `most` (None: unlimited).
quota = Table(
    "quota",
    metadata,
    Column("project", Text, primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("most", BigInteger),
    Column("used", BigInteger, nullable=False),
)

# The answer to a mutation, stored in the mutation's own transaction under the caller's key.
idempotency_key = Table(
    "idempotency_key",
    metadata,
    Column("project", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("headers", JSON, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),  # wall time
    Index("ix_idempotency_key_created_at", "created_at"),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", Key, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("project", Text, nullable=False),
    Column("token_id", Text, nullable=False),
    Column("client", Text, nullable=False),  # where the request came from
    Column("method", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("code", Text),  # of the problem, when the request was refused
    Column("request_id", Text, nullable=False),
    Column("body_sha256", Text, nullable=False),
    Column("diff_sha256", Text),  # of the events that it made
    Column("fault_id", Text),  # the fault that disturbed it
    Column("previous", Text, nullable=False),  # hash of the record before, so that none can go
    Column("hash", Text, nullable=False),
    Index("ix_audit_project_seq", "project", "seq"),
)

# The newest record that was trimmed: the chain goes on from its hash. Triggers let `seq` only rise,
# and records go only up to it.
audit_floor = Table(
    "audit_floor",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
)
