"""Tenants, clock, faults, hosts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fakecloud.tables import cloud as tables

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this step."""
    op.create_table(
        "audit",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("at", tables.UtcDateTime(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("token_id", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("body_sha256", sa.Text(), nullable=False),
        sa.Column("previous", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_project_seq", "audit", ["project", "seq"], unique=False)
    op.create_table(
        "clock",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("rate", sa.BigInteger(), nullable=False),
        sa.Column("anchor_sim", tables.UtcDateTime(), nullable=False),
        sa.Column("anchor_wall", tables.UtcDateTime(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("target", tables.UtcDateTime(), nullable=True),
        sa.Column("origin", tables.UtcDateTime(), nullable=True),
        sa.Column("operation", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clock")),
    )
    op.create_table(
        "fault",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("layer", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("match", sa.JSON(), nullable=False),
        sa.Column("trigger", sa.JSON(), nullable=False),
        sa.Column("action", sa.JSON(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("looks", sa.BigInteger(), nullable=False),
        sa.Column("hits", sa.BigInteger(), nullable=False),
        sa.Column("max_hits", sa.BigInteger(), nullable=True),
        sa.Column("created_at", tables.UtcDateTime(), nullable=False),
        sa.Column("expires_at", tables.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fault")),
    )
    op.create_index("ix_fault_project", "fault", ["project"], unique=False)
    op.create_table(
        "fault_hit",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("fault_id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("at", tables.UtcDateTime(), nullable=False),
        sa.Column("layer", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_fault_hit")),
    )
    op.create_index("ix_fault_hit_fault_id", "fault_hit", ["fault_id"], unique=False)
    op.create_table(
        "host",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("pools", sa.JSON(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("started_at", tables.UtcDateTime(), nullable=False),
        sa.Column("heartbeat_at", tables.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_host")),
    )
    op.create_table(
        "idempotency_key",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("project", "key", name=op.f("pk_idempotency_key")),
    )
    op.create_index(
        "ix_idempotency_key_created_at", "idempotency_key", ["created_at"], unique=False
    )
    op.create_table(
        "instance",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("addresses", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("power_state", sa.Text(), nullable=False),
        sa.Column("resource_version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(), nullable=False),
        sa.Column("updated_at", tables.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance")),
    )
    op.create_index("uq_instance_project_name", "instance", ["project", "name"], unique=True)
    op.create_table(
        "project",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("suspended", sa.Boolean(), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project")),
    )
    op.create_table(
        "quota",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("most", sa.BigInteger(), nullable=True),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "metric", name=op.f("pk_quota")),
    )
    op.create_table(
        "reserved_address",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("ip", sa.Text(), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["ip"], ["address.ip"], name=op.f("fk_reserved_address_ip")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reserved_address")),
        sa.UniqueConstraint("ip", name=op.f("uq_reserved_address_ip")),
    )
    op.create_index(
        "uq_reserved_address_project_name", "reserved_address", ["project", "name"], unique=True
    )
    op.add_column(
        "address", sa.Column("reserved", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.add_column("load_balancer", sa.Column("host", sa.Text(), nullable=True))
    op.add_column("load_balancer", sa.Column("ready_at", tables.UtcDateTime(), nullable=True))
    op.add_column("operation", sa.Column("phase", sa.Text(), nullable=True))
    op.add_column("operation", sa.Column("phases", sa.JSON(), server_default="[]", nullable=False))
    op.add_column(
        "operation", sa.Column("progress", sa.Integer(), server_default="0", nullable=False)
    )
    op.add_column("operation", sa.Column("eta", tables.UtcDateTime(), nullable=True))
    op.add_column("operation", sa.Column("ready_at", tables.UtcDateTime(), nullable=True))
    op.add_column(
        "token", sa.Column("scopes", sa.JSON(), server_default='["admin"]', nullable=False)
    )
    op.add_column("token", sa.Column("expires_at", tables.UtcDateTime(), nullable=True))
    op.add_column("token", sa.Column("revoked_at", tables.UtcDateTime(), nullable=True))
    op.add_column("token", sa.Column("last_used_at", tables.UtcDateTime(), nullable=True))
    op.create_index("ix_token_prefix", "token", ["prefix"], unique=False)
    op.create_index("ix_token_project", "token", ["project"], unique=False)
    op.execute(
        "INSERT INTO project (id, description, suspended, created_at) "
        "VALUES ('default', 'made at the first start', false, 0)"
    )
    _count_what_is_there()
    _make_audit_append_only()


def _count_what_is_there() -> None:
    op.execute(
        "INSERT INTO project (id, description, suspended, created_at) "
        "SELECT DISTINCT project, '', false, 0 FROM token WHERE project <> 'default'"
    )
    op.execute(
        "INSERT INTO quota (project, metric, used) "
        "SELECT project, 'tokens', count(*) FROM token GROUP BY project"
    )
    op.execute(
        "INSERT INTO quota (project, metric, used) "
        "SELECT project, 'load_balancers', count(*) FROM load_balancer "
        "WHERE deleted_at IS NULL GROUP BY project"
    )


def _make_audit_append_only() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_no_{change.lower()} BEFORE {change} ON audit "
                "BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'audit is append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()"
    )
