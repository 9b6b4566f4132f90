"""Export as FOCUS 1.4 (FinOps Open Cost and Usage Specification, ratified 2026-06-04).

Its dataset CostAndUsage as rows of text by column; two more are in `focus_invoices`.
Null is an empty cell, times are UTC without fractions, numbers plain decimals. All columns of
the specification are there, also those that are never filled; our own follow, called x_.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final, TextIO

import msgspec

from fakecloud.billing import money, quantities, rating
from fakecloud.billing.prices import PriceBook, Sku
from fakecloud.billing.quantities import MICRO
from fakecloud.billing.usage import Attribution, Booked, Line

VERSION: Final = "1.4"
PROVIDER: Final = "fakecloud"

COST_AND_USAGE: Final = (
    "AllocatedMethodDetails", "AllocatedMethodId", "AllocatedResourceId", "AllocatedResourceName",
    "AllocatedTags", "AvailabilityZone", "BilledCost", "BillingAccountId", "BillingAccountName",
    "BillingAccountType", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "CapacityReservationId", "CapacityReservationStatus", "ChargeCategory", "ChargeClass",
    "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart",
    "CommitmentDiscountCategory", "CommitmentDiscountId", "CommitmentDiscountName",
    "CommitmentDiscountQuantity", "CommitmentDiscountStatus", "CommitmentDiscountType",
    "CommitmentDiscountUnit", "CommitmentProgramEligibilityDetails", "ConsumedQuantity",
    "ConsumedUnit", "ContractApplied", "ContractedCost", "ContractedUnitPrice", "EffectiveCost",
    "HostProviderName", "InvoiceDetailId", "InvoiceId", "InvoiceIssuerName", "ListCost",
    "ListUnitPrice", "PricingCategory", "PricingCurrency", "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice", "PricingQuantity",
    "PricingUnit", "RegionId", "RegionName", "ResourceId", "ResourceName", "ResourceType",
    "ServiceCategory", "ServiceName", "ServiceProviderName", "ServiceSubcategory", "SkuId",
    "SkuMeter", "SkuPriceDetails", "SkuPriceId", "SubAccountId", "SubAccountName",
    "SubAccountType", "Tags",
)  # fmt: skip
OWN: Final = (
    "x_CapSavings", "x_CorrectsLineId", "x_Estimated", "x_PriceBookVersion", "x_ServiceUid",
    "x_UsageLineId",
)  # fmt: skip
COLUMNS: Final = (*COST_AND_USAGE, *OWN)

_SERVICES: Final[dict[str, tuple[str, str, str, str]]] = {
    # meter: ServiceName, ServiceSubcategory, ResourceType, SkuMeter; all are Networking
    "alive": ("Load Balancing", "Application Networking", "Load Balancer", "Load Balancer Hours"),
    "rules": ("Load Balancing", "Application Networking", "Load Balancer", "Forwarding Rules"),
    "capacity": ("Load Balancing", "Application Networking", "Load Balancer", "Capacity Units"),
    "bytes": ("Load Balancing", "Application Networking", "Load Balancer", "Data Processed"),
    "bytes_in": ("Load Balancing", "Application Networking", "Load Balancer", "Data Processed In"),
    "requests": ("Load Balancing", "Application Networking", "Load Balancer", "Requests"),
    "ipv4": ("Public IP Addresses", "Network Connectivity", "Load Balancer", "Public IPv4 Hours"),
    "ipv4_idle": (
        "Public IP Addresses", "Network Connectivity", "Public IP Address", "Idle IPv4 Hours",
    ),
    "bytes_out": ("Data Transfer", "Network Connectivity", "Load Balancer", "Egress"),
}  # fmt: skip


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A line with all that its row says; `period_us`: a moment of the month it is billed in."""

    id: str
    line: Line
    of: Attribution
    sku: Sku
    book: PriceBook
    period_us: int
    corrects: str | None = None


