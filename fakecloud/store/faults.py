"""Fault rules and the log of their hits. Looks are counted in the database, for all replicas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from fakecloud.domain.faults import Rule
from fakecloud.model import LoadBalancer, State
from fakecloud.store import load_balancers, quotas
from fakecloud.tables.cloud import address, load_balancer
from fakecloud.tables.cloud import fault as table
from fakecloud.tables.cloud import fault_hit as hits

KEPT_HITS = 10_000

_COLUMNS = tuple(getattr(table.c, name) for name in Rule.__struct_fields__)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One hit: which fault disturbed what, and when (wall time)."""

    seq: int
    fault_id: str
    project: str
    at: datetime
    layer: str
    action: str
    subject: str


def _value(row: Row[Any]) -> Rule:
    return msgspec.convert(dict(zip(Rule.__struct_fields__, row, strict=True)), Rule)


def add(connection: Connection, rule: Rule) -> None:
    """Insert a rule."""
    values = {name: getattr(rule, name) for name in rule.__struct_fields__}
    for name in ("match", "trigger", "action"):
        values[name] = msgspec.to_builtins(values[name])
    connection.execute(insert(table).values(values))


def every(connection: Connection) -> list[Rule]:
    """Return all rules of all projects."""
    return [_value(row) for row in connection.execute(select(*_COLUMNS))]


def page(connection: Connection, project: str, after: str, limit: int) -> list[Rule]:
    """Return up to `limit` rules of a project with an id above `after`."""
    rows = connection.execute(
        select(*_COLUMNS)
        .where(table.c.project == project, table.c.id > after)
        .order_by(table.c.id)
        .limit(limit)
    )
    return [_value(row) for row in rows]


def count(connection: Connection, project: str) -> int:
    """Return how many rules a project has."""
    found: int = connection.execute(
        select(func.count()).select_from(table).where(table.c.project == project)
    ).scalar_one()
    return found


def exists(connection: Connection, id: str) -> bool:
    """Say whether a rule has this id, in any project."""
    return connection.execute(select(table.c.id).where(table.c.id == id)).first() is not None


def find(connection: Connection, project: str, id: str) -> Rule | None:
    """Return a project's rule."""
    row = connection.execute(
        select(*_COLUMNS).where(table.c.project == project, table.c.id == id)
    ).first()
    return None if row is None else _value(row)


def enable(connection: Connection, id: str, enabled: bool) -> None:
    """Switch a rule on or off; its counts stay."""
    connection.execute(update(table).where(table.c.id == id).values(enabled=enabled))


def remove(connection: Connection, ids: Collection[str]) -> None:
    """Delete rules, and count them off; what they did stays in the log."""
    gone = connection.execute(
        delete(table).where(table.c.id.in_(ids)).returning(table.c.project)
    ).scalars()
    for project, count in Counter(gone).items():
        quotas.give_back(connection, project, "faults", count)


def look(connection: Connection, id: str, wall: datetime) -> Rule | None:
    """Count one look of a rule and return it as it then is; None when it is off, over or spent."""
    row = connection.execute(
        update(table)
        .where(
            table.c.id == id,
            table.c.enabled,
            table.c.expires_at > wall,
            (table.c.max_hits.is_(None)) | (table.c.hits < table.c.max_hits),
        )
        .values(looks=table.c.looks + 1)
        .returning(*_COLUMNS)
    ).first()
    return None if row is None else _value(row)


def count_hit(connection: Connection, id: str) -> None:
    """Count one more hit of a rule."""
    connection.execute(update(table).where(table.c.id == id).values(hits=table.c.hits + 1))


def record(
    connection: Connection,
    *,
    fault_id: str,
    project: str,
    layer: str,
    action: str,
    subject: str,
    at: datetime,
) -> None:
    """Write one line of the log; the oldest go when there are too many."""
    seq = connection.execute(
        insert(hits)
        .values(
            fault_id=fault_id, project=project, at=at, layer=layer, action=action, subject=subject
        )
        .returning(hits.c.seq)
    ).scalar_one()
    connection.execute(delete(hits).where(hits.c.seq <= seq - KEPT_HITS))


