"""What load balancers cost in an hour: the cloud's price list, asked for now and then.

It is read once for all Services, never for one. Without it nothing is told of costs, and nothing
else changes.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Protocol

import structlog

from ccm import clock as clocks
from ccm import errors
from ccm.cloud import documents

PERIOD_S: Final = 600.0
HOURS_PER_MONTH: Final = 730

_log = structlog.get_logger()
Shape = tuple[str, int, int, int]
"""Type, listeners, protocols of them, IPv4 addresses."""


class Cloud(Protocol):
    """Who is asked."""

    async def rates(self) -> documents.Rates:
        """Return what load balancers cost in an hour. Raises: CloudError."""


class Rates:
    """The price list as last read; empty until then."""

    def __init__(self, cloud: Cloud, clock: clocks.Clock) -> None:
        self._cloud = cloud
        self._clock = clock
        self._known: dict[Shape, str] = {}
        self._book = ""
        self._told = ""

    def rate_of(self, wanted: documents.LoadBalancerSpec) -> str | None:
        """Return what such a load balancer costs in an hour, 0.0275 USD; None: not known."""
        return self._known.get(_shape(wanted))

    def words(self, rate: str) -> str:
        """Return a rate for people: with the month, and whose prices they are."""
        amount, _, currency = rate.partition(" ")
        month = (Decimal(amount) * HOURS_PER_MONTH).quantize(Decimal("0.01"))
        return (
            f"{rate} an hour, {month} {currency} a month of {HOURS_PER_MONTH} hours, "
            f"by price book {self._book}; traffic not included"
        )

    async def run(self) -> None:
        """Ask again and again until cancelled."""
        while True:
            await self._clock.sleep(PERIOD_S)
            await self.step()

    async def step(self) -> None:
        """Ask once. A cloud that can't say leaves what is known."""
        try:
            found = await self._cloud.rates()
        except errors.CloudError as error:
            say = _log.debug if self._told == str(error) else _log.warning
            say("rates_not_known", error=str(error))
            self._told = str(error)
            return
        self._told = ""
        self._book = found.price_book
        self._known = {
            (one.type, one.ports, one.protocols, one.ipv4): f"{one.hourly} {found.currency}"
            for one in found.items
        }


def _shape(spec: documents.LoadBalancerSpec) -> Shape:
    protocols = {"udp" if one.protocol == "udp" else "tcp" for one in spec.listeners}
    ipv4 = sum(one.family == "ipv4" for one in spec.addresses)
    return spec.type, len(spec.listeners), len(protocols), ipv4
