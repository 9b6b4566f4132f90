"""The cost report: charges grouped, totalled, and what goes on costing per month."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

import msgspec

from fakecloud.billing import money, quantities
from fakecloud.billing.usage import Attribution, Charge
from fakecloud.clock import rfc3339
from fakecloud.errors import InvalidParameter

Key = tuple[str | None, ...]
_Reader = Callable[[Charge, Attribution, tzinfo], str | None]


def _moment(charge: Charge, zone: tzinfo) -> datetime:
    return quantities.moment(charge.start_us).astimezone(zone)


_TOKENS: Final[dict[str, _Reader]] = {
    "project": lambda _, of, __: of.account,
    "cluster": lambda _, of, __: of.labels.get("cluster"),
    "namespace": lambda _, of, __: of.labels.get("namespace"),
    "service": lambda _, of, __: of.labels.get("service"),
    "load_balancer": lambda _, of, __: of.name,
    "sku": lambda charge, _, __: charge.sku,
    "price_book": lambda charge, _, __: charge.book,
    "hour": lambda charge, _, zone: _moment(charge, zone).isoformat(timespec="minutes"),
    "day": lambda charge, _, zone: _moment(charge, zone).date().isoformat(),
    "month": lambda charge, _, zone: _moment(charge, zone).strftime("%Y-%m"),
}
OVER_TIME: Final = frozenset({"hour", "day", "month"})


_UNATTRIBUTED: Final = {
    "project": frozenset[str](),
    "sku": frozenset({"sku"}),
    "price_book": frozenset({"book"}),
    **{token: frozenset[str]() for token in ("hour", "day", "month")},
}


def needed(group_by: Iterable[str]) -> frozenset[str]:
    """Return what of charges must be told apart in a report: fields of `Charge`."""
    whole = frozenset({"attribution"})
    return frozenset().union(*(_UNATTRIBUTED.get(token, whole) for token in group_by))


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a report is to be about: [start, end), in groups, days and months of a time zone."""

    start: datetime
    end: datetime
    group_by: tuple[str, ...]
    zone: tzinfo = UTC


class Group(msgspec.Struct):
    """What one group comes to."""

    billed_pico: int = 0
    list_pico: int = 0
    run_rate_pico: int = 0
    estimated: bool = False


def build(
    asked: Asked,
    charges: Iterable[Charge],
    monthly: Iterable[Charge],
    attributions: Mapping[str, Attribution],
) -> dict[Key, Group]:
    """Return the groups of a report. They add up to all charges exactly.

    monthly: what the things that are there at the end cost in 730 hours; where it is grouped by
    time that has no meaning, so it is left out there.
    Raises: InvalidParameter for an unknown token in `group_by`.
    """
    readers = [reader(token) for token in asked.group_by]
    groups: defaultdict[Key, Group] = defaultdict(Group)
    for charge in charges:
        of = attributions[charge.attribution]
        group = groups[tuple(read(charge, of, asked.zone) for read in readers)]
        group.billed_pico += charge.billed_pico
        group.list_pico += charge.list_pico
        group.estimated = group.estimated or charge.estimated
    if not OVER_TIME & set(asked.group_by):
        for charge in monthly:
            of = attributions[charge.attribution]
            key = tuple(read(charge, of, asked.zone) for read in readers)
            groups[key].run_rate_pico += charge.billed_pico
    return dict(groups)


def document(
    asked: Asked,
    groups: Mapping[Key, Group],
    *,
    currency: str,
    price_book: str,
    complete_until: datetime,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the report's document; amounts are exact decimal strings."""
    ordered = sorted(groups, key=lambda key: [(part is not None, part or "") for part in key])
    return {
        "from": rfc3339(asked.start),
        "to": rfc3339(asked.end),
        "currency": currency,
        "price_book": price_book,
        "complete_until": rfc3339(complete_until),
        "estimated": any(group.estimated for group in groups.values()),
        "notes": list(notes),
        "groups": [
            {
                "key": dict(zip(asked.group_by, key, strict=True)),
                "amount": money.text(groups[key].billed_pico),
                "list_amount": money.text(groups[key].list_pico),
                "monthly_run_rate": money.text(groups[key].run_rate_pico),
            }
            for key in ordered
        ],
        "total": money.text(sum(group.billed_pico for group in groups.values())),
        "monthly_run_rate": money.text(sum(group.run_rate_pico for group in groups.values())),
    }


def to_csv(report: dict[str, Any], group_by: Sequence[str]) -> str:
    """Return the groups as CSV with a header; the total is the sum of the rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*group_by, "amount", "monthly_run_rate", "currency", "from", "to"])
    for group in report["groups"]:
        writer.writerow(
            [
                *(cell(group["key"][name]) for name in group_by),
                group["amount"],
                group["monthly_run_rate"],
                report["currency"],
                report["from"],
                report["to"],
            ]
        )
    return text.getvalue()


def cell(value: str | None) -> str:
    """Return a cell that a spreadsheet doesn't take for a formula."""
    if value is None:
        return ""
    return f"'{value}" if value.lstrip()[:1] in ("=", "+", "-", "@") else value


def reader(token: str) -> _Reader:
    """Return what reads a group's key. Raises: InvalidParameter that names what there is."""
    if token.startswith("label:") and len(token) > len("label:"):
        label = token.removeprefix("label:")
        return lambda _, of, __: of.labels.get(label)
    found = _TOKENS.get(token)
    if found is None:
        known = ", ".join([*_TOKENS, "label:NAME"])
        raise InvalidParameter(f"group_by={token!r} is not one of {known}")
    return found
