"""Lists in the order of commits, versions of reserved addresses, an audit record that is trimmed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fakecloud.tables import cloud as tables

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ORDERED = ("operation", "reserved_address", "instance")


def upgrade() -> None:
    """Apply this step."""
    for name in _ORDERED:
        op.add_column(
            name, sa.Column("created_version", sa.BigInteger(), nullable=False, server_default="0")
        )
        _number(name)
        op.create_index(f"ix_{name}_project_created_version", name, ["project", "created_version"])
    op.drop_index("ix_operation_project_created_at", "operation")
    op.add_column(
        "reserved_address",
        sa.Column("resource_version", sa.BigInteger(), nullable=False, server_default="1"),
    )
    op.add_column(
        "reserved_address",
        sa.Column("updated_at", tables.UtcDateTime(), nullable=False, server_default="0"),
    )
    op.execute("UPDATE reserved_address SET updated_at = created_at")
    op.add_column("audit", sa.Column("diff_sha256", sa.Text(), nullable=True))
    op.add_column("audit", sa.Column("fault_id", sa.Text(), nullable=True))
    floor = op.create_table(
        "audit_floor",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_floor")),
    )
    op.bulk_insert(floor, [{"id": 1, "seq": 0, "hash": "0" * 64}])
    _allow_trimming()


def _number(name: str) -> None:
    """Count rows that are there, oldest first: at least as many versions were given out before."""
    table = sa.table(
        name,
        sa.Column("id", sa.Text()),
        sa.Column("created_at", sa.BigInteger()),
        sa.Column("created_version", sa.BigInteger()),
    )
    source = table.alias("source")
    number = sa.func.row_number().over(order_by=(source.c.created_at, source.c.id))
    ranked = sa.select(source.c.id, number.label("number")).subquery("ranked")
    op.execute(
        sa.update(table).where(table.c.id == ranked.c.id).values(created_version=ranked.c.number)
    )


def _allow_trimming() -> None:
    """Let records be deleted up to the floor, and the floor only rise."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER audit_no_delete")
        op.execute(
            "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit "
            "WHEN OLD.seq > (SELECT seq FROM audit_floor) "
            "BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END"
        )
        op.execute(
            "CREATE TRIGGER audit_floor_rises BEFORE UPDATE ON audit_floor WHEN NEW.seq < OLD.seq "
            "BEGIN SELECT RAISE(ABORT, 'the floor of the audit record only rises'); END"
        )
        op.execute(
            "CREATE TRIGGER audit_floor_stays BEFORE DELETE ON audit_floor "
            "BEGIN SELECT RAISE(ABORT, 'the floor of the audit record only rises'); END"
        )
        return
    op.execute("DROP TRIGGER audit_append_only ON audit")
    op.execute(
        "CREATE TRIGGER audit_append_only BEFORE UPDATE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()"
    )
    op.execute(
        "CREATE FUNCTION audit_is_trimmed_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF OLD.seq > (SELECT seq FROM audit_floor) THEN "
        "RAISE EXCEPTION 'audit is append-only'; END IF; RETURN OLD; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_trimmed_only BEFORE DELETE ON audit "
        "FOR EACH ROW EXECUTE FUNCTION audit_is_trimmed_only()"
    )
    op.execute(
        "CREATE FUNCTION audit_floor_only_rises() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF TG_OP = 'DELETE' OR NEW.seq < OLD.seq THEN "
        "RAISE EXCEPTION 'the floor of the audit record only rises'; END IF; RETURN NEW; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_floor_rises BEFORE UPDATE OR DELETE ON audit_floor "
        "FOR EACH ROW EXECUTE FUNCTION audit_floor_only_rises()"
    )
