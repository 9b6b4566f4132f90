"""Price books: what a provider asks for an hour of a load balancer, since when and says who."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

import msgspec

from fakecloud.billing import money
from fakecloud.errors import StartError

LOAD_BALANCER_HOUR: Final = "lb-hour"


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """One SKU: `price_micros` of the book's currency per `unit`."""

    sku: str
    unit: str
    price_micros: int
    description: str
    source: str
    read_on: date


class PriceBook(msgspec.Struct, frozen=True, kw_only=True):
    """The prices of one provider and region; `version` grows when any of them changes."""

    name: str
    version: int
    currency: str
    prices: dict[str, Price]

    @property
    def id(self) -> str:
        """Return name and version, e.g. aws-nlb-us-east-1@1."""
        return f"{self.name}@{self.version}"


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sku: str
    unit: str
    price: str
    description: str
    source: str
    read_on: date


class _Book(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    version: int
    currency: str
    prices: list[_Entry]


def parse(document: Any, where: str) -> PriceBook:
    """Return the checked price book of a YAML document.

    Prices are decimal strings, quoted in YAML so that they are never floats.
    Raises: StartError that names the book `where` and what is wrong.
    """
    try:
        book = msgspec.convert(document, _Book)
        prices = {
            entry.sku: Price(
                sku=entry.sku,
                unit=entry.unit,
                price_micros=money.micros(entry.price),
                description=entry.description,
                source=entry.source,
                read_on=entry.read_on,
            )
            for entry in book.prices
        }
    except (msgspec.ValidationError, ValueError) as error:
        raise StartError(f"price book {where}: {error}") from None
    if LOAD_BALANCER_HOUR not in prices:
        raise StartError(f"price book {where}: it has no price for {LOAD_BALANCER_HOUR}")
    return PriceBook(name=book.name, version=book.version, currency=book.currency, prices=prices)
