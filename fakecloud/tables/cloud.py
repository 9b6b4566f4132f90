"""The tables of what the cloud sells and how it makes it, on one page.

`alembic check` keeps the migrations equal to all tables, also of the other files.

Times are microseconds since the epoch, so that both databases sort and compare them alike; the
column type turns them into aware UTC datetimes. JSON columns hold values of `model`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    false,
    text,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def microseconds(moment: datetime) -> int:
    """Return what is stored of an aware datetime; refuse naive ones."""
    assert moment.tzinfo is not None, "naive datetime"
    return (moment - _EPOCH) // timedelta(microseconds=1)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, stored as integer microseconds since the epoch."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Return microseconds."""
        if value is None:
            return None
        return microseconds(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return an aware UTC datetime."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


Key: Final = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER autoincrements there


def _created_version() -> Column[int]:
    """Return the resource version at creation: the order of commits, which times can't tell."""
    return Column("created_version", BigInteger, nullable=False, server_default="0")


load_balancer = Table(
    "load_balancer",
    metadata,
    Column("pk", Key, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("project", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("annotations", JSON, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("addresses", JSON, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("observed_generation", BigInteger, nullable=False),
    Column("resource_version", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("operating_state", Text, nullable=False),
    Column("conditions", JSON, nullable=False),
    Column("targets", JSON, nullable=False),
    Column("last_error", JSON(none_as_null=True)),
    Column("operation", Text, nullable=False),
    Column("was_active", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", UtcDateTime),
    Column("lease_owner", Text),
    Column("lease_until", UtcDateTime),
    Column("lease_epoch", BigInteger, nullable=False),
    Column("host", Text),  # which host runs it; None: the next that claims it
    Column("ready_at", UtcDateTime),  # wall time before which the simulated cloud isn't done
    Column("asked_at", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("deleted_at", UtcDateTime),
    Column("host_ports", JSON, nullable=False, server_default="[]"),
    Index(
        "uq_load_balancer_live_name",
        "project",
        "name",
        unique=True,
        sqlite_where=text("deleted_at IS NULL"),
        postgresql_where=text("deleted_at IS NULL"),
    ),
    Index(
        "ix_load_balancer_due",
        "due_at",
        sqlite_where=text("due_at IS NOT NULL"),
        postgresql_where=text("due_at IS NOT NULL"),
    ),
)

address = Table(
    "address",
    metadata,
    Column("ip", Text, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("family", Text, nullable=False),
    Column("load_balancer_id", Text, ForeignKey("load_balancer.id")),
    Column("given_at", UtcDateTime, nullable=False),
    Column("released_at", UtcDateTime),
    Column("reserved", Boolean, nullable=False, server_default=false()),
    Index("ix_address_pool_given_at", "pool", "family", "given_at"),
    Index("ix_address_load_balancer_id", "load_balancer_id"),
)

host_port = Table(
    "host_port",
    metadata,
    Column("transport", Text, primary_key=True),
    Column("host_port", Integer, primary_key=True, autoincrement=False),
    Column("project", Text, nullable=False),
    Column("load_balancer", Text, nullable=False),  # its name: one that comes back has it again
    Column("port", Integer, nullable=False),
    Column("given_at", UtcDateTime, nullable=False),
    Index("ix_host_port_load_balancer", "project", "load_balancer"),
)

operation = Table(
    "operation",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("target_id", Text, nullable=False),
    Column("target_generation", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("resource_version", BigInteger, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("phase", Text),
    Column("phases", JSON, nullable=False, server_default="[]"),
    Column("progress", Integer, nullable=False, server_default="0"),
    Column("eta", UtcDateTime),  # business time
    Column("ready_at", UtcDateTime),  # the same in wall time
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    _created_version(),
    Index("ix_operation_target_id_status", "target_id", "status"),
    Index("ix_operation_project_created_version", "project", "created_version"),
)

# The row lock on `version` makes the order of versions the order of commits on PostgreSQL too,
# so that a reader that has seen version n has seen everything up to n.
version = Table(
    "version",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
)

event = Table(
    "event",
    metadata,
    Column("resource_version", Key, primary_key=True, autoincrement=False),
    Column("project", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("object", Text, nullable=False),  # the API document as it was, already encoded
    Column("at", UtcDateTime, nullable=False),
)

# Business time: sim = anchor_sim + rate * (wall - anchor_wall); `manual` stands still.
clock = Table(
    "clock",
    metadata,
    Column("id", Text, primary_key=True),
    Column("mode", Text, nullable=False),  # real, rate, manual
    Column("rate", BigInteger, nullable=False),
    Column("anchor_sim", UtcDateTime, nullable=False),
    Column("anchor_wall", UtcDateTime, nullable=False),
    Column("status", Text, nullable=False),  # READY, ADVANCING
    Column("target", UtcDateTime),
    Column("origin", UtcDateTime),  # where the advance began
    Column("operation", Text),  # the latest advance
)

fault = Table(
    "fault",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("layer", Text, nullable=False),  # api, watch, provision, worker, dataplane
    Column("priority", Integer, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("match", JSON, nullable=False),
    Column("trigger", JSON, nullable=False),
    Column("action", JSON, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("looks", BigInteger, nullable=False),  # how often it matched, hit or not
    Column("hits", BigInteger, nullable=False),
    Column("max_hits", BigInteger),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),  # wall time
    Index("ix_fault_project", "project"),
)

fault_hit = Table(
    "fault_hit",
    metadata,
    Column("seq", Key, primary_key=True, autoincrement=True),
    Column("fault_id", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("layer", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),  # request id, or load balancer id and phase
    Index("ix_fault_hit_fault_id", "fault_id"),
)

# A process that runs load balancers; one whose heartbeat is old is dead and loses them.
host = Table(
    "host",
    metadata,
    Column("name", Text, primary_key=True),
    Column("identity", Text, nullable=False),  # of its state directory: a name alone can repeat
    Column("pools", JSON, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("heartbeat_at", UtcDateTime, nullable=False),  # wall time
)

# An address that a customer keeps, whether a load balancer uses it or not.
reserved_address = Table(
    "reserved_address",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("ip", Text, ForeignKey("address.ip"), nullable=False, unique=True),
    Column("resource_version", BigInteger, nullable=False, server_default="1"),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False, server_default="0"),
    _created_version(),
    Index("ix_reserved_address_project_created_version", "project", "created_version"),
    Index("uq_reserved_address_project_name", "project", "name", unique=True),
)

instance = Table(
    "instance",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("addresses", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("power_state", Text, nullable=False),  # running, stopped
    Column("resource_version", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    _created_version(),
    Index("ix_instance_project_created_version", "project", "created_version"),
    Index("uq_instance_project_name", "project", "name", unique=True),
)

network = Table(
    "network",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("ranges", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("resource_version", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    _created_version(),
    Index("ix_network_project_created_version", "project", "created_version"),
    Index("uq_network_project_name", "project", "name", unique=True),
)

route = Table(
    "route",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("network", Text, nullable=False),  # its name
    Column("destination", Text, nullable=False),
    Column("next_hop", Text, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("state", Text, nullable=False),  # PENDING, ACTIVE, ERROR
    Column("last_error", JSON(none_as_null=True)),
    Column("resource_version", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    _created_version(),
    Index("ix_route_project_created_version", "project", "created_version"),
    Index("uq_route_project_name", "project", "name", unique=True),
    Index("uq_route_project_network_destination", "project", "network", "destination", unique=True),
)

certificate = Table(
    "certificate",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("chain", Text, nullable=False),
    Column("sealed_key", Text, nullable=False),  # AES-256-GCM, see `sealing`
    Column("hosts", JSON, nullable=False),
    Column("not_before", UtcDateTime, nullable=False),
    Column("not_after", UtcDateTime, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("resource_version", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    _created_version(),
    Index("ix_certificate_project_created_version", "project", "created_version"),
    Index("uq_certificate_project_name", "project", "name", unique=True),
)

# Who of a line of writers, such as the leaders of a cluster's controllers, has written last.
fence = Table(
    "fence",
    metadata,
    Column("project", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("at", UtcDateTime, nullable=False),  # wall time at which it grew
)
