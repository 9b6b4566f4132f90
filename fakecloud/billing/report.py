"""The cost report: charges grouped, totalled, and what goes on costing per month."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from itertools import zip_longest
from typing import Any, Final

import msgspec

from fakecloud.billing import money, quantities
from fakecloud.billing.quantities import DAY_US
from fakecloud.billing.usage import Attribution, Charge, Series
from fakecloud.clock import rfc3339
from fakecloud.errors import InvalidParameter

Key = tuple[str | None, ...]
_Reader = Callable[[Charge | Series, Attribution], str | None]


OVER_TIME: Final[dict[str, Callable[[datetime], str]]] = {
    "hour": lambda at: at.isoformat(timespec="minutes"),
    "day": lambda at: at.date().isoformat(),
    "month": lambda at: at.strftime("%Y-%m"),
}
_TOKENS: Final[dict[str, _Reader]] = {
    "project": lambda _, of: of.account,
    "cluster": lambda _, of: of.labels.get("cluster"),
    "namespace": lambda _, of: of.labels.get("namespace"),
    "service": lambda _, of: of.labels.get("service"),
    "load_balancer": lambda _, of: of.name,
    "sku": lambda charge, _: charge.sku,
    "price_book": lambda charge, _: charge.book,
    **dict.fromkeys(OVER_TIME, lambda _, __: None),  # `_Keys` says
}
_UNATTRIBUTED: Final = {
    "project": frozenset[str](),
    "sku": frozenset({"sku"}),
    "price_book": frozenset({"book"}),
    **dict.fromkeys(OVER_TIME, frozenset[str]()),
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
    daily: Iterable[Series] = (),
) -> dict[Key, Group]:
    """Return the groups of a report. They add up to all charges, daily ones too, exactly.

    monthly: what the things that are there at the end cost in 730 hours; where it is grouped by
    time that has no meaning, so it is left out there.
    Raises: InvalidParameter for an unknown token in `group_by`.
    """
    keys = _Keys(asked, attributions)
    groups: defaultdict[Key, Group] = defaultdict(Group)
    for charge in charges:
        group = groups[keys.of(charge)]
        group.billed_pico += charge.billed_pico
        group.list_pico += charge.list_pico
        group.estimated = group.estimated or charge.estimated
    _add_days(groups, daily, keys)
    if not OVER_TIME.keys() & set(asked.group_by):
        for charge in monthly:
            groups[keys.of(charge)].run_rate_pico += charge.billed_pico
    return dict(groups)


def _add_days(groups: defaultdict[Key, Group], daily: Iterable[Series], keys: _Keys) -> None:
    """Add series to each other before their days are looked at: days are many."""
    sums: defaultdict[tuple[Key, int], list[Series]] = defaultdict(list)
    for one in daily:
        sums[keys.without_time(one), one.first_day].append(one)
    for (part, first_day), some in sums.items():
        listed = [
            sum(values) for values in zip_longest(*(one.list_pico for one in some), fillvalue=0)
        ]
        billed = [
            sum(values) for values in zip_longest(*(one.billed_pico for one in some), fillvalue=0)
        ]
        flags = [max(values) for values in zip_longest(*(one.flags for one in some), fillvalue=0)]
        for day, flag in enumerate(flags):
            if flag:
                group = groups[keys.at(part, (first_day + day) * DAY_US)]
                group.list_pico += listed[day]
                group.billed_pico += billed[day]
                group.estimated = group.estimated or flag > 1


class _Keys:
    """Which group a charge is in, looked up once for all charges that are alike."""

    def __init__(self, asked: Asked, attributions: Mapping[str, Attribution]) -> None:
        self._zone = asked.zone
        self._readers = [reader(token) for token in asked.group_by]
        self._times = [
            (place, OVER_TIME[token])
            for place, token in enumerate(asked.group_by)
            if token in OVER_TIME
        ]
        self._attributions = attributions
        self._parts: dict[tuple[str, str, str], Key] = {}
        self._keys: dict[tuple[Key, int], Key] = {}

    def of(self, charge: Charge) -> Key:
        part = self.without_time(charge)
        return self.at(part, charge.start_us) if self._times else part

    def without_time(self, charge: Charge | Series) -> Key:
        """Return a key without its hour, day or month."""
        alike = (charge.attribution, charge.sku, charge.book)
        part = self._parts.get(alike)
        if part is None:
            of = self._attributions[charge.attribution]
            part = self._parts[alike] = tuple(read(charge, of) for read in self._readers)
        return part

    def at(self, part: Key, start_us: int) -> Key:
        """Return the whole key of a moment."""
        key = self._keys.get((part, start_us))
        if key is None:
            at, whole = quantities.moment(start_us).astimezone(self._zone), list(part)
            for place, written in self._times:
                whole[place] = written(at)
            key = self._keys[part, start_us] = tuple(whole)
        return key


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
        return lambda _, of: of.labels.get(label)
    found = _TOKENS.get(token)
    if found is None:
        known = ", ".join([*_TOKENS, "label:NAME"])
        raise InvalidParameter(f"group_by={token!r} is not one of {known}")
    return found
