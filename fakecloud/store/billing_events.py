"""The log of what is billed: written with the change itself, sealed afterwards, never changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, Select, bindparam, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from fakecloud.billing import events
from fakecloud.billing.events import BillingEvent, Kind, Terms
from fakecloud.billing.quantities import HOUR_US
from fakecloud.billing.usage import Attribution
from fakecloud.model import LoadBalancer
from fakecloud.store import journal
from fakecloud.tables.billing import attribution, billed_resource, billing_event, billing_seal

_COLUMNS: Final = tuple(getattr(billing_event.c, name) for name in BillingEvent.__struct_fields__)


def record(
    connection: Connection,
    changes: Iterable[tuple[LoadBalancer | None, LoadBalancer]],
    now: datetime,
    wall: datetime,
) -> None:
    """Write what saved changes, before and after, are for the bill, in the same transaction."""
    append(
        connection,
        [one for before, after in changes for one in events.of_change(before, after, now, wall)],
    )


def append(connection: Connection, found: Iterable[BillingEvent]) -> None:
    """Write events with the transaction of the change."""
    own = journal.of(connection)
    ended = []
    for event in found:
        own.append(billing_event, msgspec.to_builtins(event))
        if event.kind is Kind.CREATED:
            resource = {
                "resource": event.resource,
                "account": event.account,
                "kind": event.resource_kind,
                "name": event.terms.name,
                "begun_us": event.at_us,
            }
            own.append(billed_resource, resource)
        elif event.kind is Kind.DELETED:
            ended.append({"of": event.resource, "at": event.at_us})
    if ended:
        connection.execute(_END, ended)


def histories(connection: Connection, resources: Sequence[str]) -> dict[str, list[BillingEvent]]:
    """Return all events of these resources, each in the order they were written."""
    found: defaultdict[str, list[BillingEvent]] = defaultdict(list)
    for start in range(0, len(resources), 500):
        rows = connection.execute(
            select(*_COLUMNS)
            .where(billing_event.c.resource.in_(resources[start : start + 500]))
            .order_by(billing_event.c.seq)
        )
        for row in rows:
            found[row.resource].append(_event(row))
    return dict(found)


def resources(
    connection: Connection, account: str, start_us: int, end_us: int, *, after: str, limit: int
) -> list[str]:
    """Return up to `limit` resources above `after` that lived at some time in [start, end)."""
    return list(
        connection.execute(
            _living(account, start_us, end_us)
            .where(billed_resource.c.resource > after)
            .order_by(billed_resource.c.resource)
            .limit(limit)
        ).scalars()
    )


def _living(account: str, start_us: int, end_us: int) -> Select[Any]:
    table = billed_resource
    return select(table.c.resource).where(
        table.c.account == account,
        table.c.begun_us < end_us,
        # Its counters are read to their end afterwards, perhaps on the next day already.
        or_(table.c.ended_us.is_(None), table.c.ended_us >= start_us - HOUR_US),
    )


def open(connection: Connection) -> dict[str, list[BillingEvent]]:
    """Return the events of everything that hasn't ended, by resource."""
    living = select(billed_resource.c.resource).where(billed_resource.c.ended_us.is_(None))
    return histories(connection, list(connection.execute(living).scalars()))


def find(connection: Connection, account: str, name: str) -> str | None:
    """Return the id of what is called so or has this id, the youngest if several had the name."""
    table = billed_resource
    found: str | None = connection.execute(
        select(table.c.resource)
        .where(table.c.account == account, or_(table.c.resource == name, table.c.name == name))
        .order_by(table.c.begun_us.desc())
        .limit(1)
    ).scalar_one_or_none()
    return found


def accounts(connection: Connection) -> list[tuple[str, int]]:
    """Return every account that was ever billed, with the time of its first event."""
    rows = connection.execute(
        select(billed_resource.c.account, func.min(billed_resource.c.begun_us))
        .group_by(billed_resource.c.account)
        .order_by(billed_resource.c.account)
    )
    return [(row[0], row[1]) for row in rows]


