"""What one load balancer by itself costs in an hour, for every shape that a type can carry.

What others of the account share with it (a minimum, the first five rules) isn't in it: so it is
known before there is one, and stays while others come and go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from fakecloud.billing import money, projection
from fakecloud.billing.prices import PriceBook
from fakecloud.billing.projection import HOURS_PER_MONTH
from fakecloud.billing.usage import Span

_NAME: Final = "one"


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """A shape and what 730 hours of it cost, without traffic. protocols, ipv4: as in a Span."""

    type: str
    ports: int
    protocols: int
    ipv4: int
    monthly_pico: int


def table(most_ports: Mapping[str, int], book: PriceBook) -> list[Rate]:
    """Return the rates of all shapes of these types; one that the book has no price for is left out.

    most_ports: of each type.
    """
    return list(_rates(most_ports, book))


def document(rates: Iterable[Rate], book: PriceBook) -> dict[str, Any]:
    """Return the answer's document; an hour is 1/730 of a month, rounded to micro-units."""
    return {
        "currency": book.currency,
        "price_book": book.id,
        "items": [
            {
                "type": one.type,
                "ports": one.ports,
                "protocols": one.protocols,
                "ipv4": one.ipv4,
                "hourly": money.text(_hourly(one.monthly_pico)),
                "monthly": money.text(one.monthly_pico),
            }
            for one in rates
        ],
        "traffic": "not included",
    }


def _rates(most_ports: Mapping[str, int], book: PriceBook) -> Iterator[Rate]:
    for type, most in most_ports.items():
        for ports in range(1, most + 1):
            for protocols in (1, 2)[:ports]:
                for ipv4 in (0, 1):
                    shape = Span(
                        start_us=0,
                        end_us=1,
                        attribution=_NAME,
                        type=type,
                        ports=ports,
                        protocols=protocols,
                        ipv4=ipv4,
                    )
                    lines = list(projection.bill(projection.month_of([(_NAME, shape)]), book))
                    if lines:
                        monthly = sum(one.billed_pico for one in lines)
                        yield Rate(
                            type=type,
                            ports=ports,
                            protocols=protocols,
                            ipv4=ipv4,
                            monthly_pico=monthly,
                        )


def _hourly(monthly_pico: int) -> int:
    step = HOURS_PER_MONTH * money.MICRO
    return (monthly_pico + step // 2) // step * money.MICRO
