"""Strategies: what may happen to load balancers, and what they may carry."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import msgspec
from hypothesis import strategies as st

from fakecloud.billing import books, events, prices
from fakecloud.billing.events import BillingEvent, Kind, Terms
from fakecloud.billing.quantities import HOUR_US, MICRO
from fakecloud.billing.usage import Hour, Span, Usage

BOOKS = [books.load(name) for name in books.names()]
START_US = 1_767_225_600 * MICRO  # 2026-01-01
LONGEST_S = 70 * 86_400
ACTIVE = (Kind.ACTIVATED, Kind.DELETE_REQUESTED)

# Short ones as often as long ones: hours, minutes and the first second matter.
seconds = st.one_of(st.integers(0, 10), st.integers(0, 7200), st.integers(0, LONGEST_S))
any_book = st.sampled_from(BOOKS)
terms = st.builds(
    Terms,
    name=st.just("web"),
    labels=st.sampled_from([{"namespace": "shop"}, {"namespace": "pay"}]),
    type=st.sampled_from(["lb-s", "lb-m", "lb-l"]),
    ports=st.integers(1, 7),
    protocols=st.integers(1, 2),
    ipv4=st.integers(0, 2),
)


@st.composite
def histories(draw: st.DrawFn, resource: str = "lb_1") -> list[BillingEvent]:
    """Everything that happened to one load balancer, which may be over or not."""
    kinds = [Kind.CREATED]
    if draw(st.booleans()):
        kinds.append(Kind.CHANGED)
    if draw(st.integers(0, 3)):
        kinds.append(Kind.ACTIVATED)
    change = st.sampled_from([Kind.CHANGED, Kind.ATTRIBUTED])
    kinds += draw(st.lists(change, max_size=3))
    if draw(st.booleans()):
        kinds.append(Kind.DELETE_REQUESTED)
        if draw(st.booleans()):
            kinds.append(Kind.DELETED)
    at_s, found, now = 0, [], draw(terms)
    for number, kind in enumerate(kinds):
        at_s += draw(seconds)
        now = draw(terms) if kind in (Kind.CHANGED, Kind.ATTRIBUTED) else now
        at_us = START_US + at_s * MICRO
        found.append(
            BillingEvent(
                id=f"{resource}/{number}", account="default", resource=resource,
                resource_kind="load_balancer", kind=kind, at_us=at_us, recorded_us=at_us, terms=now,
            )
        )  # fmt: skip
    return found


@st.composite
def usages(draw: st.DrawFn) -> list[Usage]:
    """A few load balancers with adjacent or separate spans, and traffic."""
    found = []
    longest = st.integers(0, LONGEST_S)
    for number in range(draw(st.integers(1, 3))):
        edges = sorted(draw(st.lists(longest, min_size=2, max_size=7, unique=True)))
        spans = tuple(
            Span(
                start_us=START_US + a * MICRO,
                end_us=START_US + b * MICRO,
                attribution=draw(st.sampled_from(["shop", "pay"])),
                type=draw(st.sampled_from(["lb-s", "lb-m", "lb-l"])),
                ports=draw(st.integers(0, 7)),
                protocols=1,
                ipv4=draw(st.integers(0, 2)),
            )
            for a, b in pairwise(edges)
            if draw(st.booleans())
        )
        starts = sorted(draw(st.sets(st.integers(0, LONGEST_S // 3600), max_size=5)))
        hours = tuple(
            Hour(
                start_us=START_US + hour * HOUR_US,
                attribution=draw(st.sampled_from(["shop", "pay"])),
                bytes_in=draw(st.integers(0, 10**14)),
                bytes_out=draw(st.integers(0, 10**14)),
                new_connections=draw(st.integers(0, 10**8)),
                connection_us=draw(st.integers(0, 10**15)),
                requests=draw(st.integers(0, 10**9)),
            )
            for hour in starts
        )
        found.append(Usage(resource=f"lb_{number}", kind="load_balancer", spans=spans, hours=hours))
    return found


def ends_of(book: prices.PriceBook) -> events.Ends:
    """Return which events begin and end a bill."""
    return (
        Kind.ACTIVATED if book.bill_from == "active" else Kind.CREATED,
        Kind.DELETE_REQUESTED if book.bill_until == "delete_requested" else Kind.DELETED,
    )


def spans(history: list[BillingEvent], until_us: int, ends: events.Ends = ACTIVE) -> list[Span]:
    """Return the billed spans up to a moment."""
    return list(events.spans(history, until_us, lambda _: ends))


def used(history: list[BillingEvent], until_us: int) -> Usage:
    """Return the usage of a history up to a moment."""
    found = tuple(spans(history, until_us))
    return Usage(resource=history[0].resource, kind="load_balancer", spans=found)


def lived(history: list[BillingEvent], until_us: int) -> Fraction:
    """Return how many hours something was there, from ACTIVATED to the wish to delete it.

    Computed from nothing but these two moments, so beside everything that it is compared with.
    """
    at = {event.kind: event.at_us for event in reversed(history)}
    if Kind.ACTIVATED not in at:
        return Fraction(0)
    begun, over = at[Kind.ACTIVATED], at.get(Kind.DELETE_REQUESTED)
    least = min(begun + MICRO, max(until_us, begun))
    end = until_us if over is None else max(min(over, until_us), least)
    return Fraction(max(0, end - begun), HOUR_US)


def cut(usage: Usage, edges: list[int]) -> Usage:
    """Return the same usage, every span cut at `edges`."""
    found = []
    for span in usage.spans:
        inside = [edge for edge in edges if span.start_us < edge < span.end_us]
        for a, b in pairwise([span.start_us, *inside, span.end_us]):
            found.append(msgspec.structs.replace(span, start_us=a, end_us=b))
    return msgspec.structs.replace(usage, spans=tuple(found))
