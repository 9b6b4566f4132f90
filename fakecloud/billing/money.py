"""Money as integers: micro-units for prices, pico-units for amounts. Exact, so never rounded."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Final

MICRO: Final = 10**6
PICO: Final = 10**12


def text(pico: int) -> str:
    """Return an amount as an exact decimal: no trailing zeros, at least two decimals."""
    if pico < 0:
        return "-" + text(-pico)
    digits = str(pico).zfill(13)
    return digits[:-12] + "." + digits[-12:].rstrip("0").ljust(2, "0")


@lru_cache(maxsize=4096)
def micros(price: str) -> int:
    """Return a decimal price in micro-units. Raises: ValueError for more than six decimals."""
    try:
        scaled = Decimal(price) * MICRO
    except InvalidOperation:
        raise ValueError(f"{price!r} is not a decimal number") from None
    if not scaled.is_finite() or scaled != scaled.to_integral_value() or scaled < 0:
        raise ValueError(f"{price!r} is negative or has more than six decimals")
    return int(scaled)
