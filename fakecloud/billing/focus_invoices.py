"""Two more datasets of FOCUS 1.4 beside CostAndUsage: BillingPeriod and InvoiceDetail.

A month is a billing period and has one invoice, provisional ("Open") until the month is closed.
An InvoiceDetail is what one SKU of one price book comes to in it, exactly; what corrects an
earlier month is a detail of its own that refers to that month's invoice. Details that come to
nothing are left out. CostAndUsage has the ids of both once the month is closed; its rows with an
InvoiceDetailId add up to that detail's BilledCost without any difference, and the invoice's amount
due is their sum in whole hundredths, the only rounding there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from fakecloud.billing import focus, money, quantities

BILLING_PERIOD: Final = (
    "BillingPeriodCreated", "BillingPeriodEnd", "BillingPeriodLastUpdated", "BillingPeriodStart",
    "BillingPeriodStatus", "InvoiceIssuerName",
)  # fmt: skip
INVOICE_DETAIL: Final = (
    "BilledCost", "BillingAccountId", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "ChargeCategory", "InvoiceDetailCreated", "InvoiceDetailDescription", "InvoiceDetailGrain",
    "InvoiceDetailId", "InvoiceDetailLastUpdated", "InvoiceId", "InvoiceIssueDate",
    "InvoiceIssueStatus", "InvoiceIssuerName", "PaymentDueDate", "PaymentTerms",
    "ReferenceInvoiceId",
)  # fmt: skip
TERMS: Final = "Nothing is to be paid"
_KINDS: Final = {"Cost": "Decimal", "Price": "Decimal", "Quantity": "Decimal"}
_TIMES: Final = ("Start", "End", "Created", "LastUpdated", "Date")
_OBJECTS: Final = frozenset({"Tags", "SkuPriceDetails", "InvoiceDetailGrain"})


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What a SKU of a price book, by its name, comes to in a month; `of`: whose charges they are,
    the month itself or the earlier one that is corrected."""

    book: str
    sku: str
    currency: str
    of: str
    billed_pico: int


class Month(msgspec.Struct, frozen=True, kw_only=True):
    """A month of an account, such as 2026-11; `issued_us`: when it was closed, if it is."""

    account: str
    period: str
    begun_us: int
    now_us: int
    issued_us: int | None
    parts: Sequence[Part]


def periods(months: Sequence[Month]) -> Iterator[dict[str, str]]:
    """Yield a row of BillingPeriod for each month."""
    for month in months:
        first, after = quantities.month_of(month.begun_us)
        yield {
            "BillingPeriodCreated": focus.time(first),
            "BillingPeriodEnd": focus.time(after),
            "BillingPeriodLastUpdated": focus.time(_updated(month)),
            "BillingPeriodStart": focus.time(first),
            "BillingPeriodStatus": "Open" if month.issued_us is None else "Closed",
            "InvoiceIssuerName": focus.PROVIDER,
        }


def details(months: Sequence[Month]) -> Iterator[dict[str, str]]:
    """Yield a row of InvoiceDetail for each SKU of each month that comes to anything."""
    for month in months:
        first, after = quantities.month_of(month.begun_us)
        invoice = f"{month.account}-{month.period}"
        for part in month.parts:
            if not part.billed_pico:
                continue
            late = part.of != month.period
            grain = {"SkuId": part.sku, "x_ChargeMonth": part.of, "x_PriceBook": part.book}
            yield {
                "BilledCost": money.text(part.billed_pico),
                "BillingAccountId": month.account,
                "BillingCurrency": part.currency,
                "BillingPeriodEnd": focus.time(after),
                "BillingPeriodStart": focus.time(first),
                "ChargeCategory": "Usage",
                "InvoiceDetailCreated": focus.time(_updated(month)),
                "InvoiceDetailDescription": f"{part.sku} of {part.of}, prices of {part.book}",
                "InvoiceDetailGrain": msgspec.json.encode(grain, order="sorted").decode(),
                "InvoiceDetailId": focus.detail_id(invoice, part.book, part.sku, part.of),
                "InvoiceDetailLastUpdated": focus.time(_updated(month)),
                "InvoiceId": invoice,
                "InvoiceIssueDate": "" if month.issued_us is None else focus.time(month.issued_us),
                "InvoiceIssueStatus": "Open" if month.issued_us is None else "Issued",
                "InvoiceIssuerName": focus.PROVIDER,
                "PaymentDueDate": "",
                "PaymentTerms": TERMS,
                "ReferenceInvoiceId": f"{month.account}-{part.of}" if late else invoice,
            }


def metadata(dataset: str, columns: Sequence[str]) -> dict[str, object]:
    """Return what a reader must know of a dataset's file: version and columns with their types."""
    return {
        "DataGenerator": {"DataGenerator": focus.PROVIDER},
        "Schema": {
            "SchemaId": f"{focus.PROVIDER}-{dataset}-{focus.VERSION}",
            "FocusVersion": focus.VERSION,
            "Dataset": dataset,
            "x_CorrectionStyle": "Delta",
            "ColumnDefinition": [
                {"ColumnName": name, "DataType": _kind(name), **_digits(_kind(name))}
                for name in columns
            ],
        },
    }


def _kind(column: str) -> str:
    if column in _OBJECTS:
        return "JSON"
    if column == "x_CapSavings":
        return "Decimal"
    if any(column.endswith(end) for end in _TIMES):
        return "Date/Time"
    return next((kind for end, kind in _KINDS.items() if column.endswith(end)), "String")


def _digits(kind: str) -> Mapping[str, int]:
    """Return how many digits a decimal has at most: amounts are exact to 10⁻¹²."""
    return {"NumberPrecision": 38, "NumericScale": 12} if kind == "Decimal" else {}


def _updated(month: Month) -> int:
    return month.now_us if month.issued_us is None else month.issued_us
