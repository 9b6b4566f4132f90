"""The cloud's promises, checked over its rows at one moment. Pure: rows in, violations out.

I1   generations: observed ≤ wanted       I2   ACTIVE: newest generation, with addresses
I3   one lease, fenced, of what is due    I4   one living name, one owner per ip, per ip and port
I5   what lives is billed, once, as what it is; what is gone isn't any more
I6   what the newest event of a load balancer says is what the row says
I7   what is in transition is due         I8   no operation runs for a load balancer at rest
I9   what is deleted has no address       I10  quotas count what lives
I11  what a kept answer created was made  I12  events, lines, daily sums and invoices agree
I13  events have distinct, known versions
I14  business time in the event history, and in an advance of the clock, doesn't go back
I15  the data plane runs what it should, and nothing else (asked only where there is one)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

import msgspec

from fakecloud.billing import events
from fakecloud.billing.events import BillingEvent, Kind
from fakecloud.domain.lifecycle import DEADLINE_S, TRANSITIONAL
from fakecloud.model import LoadBalancer, Operation, State
from fakecloud.resources import ReservedAddress

OVERDUE: Final = timedelta(seconds=60)
"""An operation may run that long past its deadline: a lease, and a worker to take it over."""


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """A promise that doesn't hold: which, for what, and what is wrong."""

    invariant: str
    object: str
    message: str


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who works on a load balancer, until when."""

    load_balancer_id: str
    owner: str | None
    until: datetime | None
    epoch: int = 1
    due: bool = True


class OwnedAddress(msgspec.Struct, frozen=True, kw_only=True):
    """An address and the id of the load balancer that has it."""

    ip: str
    load_balancer_id: str


class LastEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The newest event of a load balancer in the history."""

    load_balancer_id: str
    resource_version: int
    type: str
    state: str


class Discrepancy(msgspec.Struct, frozen=True, kw_only=True):
    """Something in the books of an account that doesn't agree with the rest of them.

    what: event, day or invoice. id: which.
    """

    account: str
    what: str
    id: str
    message: str


