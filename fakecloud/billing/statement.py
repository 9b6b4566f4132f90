"""Why something costs what it costs: its events, its lines, and the price behind each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fakecloud.billing import focus, money, quantities
from fakecloud.billing.events import BillingEvent
from fakecloud.billing.prices import PriceBook
from fakecloud.billing.quantities import MICRO
from fakecloud.billing.usage import Line
from fakecloud.clock import rfc3339


def document(
    history: Sequence[BillingEvent], lines: Sequence[Line], books: Mapping[str, PriceBook]
) -> dict[str, Any]:
    """Return the statement; the lines' amounts add up to the total exactly.

    history: of the one resource, not empty. books: by id, every one that a line names.
    """
    terms = history[-1].terms
    return {
        "id": history[0].resource,
        "name": terms.name,
        "labels": terms.labels,
        "currency": books[lines[0].book].currency if lines else None,
        "events": [
            {
                "kind": event.kind,
                "at": _time(event.at_us),
                "recorded_at": _time(event.recorded_us),
                "type": event.terms.type,
                "listeners": event.terms.ports,
                "ipv4": event.terms.ipv4,
                "labels": event.terms.labels,
            }
            for event in history
        ],
        "lines": [_line(line, books[line.book]) for line in lines],
        "total": money.text(sum(line.billed_pico for line in lines)),
    }


def _line(line: Line, book: PriceBook) -> dict[str, Any]:
    sku = focus.sku_of(line, book)
    return {
        "from": _time(line.start_us),
        "to": _time(line.end_us),
        "sku": line.sku,
        "price_id": line.price_id,
        "description": sku.description,
        "quantity": focus.decimal(line.quantity_micros),
        "unit": sku.unit,
        "price": money.text(line.price_micros * MICRO),
        "amount": money.text(line.billed_pico),
        "saved_by_cap": money.text(line.list_pico - line.billed_pico),
        "price_book": line.book,
        "rate": sku.rate_kind,
        "source": sku.source.url,
        "source_read": sku.source.read,
        "grade": sku.source.grade,
        "estimated": line.estimated,
    }


def _time(us: int) -> str:
    return rfc3339(quantities.moment(us))
