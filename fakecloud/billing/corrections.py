"""What changes of days that are closed: traffic that came late, as lines beside those there are.

Nothing is ever rewritten. What the lines should be, less what they are, is added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from fakecloud.billing.usage import Line

_Key = tuple[str, str, str, str, int, int, str, int]


class _Sum(msgspec.Struct):
    line: Line
    quantity: int = 0
    billed: int = 0
    estimated: bool = False


def between(booked: Iterable[Line], due: Iterable[Line]) -> Iterator[Line]:
    """Yield lines that make what is `booked` into what is `due`, in the order of both.

    Their quantities and amounts may be negative; prices never are. Nothing when both agree.
    """
    sums: dict[_Key, _Sum] = {}
    for lines, sign in ((booked, -1), (due, 1)):
        for line in lines:
            one = sums.setdefault(key(line), _Sum(line=line))
            one.quantity += sign * line.quantity_micros
            one.billed += sign * line.billed_pico
            one.estimated = one.estimated or line.estimated
    for one in sums.values():
        if one.quantity or one.billed:
            yield msgspec.structs.replace(
                one.line,
                quantity_micros=one.quantity,
                billed_pico=one.billed,
                estimated=one.estimated,
            )


def key(line: Line) -> _Key:
    """Return what a line and its corrections have in common."""
    return (
        line.resource,
        line.sku,
        line.price_id,
        line.book,
        line.start_us,
        line.end_us,
        line.attribution,
        line.price_micros,
    )