def row(entry: Entry, invoice: str | None = None) -> dict[str, str]:
    """Return a row of CostAndUsage; columns that aren't in it are null.

    invoice: the id of the one it is on, once there is one.
    """
    line, sku, book, labels = entry.line, entry.sku, entry.book, entry.of.labels
    first, after = quantities.month_of(entry.period_us)
    late = first != quantities.month_of(line.start_us)[0]
    month = quantities.moment(line.start_us).strftime("%Y-%m")
    service, subcategory, resource_type, meter = _SERVICES[sku.meter]
    price = money.text(line.price_micros * MICRO)
    listed = money.text(line.list_pico)
    billed = money.text(line.billed_pico)
    quantity = decimal(line.quantity_micros)
    return {
        "BilledCost": billed,
        "BillingAccountId": entry.of.account,
        "BillingAccountName": entry.of.account,
        "BillingAccountType": "Project",
        "BillingCurrency": book.currency,
        "BillingPeriodEnd": time(after),
        "BillingPeriodStart": time(first),
        "ChargeCategory": "Usage",
        "ChargeClass": "Correction" if late else "",
        "ChargeDescription": f"{sku.description}, {price} {book.currency} per {sku.unit}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": time(line.end_us),
        "ChargePeriodStart": time(line.start_us),
        "ConsumedQuantity": quantity,
        "ConsumedUnit": sku.unit,
        "ContractedCost": listed,
        "ContractedUnitPrice": price,
        "EffectiveCost": billed,
        "HostProviderName": PROVIDER,
        "InvoiceDetailId": detail_id(invoice, book.name, sku.id, month) if invoice else "",
        "InvoiceId": invoice or "",
        "InvoiceIssuerName": PROVIDER,
        "ListCost": listed,
        "ListUnitPrice": price,
        "PricingCategory": "Standard",
        "PricingCurrency": book.currency,
        "PricingCurrencyContractedUnitPrice": price,
        "PricingCurrencyEffectiveCost": billed,
        "PricingCurrencyListUnitPrice": price,
        "PricingQuantity": quantity,
        "PricingUnit": sku.unit,
        "RegionId": "local-1",
        "RegionName": "Local One",
        "ResourceId": line.resource,
        "ResourceName": entry.of.name,
        "ResourceType": resource_type,
        "ServiceCategory": "Networking",
        "ServiceName": service,
        "ServiceProviderName": PROVIDER,
        "ServiceSubcategory": subcategory,
        "SkuId": sku.id,
        "SkuMeter": meter,
        "SkuPriceDetails": _json({"x_PriceBook": book.name, "x_Rate": sku.rate_kind}),
        "SkuPriceId": line.price_id,
        "SubAccountId": labels.get("cluster-uid", ""),
        "SubAccountName": labels.get("cluster", "") if "cluster-uid" in labels else "",
        "SubAccountType": "Cluster" if "cluster-uid" in labels else "",
        "Tags": _json(tags(labels)),
        "x_CapSavings": money.text(line.list_pico - line.billed_pico),
        "x_CorrectsLineId": entry.corrects or "",
        "x_Estimated": "true" if line.estimated else "false",
        "x_PriceBookVersion": book.id,
        "x_ServiceUid": labels.get("service-uid", ""),
        "x_UsageLineId": entry.id,
    }


def write(rows: Iterable[Mapping[str, str]], to: TextIO, columns: Iterable[str] = COLUMNS) -> int:
    """Write rows as CSV with a header; return how many there were."""
    writer = csv.DictWriter(to, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    count = 0
    for one in rows:
        writer.writerow(one)
        count += 1
    return count


def detail_id(invoice: str, book: str, sku: str, month: str) -> str:
    """Return the id of what a SKU of a price book comes to on an invoice, for charges of a month."""
    return f"{invoice}/{book}/{sku}/{month}"


def tags(labels: Mapping[str, str]) -> dict[str, str]:
    """Return labels as tags: those that the controller sets by their names in Kubernetes."""
    known = {
        "cluster": "kubernetes.io/cluster",
        "namespace": "kubernetes.io/namespace",
        "service": "kubernetes.io/service",
        "service-uid": "kubernetes.io/service-uid",
    }
    return {known.get(key, key): value for key, value in sorted(labels.items())}


def time(us: int) -> str:
    """Return microseconds of Unix time as FOCUS writes it."""
    return quantities.moment(us).strftime("%Y-%m-%dT%H:%M:%SZ")


def decimal(micros: int) -> str:
    """Return micro-units as a plain decimal."""
    if micros < 0:
        return "-" + decimal(-micros)
    digits = str(micros).zfill(7)
    return (digits[:-6] + "." + digits[-6:]).rstrip("0").rstrip(".")


def _json(value: Mapping[str, str]) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def entries(
    lines: Iterable[Booked],
    attributions: Mapping[str, Attribution],
    books: Mapping[str, PriceBook],
) -> Iterator[Entry]:
    """Yield lines with what their rows need; `books` by id."""
    for one in lines:
        book = books[one.line.book]
        month = datetime.fromisoformat(f"{one.period}-01T00:00:00Z")
        yield Entry(
            id=one.id,
            line=one.line,
            of=attributions[one.line.attribution],
            sku=sku_of(one.line, book),
            book=book,
            period_us=quantities.microseconds(month),
            corrects=one.corrects,
        )


def sku_of(line: Line, book: PriceBook) -> Sku:
    """Return which SKU of the book a line is of."""
    return next(
        one
        for one in book.skus
        if one.id == line.sku and line.price_id.startswith(rating.price_id(book, one))
    )
