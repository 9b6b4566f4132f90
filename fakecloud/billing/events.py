"""What happened to things that are billed, as an append-only log, and what it means for a bill.

An event is written in the transaction of the change itself. Everything else here, spans,
attributions, hashes, is a pure function of events and can be made anew from them.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

import msgspec

from fakecloud.billing.quantities import MICRO, microseconds
from fakecloud.billing.usage import Attribution, Span
from fakecloud.model import LoadBalancer, State
from fakecloud.resources import ReservedAddress

GENESIS: Final = "0" * 64
"""What the first event of an account is chained to."""
_NAMESPACE: Final = uuid.UUID("6f6b1f0e-5d0b-5c0f-9a39-2f6c0c5f7a11")


class Kind(StrEnum):
    """What happened."""

    CREATED = "created"
    ACTIVATED = "activated"
    CHANGED = "changed"  # type, listeners or addresses
    ATTRIBUTED = "attributed"  # labels
    DELETE_REQUESTED = "delete_requested"
    DELETED = "deleted"


Ends = tuple[Literal[Kind.ACTIVATED, Kind.CREATED], Literal[Kind.DELETE_REQUESTED, Kind.DELETED]]
"""Which events begin and end a bill."""


class Terms(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is billed at a moment, and for whom: the labels say."""

    name: str
    labels: dict[str, str]
    type: str = ""
    ports: int = 0
    protocols: int = 0
    ipv4: int = 0
    ipv4_idle: int = 0


class BillingEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event. `at_us` is business time in whole seconds, `recorded_us` when it was written:
    wall time, of addresses business time too.

    id: the same for a repetition of the same change, so that it can't count twice.
    """

    id: str
    account: str
    resource: str
    resource_kind: Literal["load_balancer", "address"]
    kind: Kind
    at_us: int
    recorded_us: int
    terms: Terms


def seconds_us(moment: datetime) -> int:
    """Return microseconds of Unix time, floored to whole seconds (FOCUS has no fractions)."""
    return microseconds(moment) // MICRO * MICRO


def of_change(
    before: LoadBalancer | None, after: LoadBalancer, now: datetime, wall: datetime
) -> list[BillingEvent]:
    """Return what a saved change of a load balancer is for its bill; often nothing."""
    kinds: list[Kind] = []
    if before is None:
        kinds.append(Kind.CREATED)
    elif terms(before) != terms(after):
        moved = terms(before).labels != terms(after).labels
        kinds.append(Kind.ATTRIBUTED if moved else Kind.CHANGED)
    if after.was_active and (before is None or not before.was_active):
        kinds.append(Kind.ACTIVATED)
    for state, kind in (
        (State.DELETING, Kind.DELETE_REQUESTED),
        (State.DELETED, Kind.DELETED),
    ):
        if after.state is state and (before is None or before.state is not state):
            kinds.append(kind)
    return [
        BillingEvent(
            id=_event_id(after.id, kind, after.resource_version),
            account=after.project,
            resource=after.id,
            resource_kind="load_balancer",
            kind=kind,
            at_us=seconds_us(now),
            recorded_us=microseconds(wall),
            terms=terms(after),
        )
        for kind in kinds
    ]


def terms(lb: LoadBalancer) -> Terms:
    """Return what a load balancer is billed by."""
    return Terms(
        name=lb.name,
        labels=lb.labels,
        type=lb.spec.type,
        ports=len(lb.spec.listeners),
        protocols=len({"udp" if one.protocol == "udp" else "tcp" for one in lb.spec.listeners}),
        ipv4=sum(address.family == "ipv4" for address in lb.addresses),
    )


def of_address(address: ReservedAddress, kind: Kind, now: datetime) -> BillingEvent:
    """Return what happened to a reserved address. It was recorded when it happened."""
    return BillingEvent(
        id=_event_id(address.id, kind, address.resource_version),
        account=address.project,
        resource=address.id,
        resource_kind="address",
        kind=kind,
        at_us=seconds_us(now),
        recorded_us=microseconds(now),
        terms=address_terms(address),
    )


def address_terms(address: ReservedAddress) -> Terms:
    """Return what a reserved address is billed by: nothing, while a load balancer uses it."""
    idle = address.family == "ipv4" and address.load_balancer is None
    return Terms(name=address.name, labels=address.labels, ipv4_idle=int(idle))


def _event_id(resource: str, kind: Kind, version: int) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{resource}/{kind}/{version}"))


def attribution(account: str, of: Terms) -> str:
    """Return the id of who a span is for: the same for the same labels of the same account."""
    return hashlib.sha256(
        msgspec.json.encode([account, of.name, of.labels], order="sorted")
    ).hexdigest()[:32]


def attributions(history: Iterable[BillingEvent]) -> Iterator[Attribution]:
    """Yield everybody that a resource was for."""
    for event in history:
        yield Attribution(
            id=attribution(event.account, event.terms),
            account=event.account,
            name=event.terms.name,
            labels=event.terms.labels,
        )


def spans(
    events: Iterable[BillingEvent], until_us: int, ends: Callable[[int], Ends]
) -> Iterator[Span]:
    """Yield the billed spans of one resource up to `until_us`, the open one too.

    events: of that resource, in the order they were written. ends: which of them begin and end
    its bill, by the price in force when they happen. What was ever active lasts a second at
    least. A time that goes back (a clock set wrong) counts as no time.
    """
    since: int | None = None
    over = False
    now, current, account, any_time = 0, None, "", False
    for event in events:
        now = max(now, event.at_us)
        if since is not None and current is not None and event.kind is not Kind.ACTIVATED:
            ending = over = event.kind in (ends(now)[1], Kind.DELETED)
            stop = min(now, until_us)
            if ending and not any_time and stop <= since:
                stop = min(since + MICRO, max(until_us, since))
            if stop > since:
                any_time = True
                yield _span(account, current, since, stop)
            since = None if ending else max(since, stop)
        current, account = event.terms, event.account
        started = event.kind in (ends(now)[0], Kind.ACTIVATED) or event.resource_kind == "address"
        if started and since is None and not over and event.kind is not Kind.DELETED:
            since = now
    if since is not None and current is not None and until_us > since:
        yield _span(account, current, since, until_us)


def _span(account: str, of: Terms, start_us: int, end_us: int) -> Span:
    return Span(
        start_us=start_us,
        end_us=end_us,
        attribution=attribution(account, of),
        type=of.type,
        ports=of.ports,
        protocols=of.protocols,
        ipv4=of.ipv4,
        ipv4_idle=of.ipv4_idle,
    )


def seal(previous: str, event: BillingEvent) -> str:
    """Return the hash that chains an event to everything before it in its account."""
    return hashlib.sha256(
        previous.encode() + msgspec.json.encode(event, order="sorted")
    ).hexdigest()
