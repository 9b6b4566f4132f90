"""Check a FOCUS 1.4 CostAndUsage file row by row: what the official validator can't see.

It takes a rule about allowed values for kept when any row keeps it, and multiplies in floating
point. Here every row is looked at by itself, products are exact, and rows are compared with each
other: one SKU for a price, one category for a service, no time billed twice.
"""

from __future__ import annotations

import csv
import re
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Final, TextIO

import msgspec

from fakecloud.billing import focus

MOST_FINDINGS: Final = 1000
_NUMBER: Final = re.compile(r"^-?\d+(\.\d+)?$")
_ENUMS: Final[dict[str, frozenset[str]]] = {
    "ChargeCategory": frozenset({"Usage", "Purchase", "Tax", "Credit", "Adjustment"}),
    "ChargeClass": frozenset({"", "Correction"}),
    "ChargeFrequency": frozenset({"One-Time", "Recurring", "Usage-Based"}),
    "PricingCategory": frozenset({"Standard", "Dynamic", "Committed", "Other"}),
    "ServiceCategory": frozenset({"Networking"}),
    "ServiceSubcategory": frozenset({"Application Networking", "Network Connectivity"}),
}
_TIMES: Final = ("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd")
_COSTS: Final = (
    "BilledCost", "ContractedCost", "EffectiveCost", "ListCost", "ContractedUnitPrice",
    "ListUnitPrice", "PricingQuantity", "ConsumedQuantity", "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice",
)  # fmt: skip
_FILLED: Final = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType",
    "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory",
    "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart",
    "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice", "EffectiveCost",
    "HostProviderName", "InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory",
    "PricingCurrency", "PricingCurrencyContractedUnitPrice", "PricingCurrencyEffectiveCost",
    "PricingCurrencyListUnitPrice", "PricingQuantity", "PricingUnit", "RegionId", "RegionName",
    "ResourceId", "ResourceName", "ResourceType", "ServiceCategory", "ServiceName",
    "ServiceProviderName", "ServiceSubcategory", "SkuId", "SkuMeter", "SkuPriceDetails",
    "SkuPriceId", "Tags",
)  # fmt: skip
_NEVER: Final = tuple(
    name
    for name in focus.COST_AND_USAGE
    if name.startswith(("Allocated", "Commitment", "CapacityReservation"))
    or name in ("AvailabilityZone", "ContractApplied")
)
_PAIRS: Final = (
    # Both or neither.
    ("InvoiceId", "InvoiceDetailId"), ("SubAccountId", "SubAccountType"),
    ("SubAccountId", "SubAccountName"),
)  # fmt: skip
_SAME: Final = (
    ("ContractedCost", "ListCost"), ("ContractedUnitPrice", "ListUnitPrice"),
    ("EffectiveCost", "BilledCost"), ("PricingCurrency", "BillingCurrency"),
    ("PricingCurrencyListUnitPrice", "ListUnitPrice"),
    ("PricingCurrencyContractedUnitPrice", "ContractedUnitPrice"),
    ("PricingCurrencyEffectiveCost", "EffectiveCost"), ("ConsumedUnit", "PricingUnit"),
    ("HostProviderName", "ServiceProviderName"), ("InvoiceIssuerName", "ServiceProviderName"),
    ("BillingAccountName", "BillingAccountId"), ("ConsumedQuantity", "PricingQuantity"),
)  # fmt: skip


