"""What was used, without any price: the only input of rating, so any price book can rate it.

Times are microseconds of Unix time on whole seconds; intervals are half-open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from fakecloud.billing.quantities import DAY_US


class Span(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A time in which nothing about a resource changed.

    type: of the load balancer, "" for an address. ports, protocols: how many listeners, and how
    many different protocols of them. ipv4: public IPv4 addresses in use; ipv4_idle: 1 for a
    reserved one that nothing uses. attribution: id of who it was for.
    """

    start_us: int
    end_us: int
    attribution: str
    type: str = ""
    ports: int = 0
    protocols: int = 0
    ipv4: int = 0
    ipv4_idle: int = 0


class Hour(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Traffic in one clock hour under one attribution.

    connection_us: time that connections were open, added up. estimated: part of it was spread
    over a gap in the samples.
    """

    start_us: int
    attribution: str
    bytes_in: int = 0
    bytes_out: int = 0
    new_connections: int = 0
    connection_us: int = 0
    requests: int = 0
    estimated: bool = False


class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A resource's whole life so far: spans and hours in the order of time, spans disjoint."""

    resource: str
    kind: Literal["load_balancer", "address"]
    spans: tuple[Span, ...]
    hours: tuple[Hour, ...] = ()


class Line(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One charge. `list_pico` is exactly quantity times price; a cap bills less.

    price_id: which price of the SKU, without dates (FOCUS 1.4, SkuPriceId).
    """

    resource: str
    sku: str
    price_id: str
    book: str
    start_us: int
    end_us: int
    attribution: str
    quantity_micros: int
    price_micros: int
    billed_pico: int
    estimated: bool = False

    @property
    def list_pico(self) -> int:
        """Return what it costs without a cap."""
        return self.quantity_micros * self.price_micros


class Booked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A line as it is in the books: in which month it is billed (2026-11),
    and which other it corrects."""

    id: str
    line: Line
    period: str
    corrects: str | None = None


class Charge(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What lines of one kind come to, together; `start_us`: of the day or hour they are of."""

    resource: str
    attribution: str
    sku: str
    price_id: str
    book: str
    start_us: int
    list_pico: int
    billed_pico: int
    estimated: bool = False


class Series(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What lines of one kind come to, day by day from `first_day` (since 1970) on.

    flags: 0 where there is no line, else 1, and 3 where some are estimated.
    """

    resource: str
    attribution: str
    sku: str
    price_id: str
    book: str
    first_day: int
    list_pico: Sequence[int]
    billed_pico: Sequence[int]
    flags: Sequence[int]

    def total(self) -> Charge:
        """Return what all days come to."""
        return Charge(
            resource=self.resource,
            attribution=self.attribution,
            sku=self.sku,
            price_id=self.price_id,
            book=self.book,
            start_us=self.first_day * DAY_US,
            list_pico=sum(self.list_pico),
            billed_pico=sum(self.billed_pico),
            estimated=max(self.flags) > 1,
        )


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """For whom something was used."""

    id: str
    account: str
    name: str
    labels: dict[str, str]


def charge(line: Line) -> Charge:
    """Return a line as a charge."""
    return Charge(
        resource=line.resource,
        attribution=line.attribution,
        sku=line.sku,
        price_id=line.price_id,
        book=line.book,
        start_us=line.start_us,
        list_pico=line.list_pico,
        billed_pico=line.billed_pico,
        estimated=line.estimated,
    )