def hits_on(
    connection: Connection, fault_id: str, subject: str, action: str
) -> tuple[int, datetime | None]:
    """Return how often a fault hit a subject with an action, and when first."""
    row = connection.execute(
        select(func.count(), func.min(hits.c.at)).where(
            hits.c.fault_id == fault_id, hits.c.subject == subject, hits.c.action == action
        )
    ).one()
    return row[0], row[1]


def log(
    connection: Connection, project: str, *, before: int, limit: int, fault_id: str | None = None
) -> list[Record]:
    """Return up to `limit` hits in a project, newest first, with a number below `before`."""
    columns = [getattr(hits.c, name) for name in Record.__struct_fields__]
    statement = select(*columns).where(hits.c.project == project, hits.c.seq < before)
    if fault_id is not None:
        statement = statement.where(hits.c.fault_id == fault_id)
    rows = connection.execute(statement.order_by(hits.c.seq.desc()).limit(limit))
    return [Record(**dict(zip(Record.__struct_fields__, row, strict=True))) for row in rows]


def clear_log(connection: Connection, project: str) -> int:
    """Forget a project's hits; return how many."""
    return connection.execute(delete(hits).where(hits.c.project == project)).rowcount


def hurry(connection: Connection, ids: Collection[str], wall: datetime) -> None:
    """Let load balancers that rest in ERROR because of these faults be tried again at once."""
    rows = connection.execute(
        select(load_balancer.c.pk, load_balancer.c.conditions).where(
            load_balancer.c.state == State.ERROR, load_balancer.c.due_at > wall
        )
    ).all()
    healed = [row.pk for row in rows if _is_held(row.conditions, ids)]
    if healed:
        connection.execute(
            update(load_balancer).where(load_balancer.c.pk.in_(healed)).values(due_at=wall)
        )


def held_while_active(connection: Connection, ids: Collection[str]) -> list[LoadBalancer]:
    """Return load balancers that are ACTIVE, but not as they should be because of these faults."""
    rows = connection.execute(
        select(load_balancer.c.pk, load_balancer.c.conditions).where(
            load_balancer.c.state == State.ACTIVE
        )
    ).all()
    held = [row.pk for row in rows if _is_held(row.conditions, ids)]
    found = (load_balancers.get(connection, pk) for pk in held)
    return [lb for lb in found if lb is not None]


def _is_held(conditions: list[dict[str, str]], ids: Collection[str]) -> bool:
    return any(
        one["type"] == "FaultInjected" and one["status"] == "True" and one["message"] in ids
        for one in conditions
    )


def leave_address(connection: Connection, lb_id: str, ips: Collection[str]) -> None:
    """Let addresses stay with a load balancer that is gone."""
    connection.execute(
        update(address)
        .where(address.c.ip.in_(ips))
        .values(load_balancer_id=lb_id, released_at=None)
    )


def steal_lease(connection: Connection, pk: int, epoch: int, wall: datetime) -> None:
    """Take a worker's lease from it, as if another had found it expired; the row is due again."""
    connection.execute(
        update(load_balancer)
        .where(load_balancer.c.pk == pk, load_balancer.c.lease_epoch == epoch)
        .values(lease_owner=None, lease_until=None, lease_epoch=epoch + 1, due_at=wall)
    )


def drop_lease(connection: Connection, pk: int, epoch: int) -> None:
    """Let others claim what a worker still works on."""
    connection.execute(
        update(load_balancer)
        .where(load_balancer.c.pk == pk, load_balancer.c.lease_epoch == epoch)
        .values(lease_owner=None, lease_until=None)
    )


def lease_epoch(connection: Connection, pk: int) -> int | None:
    """Return the epoch of the latest lease."""
    found: int | None = connection.execute(
        select(load_balancer.c.lease_epoch).where(load_balancer.c.pk == pk)
    ).scalar_one_or_none()
    return found
