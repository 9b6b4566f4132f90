"""Webhooks, and what is still to be delivered to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from fakecloud.tables.spending import webhook as table
from fakecloud.tables.spending import webhook_delivery as delivery

_DIALECTS: Final = {"sqlite": sqlite, "postgresql": postgresql}


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """Where news go; `secret` is sealed."""

    project: str
    name: str
    url: str
    secret: str
    enabled: bool
    created_at: datetime

    def __repr__(self) -> str:
        """Return no part of the secret."""
        return f"Webhook(project={self.project!r}, name={self.name!r}, url={self.url!r})"


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of news for one webhook; moments of wall time."""

    id: str
    project: str
    webhook: str
    type: str
    body: str
    status: str
    attempts: int
    due_at: datetime
    created_at: datetime
    answer: str | None = None


def put(connection: Connection, webhook: Webhook) -> None:
    """Create or replace a webhook."""
    values = msgspec.structs.asdict(webhook)
    statement = _DIALECTS[connection.dialect.name].insert(table).values(values)
    connection.execute(
        statement.on_conflict_do_update(index_elements=[table.c.project, table.c.name], set_=values)
    )


def find(connection: Connection, project: str, name: str) -> Webhook | None:
    """Return a webhook, None if there is none."""
    names = Webhook.__struct_fields__
    row = connection.execute(
        select(*(table.c[one] for one in names)).where(
            table.c.project == project, table.c.name == name
        )
    ).first()
    return None if row is None else Webhook(**dict(zip(names, row, strict=True)))


def of_project(connection: Connection, project: str) -> list[Webhook]:
    """Return every webhook of a project; their number is limited."""
    names = Webhook.__struct_fields__
    rows = connection.execute(
        select(*(table.c[one] for one in names))
        .where(table.c.project == project)
        .order_by(table.c.name)
    )
    return [Webhook(**dict(zip(names, row, strict=True))) for row in rows]


def count(connection: Connection, project: str) -> int:
    """Return how many webhooks a project has."""
    found: int = connection.execute(
        select(func.count()).select_from(table).where(table.c.project == project)
    ).scalar_one()
    return found


def remove(connection: Connection, project: str, name: str) -> bool:
    """Forget a webhook and its news; False if there is none."""
    connection.execute(
        delete(delivery).where(delivery.c.project == project, delivery.c.webhook == name)
    )
    return (
        connection.execute(
            delete(table).where(table.c.project == project, table.c.name == name)
        ).rowcount
        == 1
    )


def enqueue(connection: Connection, found: Sequence[Delivery]) -> None:
    """Let news be delivered."""
    if found:
        connection.execute(insert(delivery), [msgspec.structs.asdict(one) for one in found])


def claim(connection: Connection, now: datetime, lease: timedelta) -> Delivery | None:
    """Return what is due longest, and keep it from others for a while; None: nothing is due."""
    id = connection.execute(
        select(delivery.c.id)
        .where(delivery.c.status == "PENDING", delivery.c.due_at <= now)
        .order_by(delivery.c.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).scalar_one_or_none()
    if id is None:
        return None
    connection.execute(
        update(delivery)
        .where(delivery.c.id == id)
        .values(due_at=now + lease, attempts=delivery.c.attempts + 1)
    )
    return _found(connection, delivery.c.id == id)[0]


def settle(
    connection: Connection, of: Delivery, status: str, due_at: datetime, answer: str
) -> None:
    """Keep what became of an attempt, unless another one was made since."""
    connection.execute(
        update(delivery)
        .where(delivery.c.id == of.id, delivery.c.attempts == of.attempts)
        .values(status=status, due_at=due_at, answer=answer)
    )


def recent(connection: Connection, project: str, name: str, limit: int) -> list[Delivery]:
    """Return the latest news for a webhook."""
    condition = (delivery.c.project == project) & (delivery.c.webhook == name)
    return _found(connection, condition, limit)


def forget(connection: Connection, before: datetime) -> None:
    """Delete old news that are delivered or given up."""
    connection.execute(
        delete(delivery).where(delivery.c.status != "PENDING", delivery.c.created_at < before)
    )


def _found(connection: Connection, condition: Any, limit: int = 1) -> list[Delivery]:
    names = Delivery.__struct_fields__
    rows = connection.execute(
        select(*(delivery.c[one] for one in names))
        .where(condition)
        .order_by(delivery.c.created_at.desc(), delivery.c.id.desc())
        .limit(limit)
    )
    return [Delivery(**dict(zip(names, row, strict=True))) for row in rows]