class QuotaUse(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a metric a project is counted to use, and how much there is."""

    project: str
    metric: str
    used: int
    living: int


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer kept under an idempotency key says that it created."""

    key: str
    load_balancer_id: str


class Backwards(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is earlier than what came before it: what, and by how much."""

    what: str
    by: timedelta


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """All that is looked at, of one snapshot of the database.

    load_balancers: the living. deleted: ids of the others. reserved: the addresses that customers
    keep. billed: the events of all that is billed and hasn't ended. wall: the moment. serving: ids that
    the data plane of `host` ran all the while, None where there is none; glimpsed: at some time.
    """

    load_balancers: tuple[LoadBalancer, ...]
    deleted: frozenset[str]
    leases: tuple[Lease, ...]
    addresses: tuple[OwnedAddress, ...]
    reserved: tuple[ReservedAddress, ...]
    billed: Mapping[str, list[BillingEvent]]
    running: tuple[Operation, ...]
    last_events: tuple[LastEvent, ...]
    version: int
    newest_event: int
    quotas: tuple[QuotaUse, ...]
    wall: datetime
    promises: tuple[Promise, ...] = ()
    discrepancies: tuple[Discrepancy, ...] = ()
    backwards: tuple[Backwards, ...] = ()
    serving: frozenset[str] | None = None
    glimpsed: frozenset[str] | None = None
    host: str | None = None


def check(rows: Rows) -> list[Violation]:
    """Return every promise that doesn't hold, in the order of `CHECKS`."""
    return [
        Violation(invariant=name, object=what, message=message)
        for name, find in CHECKS.items()
        for what, message in find(rows)
    ]


Found = Iterator[tuple[str, str]]


def _generations(rows: Rows) -> Found:
    for lb in rows.load_balancers:
        if not 0 <= lb.observed_generation <= lb.generation:
            yield lb.id, f"observed generation {lb.observed_generation} of {lb.generation}"
        if not 0 < lb.resource_version <= rows.version:
            yield lb.id, f"resource version {lb.resource_version}, the newest is {rows.version}"


def _active(rows: Rows) -> Found:
    for lb in rows.load_balancers:
        if lb.state is State.ACTIVE and lb.observed_generation != lb.generation:
            yield lb.id, f"ACTIVE with generation {lb.observed_generation} of {lb.generation}"
        if len(lb.addresses) != len(lb.spec.addresses):
            yield lb.id, f"{len(lb.addresses)} addresses of {len(lb.spec.addresses)} asked for"


def _leases(rows: Rows) -> Found:
    for lease in rows.leases:
        if (lease.owner is None) is not (lease.until is None):
            yield lease.load_balancer_id, f"lease of {lease.owner} until {lease.until}"
        if lease.owner is None or lease.until is None or lease.until <= rows.wall:
            continue
        if lease.epoch < 1:
            yield lease.load_balancer_id, f"leased to {lease.owner} without a fence"
        if not lease.due:
            yield lease.load_balancer_id, f"leased to {lease.owner}, but there is nothing to do"
    yield from _twice((lease.load_balancer_id for lease in rows.leases), "leases")


def _single_owners(rows: Rows) -> Found:
    yield from _twice((f"{lb.project}/{lb.name}" for lb in rows.load_balancers), "living")
    yield from _twice((a.ip for lb in rows.load_balancers for a in lb.addresses), "owners")
    ports = (
        f"{a.ip} {'udp' if one.protocol == 'udp' else 'tcp'}/{one.port}"
        for lb in rows.load_balancers
        for a in lb.addresses
        for one in lb.spec.listeners
    )
    yield from _twice(ports, "listeners")
    said = {(a.ip, lb.id) for lb in rows.load_balancers for a in lb.addresses}
    held = {(a.ip, a.load_balancer_id) for a in rows.addresses}
    for ip, id in sorted(said ^ held):
        where = "the load balancer" if (ip, id) in said else "the address book"
        yield ip, f"only {where} says that {id} has it"


def _billed(rows: Rows) -> Found:
    balancers = {lb.id: lb for lb in rows.load_balancers}
    kept = {one.id: one for one in rows.reserved}
    for id in sorted(rows.billed.keys() - balancers.keys() - kept.keys()):
        yield id, "billed, but it isn't there"
    for id, lb in balancers.items():
        expected = {Kind.CREATED: 1, Kind.ACTIVATED: int(lb.was_active)}
        expected[Kind.DELETE_REQUESTED] = int(lb.state is State.DELETING)
        yield from _as_it_is(id, rows.billed.get(id, []), expected, events.terms(lb))
    for id, address in kept.items():
        terms = events.address_terms(address)
        yield from _as_it_is(id, rows.billed.get(id, []), {Kind.CREATED: 1}, terms)


def _as_it_is(
    id: str, history: list[BillingEvent], expected: dict[Kind, int], terms: events.Terms
) -> Found:
    found = Counter(event.kind for event in history)
    for kind, number in expected.items():
        if found[kind] != number:
            yield id, f"billing has {found[kind]} events {kind}; should be {number}"
    if history and history[-1].terms != terms:
        yield id, f"billed as {history[-1].terms}; it is {terms}"


def _money(rows: Rows) -> Found:
    for one in rows.discrepancies:
        yield f"{one.account}/{one.what}/{one.id}", one.message


def _history(rows: Rows) -> Found:
    last = {event.load_balancer_id: event for event in rows.last_events}
    for lb in rows.load_balancers:
        event = last.pop(lb.id, None)
        if event is None:
            continue  # older than the history that is kept
        if (event.resource_version, event.state) != (lb.resource_version, lb.state.value):
            yield (
                lb.id,
                f"the row has {lb.state.value} at {lb.resource_version}, its newest event "
                f"{event.state} at {event.resource_version}",
            )
    for event in last.values():
        if event.type != "DELETED":
            yield event.load_balancer_id, "gone without a DELETED event"


def _due(rows: Rows) -> Found:
    leased = {lease.load_balancer_id for lease in rows.leases if lease.owner is not None}
    for lb in rows.load_balancers:
        if lb.state in TRANSITIONAL and lb.due_at is None and lb.id not in leased:
            yield lb.id, f"{lb.state.value} and neither due nor leased: it is stuck"


def _operations(rows: Rows) -> Found:
    living = {lb.id: lb for lb in rows.load_balancers}
    for operation in rows.running:
        lb = living.get(operation.target_id)
        if lb is None:
            if operation.target_id in rows.deleted:
                yield operation.id, f"still RUNNING, but {operation.target} is deleted"
            continue
        if lb.state not in TRANSITIONAL:
            yield operation.id, f"still RUNNING, but {lb.name} is {lb.state.value}"
        ready = max(lb.asked_at, lb.ready_at or lb.asked_at)
        deadline = ready + timedelta(seconds=DEADLINE_S) + OVERDUE
        if operation.type != "delete" and rows.wall > deadline:
            yield operation.id, f"RUNNING past its deadline, {deadline.isoformat()}"


def _deleted(rows: Rows) -> Found:
    for address in rows.addresses:
        if address.load_balancer_id in rows.deleted:
            yield address.load_balancer_id, f"deleted and still has {address.ip}"


def _quotas(rows: Rows) -> Found:
    for quota in rows.quotas:
        if quota.used != quota.living:
            yield f"{quota.project}/{quota.metric}", f"{quota.used} counted, {quota.living} living"


def _answers(rows: Rows) -> Found:
    known = rows.deleted | {lb.id for lb in rows.load_balancers}
    for promise in rows.promises:
        if promise.load_balancer_id not in known:
            yield promise.key, f"its answer created {promise.load_balancer_id}, which never was"


def _time(rows: Rows) -> Found:
    for one in rows.backwards:
        yield one.what, f"business time went back by {one.by}"


def _versions(rows: Rows) -> Found:
    if rows.newest_event > rows.version:
        yield "events", f"an event at {rows.newest_event}, the newest version is {rows.version}"


def _data_plane(rows: Rows) -> Found:
    if rows.serving is None:
        return
    living = {lb.id for lb in rows.load_balancers}
    for id in sorted(rows.serving - living):
        yield id, "the data plane runs it, but it isn't there"
    for lb in rows.load_balancers:
        if rows.glimpsed is not None and _should_serve(lb, rows) and lb.id not in rows.glimpsed:
            yield lb.id, "ACTIVE, but the data plane doesn't run it"


def _should_serve(lb: LoadBalancer, rows: Rows) -> bool:
    """Say whether the data plane must run it; a fault may have asked for something else."""
    disturbed = any((c.type, c.status) == ("FaultInjected", "True") for c in lb.conditions)
    wanted = lb.served.admin_up and bool(lb.spec.listeners) and not disturbed
    return wanted and lb.state is State.ACTIVE and lb.host == rows.host


CHECKS: Final[dict[str, Callable[[Rows], Found]]] = {
    "I1": _generations,
    "I2": _active,
    "I3": _leases,
    "I4": _single_owners,
    "I5": _billed,
    "I6": _history,
    "I7": _due,
    "I8": _operations,
    "I9": _deleted,
    "I10": _quotas,
    "I11": _answers,
    "I12": _money,
    "I13": _versions,
    "I14": _time,
    "I15": _data_plane,
}


def _twice(values: Iterable[str], what: str) -> Found:
    for value, number in sorted(Counter(values).items()):
        if number > 1:
            yield value, f"{number} {what}; should be one"
