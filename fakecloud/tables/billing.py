"""The tables of billing: a log that only grows, and what is made from it.

`billing_event` and `line` refuse UPDATE and DELETE by triggers (`REFUSE`), so that what was billed
can be proved. Everything else can be made again from events and traffic. Times are microseconds
of Unix time; money is pico-units, quantities micro-units, both int64.
"""

from __future__ import annotations

from typing import Final

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

from fakecloud.tables.cloud import Key, metadata

billing_event = Table(
    "billing_event",
    metadata,
    Column("seq", Key, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("account", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("resource_kind", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("recorded_us", BigInteger, nullable=False),
    Column("terms", JSON, nullable=False),
    Index("ix_billing_event_resource_seq", "resource", "seq"),
    Index("ix_billing_event_account_seq", "account", "seq"),
)

# Apart from the events, which are never touched again: a chain needs the order of commits.
billing_seal = Table(
    "billing_seal",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("account", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index("ix_billing_seal_account_seq", "account", "seq"),
)

billed_resource = Table(
    "billed_resource",
    metadata,
    Column("resource", Text, primary_key=True),
    Column("account", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("begun_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
    Index("ix_billed_resource_account_ended_us", "account", "ended_us"),
)

attribution = Table(
    "attribution",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("labels", JSON, nullable=False),
)

price_assignment = Table(
    "price_assignment",
    metadata,
    Column("pk", Key, primary_key=True, autoincrement=True),
    Column("from_us", BigInteger, nullable=False),
    Column("book", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("body", JSON, nullable=False),
    Index("ix_price_assignment_from_us", "from_us"),
)

line = Table(
    "line",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("sku", Text, nullable=False),
    Column("price_id", Text, nullable=False),
    Column("book", Text, nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("attribution", Text, nullable=False),
    Column("quantity_micros", BigInteger, nullable=False),
    Column("price_micros", BigInteger, nullable=False),
    Column("billed_pico", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("corrects", Text),
    Column("period", Text, nullable=False),
    Index("ix_line_account_period_id", "account", "period", "id"),
    Index("ix_line_account_start_us", "account", "start_us"),
)

cost_day = Table(
    "cost_day",
    metadata,
    Column("account", Text, nullable=False),
    Column("day", Integer, nullable=False),  # since 1970
    Column("resource", Text, nullable=False),
    Column("attribution", Text, nullable=False),
    Column("sku", Text, nullable=False),
    Column("price_id", Text, nullable=False),
    Column("book", Text, nullable=False),
    Column("quantity_micros", BigInteger, nullable=False),
    Column("list_pico", BigInteger, nullable=False),
    Column("billed_pico", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False),
    PrimaryKeyConstraint("account", "day", "resource", "attribution", "price_id", "book"),
    sqlite_with_rowid=False,
)

billing_progress = Table(
    "billing_progress",
    metadata,
    Column("account", Text, primary_key=True),
    Column("day", Integer, nullable=False),  # the next to be closed
    Column("after", Text, nullable=False),  # in that day, resources up to this one are done
    Column("corrections", Integer, nullable=False, server_default="0"),  # of days closed before
)

# Closed days from this one on are rated again.
late_usage = Table(
    "late_usage",
    metadata,
    Column("account", Text, primary_key=True),
    Column("day", Integer, nullable=False),
    Column("marks", Integer, nullable=False),
)

billing_period = Table(
    "billing_period",
    metadata,
    Column("account", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("closed_us", BigInteger, nullable=False),
    Column("lines", BigInteger, nullable=False),
    Column("total_pico", Text, nullable=False),
    Column("root_hash", Text, nullable=False),
    PrimaryKeyConstraint("account", "period"),
)

APPEND_ONLY: Final = ("billing_event", "billing_seal", "line")


def refuse_changes(dialect: str) -> list[str]:
    """Return what lets the database itself refuse UPDATE and DELETE in the append-only tables."""
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER {table}_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            for table in APPEND_ONLY
            for verb in ("UPDATE", "DELETE")
        ]
    function = (
        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    triggers = (
        f"CREATE TRIGGER {table}_change BEFORE UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        for table in APPEND_ONLY
    )
    return [function, *triggers]
