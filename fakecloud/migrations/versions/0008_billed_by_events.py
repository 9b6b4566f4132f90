"""Usage intervals go: billing events say the same, and more."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_SECOND = 1_000_000
_NAMESPACE = uuid.UUID("3c1b8f0a-6d0c-5b0e-8d52-55c1f0a0b008")

_interval = sa.table(
    "usage_interval",
    sa.column("pk"),
    sa.column("load_balancer_id"),
    sa.column("name"),
    sa.column("labels", sa.JSON()),
    sa.column("type"),
    sa.column("started_at", sa.BigInteger()),
    sa.column("ended_at", sa.BigInteger()),
)
_balancer = sa.table(
    "load_balancer",
    sa.column("id"),
    sa.column("project"),
    sa.column("name"),
    sa.column("labels", sa.JSON()),
    sa.column("spec", sa.JSON()),
    sa.column("addresses", sa.JSON()),
    sa.column("created_at", sa.BigInteger()),
    sa.column("deleted_at", sa.BigInteger()),
)
_event = sa.table(
    "billing_event",
    *(sa.column(name) for name in ("id", "account", "resource", "resource_kind", "kind")),
    sa.column("at_us"),
    sa.column("recorded_us"),
    sa.column("terms", sa.JSON()),
)
_resource = sa.table(
    "billed_resource",
    *(sa.column(name) for name in ("resource", "account", "kind", "name", "begun_us", "ended_us")),
)


def upgrade() -> None:
    """Apply this step: what has only intervals gets the events that mean the same."""
    connection = op.get_bind()
    unknown = sa.select(_balancer).where(
        ~sa.exists(sa.select(_event.c.id).where(_event.c.resource == _balancer.c.id))
    )
    intervals = sa.select(_interval).order_by(
        _interval.c.load_balancer_id, _interval.c.started_at, _interval.c.pk
    )
    of = attrgetter("load_balancer_id")
    lives = {id: list(some) for id, some in groupby(connection.execute(intervals), key=of)}
    for balancer in connection.execute(unknown).all():
        life = lives.get(balancer.id, [])
        if balancer.deleted_at is not None and not life:
            continue  # it never was active, so it never cost anything
        events = list(_events(balancer, life))
        connection.execute(sa.insert(_event), events)
        resource = {
            "resource": balancer.id,
            "account": balancer.project,
            "kind": "load_balancer",
            "name": balancer.name,
            "begun_us": events[0]["at_us"],
            "ended_us": events[-1]["at_us"] if events[-1]["kind"] == "deleted" else None,
        }
        connection.execute(sa.insert(_resource), resource)
    op.drop_table("usage_interval")


def _events(balancer: Any, life: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield created, activated, a change for each further interval, and its end."""
    now = _terms(balancer, balancer.labels, balancer.spec.get("type", "lb-s"))
    moments = [("created", balancer.created_at, now)]
    for number, interval in enumerate(life):
        terms = _terms(balancer, interval.labels, interval.type)
        if number == 0:
            moments[0] = ("created", balancer.created_at, terms)
            moments.append(("activated", interval.started_at, terms))
        else:
            same = terms["labels"] == moments[-1][2]["labels"]
            moments.append(("changed" if same else "attributed", interval.started_at, terms))
    if life and life[-1].ended_at is not None:
        moments.append(("delete_requested", life[-1].ended_at, moments[-1][2]))
    if balancer.deleted_at is not None:
        moments.append(("deleted", balancer.deleted_at, moments[-1][2]))
    for number, (kind, at, terms) in enumerate(moments):
        yield {
            "id": str(uuid.uuid5(_NAMESPACE, f"{balancer.id}/{number}")),
            "account": balancer.project,
            "resource": balancer.id,
            "resource_kind": "load_balancer",
            "kind": kind,
            "at_us": at // _SECOND * _SECOND,
            "recorded_us": at,
            "terms": terms,
        }


def _terms(balancer: Any, labels: dict[str, str], type: str) -> dict[str, Any]:
    listeners = balancer.spec.get("listeners", [])
    return {
        "name": balancer.name,
        "labels": labels,
        "type": type,
        "ports": len(listeners),
        "protocols": len({"udp" if one["protocol"] == "udp" else "tcp" for one in listeners}),
        "ipv4": sum(one["family"] == "ipv4" for one in balancer.addresses),
        "ipv4_idle": 0,
    }