def attributions(connection: Connection, resources: Mapping[str, str]) -> dict[str, Attribution]:
    """Return for whom charges are, by id: kept since their day was closed, or from the events.

    resources: by the ids of whom they were for, one each.
    """
    found: dict[str, Attribution] = {}
    wanted = sorted(resources)
    for start in range(0, len(wanted), 500):
        rows = connection.execute(
            select(attribution).where(attribution.c.id.in_(wanted[start : start + 500]))
        )
        for row in rows:
            found[row.id] = Attribution(
                id=row.id, account=row.account, name=row.name, labels=row.labels
            )
    missing = sorted({resources[id] for id in wanted if id not in found})
    for history in histories(connection, missing).values():
        found |= {one.id: one for one in events.attributions(history)}
    return found


def keep_attributions(connection: Connection, found: Iterable[Attribution]) -> None:
    """Keep for whom lines are."""
    values = [msgspec.structs.asdict(one) for one in found]
    if values:
        connection.execute(_KEEP[connection.dialect.name], values)


def last(connection: Connection, account: str) -> int:
    """Return the number of an account's newest event; 0: there is none."""
    newest = select(func.max(billing_event.c.seq)).where(billing_event.c.account == account)
    return connection.execute(newest).scalar_one() or 0


def between(connection: Connection, account: str, after: int, until: int) -> list[BillingEvent]:
    """Return the events of an account above number `after` up to `until`, in their order."""
    if until <= after:
        return []
    rows = connection.execute(
        select(*_COLUMNS)
        .where(
            billing_event.c.account == account,
            billing_event.c.seq > after,
            billing_event.c.seq <= until,
        )
        .order_by(billing_event.c.seq)
    )
    return [_event(row) for row in rows]


def unsealed(connection: Connection) -> list[str]:
    """Return the accounts that have events after their last seal."""
    last = select(func.max(billing_seal.c.seq)).scalar_subquery()
    return list(
        connection.execute(
            select(billing_event.c.account)
            .where(billing_event.c.seq > func.coalesce(last, 0))
            .distinct()
            .order_by(billing_event.c.account)
        ).scalars()
    )


def seal(connection: Connection, account: str, limit: int) -> int:
    """Chain up to `limit` events that aren't yet to those before; return how many there were."""
    last = connection.execute(
        select(billing_seal.c.seq, billing_seal.c.hash)
        .where(billing_seal.c.account == account)
        .order_by(billing_seal.c.seq.desc())
        .limit(1)
    ).first()
    seq, previous = (0, events.GENESIS) if last is None else (last.seq, last.hash)
    rows = connection.execute(
        select(billing_event.c.seq, *_COLUMNS)
        .where(billing_event.c.account == account, billing_event.c.seq > seq)
        .order_by(billing_event.c.seq)
        .limit(limit)
    ).all()
    sealed = []
    for row in rows:
        previous = events.seal(previous, _event(row))
        sealed.append({"seq": row.seq, "account": account, "hash": previous})
    if sealed:
        connection.execute(insert(billing_seal), sealed)
    return len(sealed)


def first_broken_seal(connection: Connection, account: str) -> int | None:
    """Return the first event whose seal isn't what its content says; None: all are."""
    previous = events.GENESIS
    statement = (
        select(billing_seal.c.seq.label("sealed"), billing_seal.c.hash, *_COLUMNS)
        .select_from(
            billing_seal.outerjoin(billing_event, billing_event.c.seq == billing_seal.c.seq)
        )
        .where(billing_seal.c.account == account)
        .order_by(billing_seal.c.seq)
    )
    # Closed here: what is left of a cursor on the server ends with it.
    with connection.execute(statement, execution_options={"yield_per": 1000}) as rows:
        for row in rows:
            if row.id is None:
                return int(row.sealed)
            previous = events.seal(previous, _event(row))
            if previous != row.hash:
                return int(row.sealed)
    return None


def _event(row: Row[Any]) -> BillingEvent:
    return BillingEvent(
        id=row.id,
        account=row.account,
        resource=row.resource,
        resource_kind=row.resource_kind,
        kind=Kind(row.kind),
        at_us=row.at_us,
        recorded_us=row.recorded_us,
        terms=Terms(**row.terms),
    )


# Made once: making a statement costs several times what it does.
_END: Final = (
    update(billed_resource)
    .where(billed_resource.c.resource == bindparam("of"))
    .values(ended_us=bindparam("at"))
)
_KEEP: Final = {
    name: dialect.insert(attribution).on_conflict_do_nothing()
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}