_ALWAYS: Final = {
    "ChargeCategory": "Usage",
    "ChargeFrequency": "Usage-Based",
    "PricingCategory": "Standard",
    "BillingAccountType": "Project",
    "SubAccountType": "Cluster",
}
_DATED: Final = re.compile(r"\d{4}-\d\d|@")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong: in which row (1 is the first after the header) and column."""

    row: int
    column: str
    message: str


def check(file: TextIO) -> Iterator[Finding]:
    """Yield what is wrong with a file, at most `MOST_FINDINGS`; nothing: it is right."""
    for count, finding in enumerate(_check(file)):
        if count == MOST_FINDINGS:
            return
        yield finding


def _check(file: TextIO) -> Iterator[Finding]:
    reader = csv.DictReader(file)
    columns = reader.fieldnames or []
    yield from _columns(columns)
    if not set(focus.COST_AND_USAGE) <= set(columns):
        return
    between = _Between()
    for number, row in enumerate(reader, start=1):
        for column, message in list(_row(row)) or between.see(row):
            yield Finding(row=number, column=column, message=message)


def _columns(columns: Sequence[str]) -> Iterator[Finding]:
    for name in focus.COST_AND_USAGE:
        if name not in columns:
            yield Finding(row=0, column=name, message="the column is missing")
    for name in columns:
        if name not in focus.COST_AND_USAGE and not re.match(r"^x_[A-Z][A-Za-z0-9]*$", name):
            yield Finding(row=0, column=name, message="a column of one's own is called x_Name")


def _row(row: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    shape = [*_filled(row), *_formats(row)]
    yield from shape
    if not shape:
        for rule in (_values, _periods, _products):
            yield from rule(row)


def _filled(row: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in _FILLED:
        if not row.get(name):
            yield name, "must not be null"
    for name in _NEVER:
        if row.get(name):
            yield name, "must be null: the product has no such thing"
    for one, other in _PAIRS:
        if bool(row.get(one)) != bool(row.get(other)):
            yield other, f"must be null exactly if {one} is"


def _formats(row: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for names, right, what in (
        (_TIMES, is_time, "a UTC time such as 2026-11-01T00:00:00Z"),
        (_COSTS, is_number, "a plain decimal"),
        (("Tags", "SkuPriceDetails"), _is_object, "a JSON object of texts"),
        (("BillingCurrency",), is_currency, "a code such as USD"),
    ):
        for name in names:
            if row[name] and not right(row[name]):
                yield name, f"{row[name]!r} is not {what}"
    for name, allowed in _ENUMS.items():
        if row[name] not in allowed and (row[name] or name in _FILLED):
            yield name, f"{row[name]!r} is not one of {', '.join(sorted(allowed - {''}))}"


def _values(row: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for one, other in _SAME:
        if row[one] != row[other]:
            yield one, f"differs from {other}"
    for name, value in _ALWAYS.items():
        if row[name] not in (value, "" if name == "SubAccountType" else value):
            yield name, f"is not {value}"
    book = row.get("x_PriceBookVersion", "").partition("@")[0]
    of_book, _, of_sku = row["SkuPriceId"].partition("/")
    for name, wrong, message in (
        ("ResourceName", row["ResourceName"] == row["ResourceId"], "is the ResourceId"),
        ("SkuPriceId", not of_sku.startswith(row["SkuId"]), "is no price of SkuId"),
        ("SkuPriceId", bool(_DATED.search(row["SkuPriceId"])), "has a date or version in it"),
        ("x_PriceBookVersion", bool(book) and book != of_book, "is not the book of SkuPriceId"),
        ("ListUnitPrice", _decimal(row["ListUnitPrice"]) < 0, "is negative"),
    ):
        if wrong:
            yield name, message


def _periods(row: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    start, end = row["ChargePeriodStart"], row["ChargePeriodEnd"]
    if start >= end:
        yield "ChargePeriodEnd", "is not after ChargePeriodStart"
    first = row["BillingPeriodStart"]
    after = next_month(first)
    if not first.endswith("-01T00:00:00Z") or row["BillingPeriodEnd"] != after:
        yield "BillingPeriodEnd", "BillingPeriodStart and End are not a month of UTC"
    inside = first <= start < after
    if inside and end > after:
        yield "ChargePeriodEnd", "is after the end of the billing period"
    if not inside and not row["ChargeClass"]:
        yield "ChargePeriodStart", "is outside of the billing period, and it is no correction"
    if row["ChargeClass"] and (inside or not row.get("x_CorrectsLineId", "x")):
        yield "ChargeClass", "is a correction of no other month, or of nothing"


def _products(row: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    listed = _decimal(row["ListUnitPrice"]) * _decimal(row["PricingQuantity"])
    if listed != _decimal(row["ListCost"]):
        yield "ListCost", f"is not ListUnitPrice times PricingQuantity, {listed}"
    saved = _decimal(row["ListCost"]) - _decimal(row["BilledCost"])
    if "x_CapSavings" in row and saved != _decimal(row["x_CapSavings"]):
        yield "x_CapSavings", "is not ListCost less BilledCost"
    corrects = row["ChargeClass"] or row.get("x_CorrectsLineId")
    if not corrects and not 0 <= _decimal(row["BilledCost"]) <= _decimal(row["ListCost"]):
        yield "BilledCost", "is not between 0 and ListCost"


class _Between:
    """What rows must have in common. One value is remembered for each price, service, resource."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str, str], str] = {}
        self._until: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
        self._ids: set[str] = set()

    def see(self, row: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        for key, names in (
            ("SkuPriceId", ("SkuId", "PricingUnit", "SkuMeter", "SkuPriceDetails")),
            ("ServiceName", ("ServiceCategory", "ServiceSubcategory")),
            ("SkuMeter", ("ServiceName", "ResourceType")),
            ("ResourceId", ("BillingAccountId",)),
            ("RegionId", ("RegionName",)),
            ("SubAccountId", ("SubAccountName",)),
            ("x_PriceBookVersion", ("BillingCurrency",)),
        ):
            if not row.get(key):
                continue
            for name in names:
                first = self._first.setdefault((key, row[key], name), row[name])
                if row[name] != first:
                    yield name, f"{row[key]} had {first!r} before"
        corrects = row.get("x_CorrectsLineId")
        if corrects and not row["ChargeClass"] and corrects not in self._ids:
            yield "x_CorrectsLineId", "corrects no row before it"
        if row.get("x_UsageLineId"):
            if row["x_UsageLineId"] in self._ids:
                yield "x_UsageLineId", "is there twice"
            self._ids.add(row["x_UsageLineId"])
        yield from self._overlap(row)

    def _overlap(self, row: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """No time twice for the same price, resource and receiver, unless it corrects another."""
        if row["ChargeClass"] or row.get("x_CorrectsLineId"):
            return
        key = (row["ResourceId"], row["SkuPriceId"], row["Tags"])
        periods = self._until.setdefault(key, [])
        period = (row["ChargePeriodStart"], row["ChargePeriodEnd"])
        at = bisect(periods, period)
        before, after = periods[max(0, at - 1) : at], periods[at : at + 1]
        if any(period[0] < end for _, end in before) or any(s < period[1] for s, _ in after):
            yield "ChargePeriodStart", "overlaps another charge of this resource and price"
        periods.insert(at, period)


def is_time(text: str) -> bool:
    """Say whether it is a UTC time as FOCUS writes it."""
    try:
        datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return False
    return len(text) == len("2026-11-01T00:00:00Z")


def is_number(text: str) -> bool:
    """Say whether it is a plain decimal."""
    return _NUMBER.match(text) is not None


def is_currency(text: str) -> bool:
    """Say whether it could be a code of ISO 4217."""
    return re.match(r"^[A-Z]{3}$", text) is not None


def next_month(text: str) -> str:
    """Return the beginning of the month after the one that begins at `text`."""
    year, month = int(text[:4]), int(text[5:7])
    year, month = (year + 1, 1) if month == 12 else (year, month + 1)
    return f"{year:04d}-{month:02d}-01T00:00:00Z"


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("NaN")


def _is_object(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=dict[str, str])
    except msgspec.MsgspecError:
        return False
    return True
