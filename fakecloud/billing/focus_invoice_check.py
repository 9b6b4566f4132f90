"""Check any file of FOCUS 1.4 that this product writes, and an invoice against its charges."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Final, TextIO

import msgspec

from fakecloud.billing import focus, focus_check, focus_invoices
from fakecloud.billing.focus_check import Finding

_Row = Mapping[str, str]
_MAY_BE_NULL: Final = frozenset({"InvoiceIssueDate", "PaymentDueDate"})


def check(file: TextIO) -> Iterator[Finding]:
    """Yield what is wrong with a file of any of the three datasets, told by its header."""
    columns = next(csv.reader([file.readline()]), [])
    file.seek(0)
    if "BillingPeriodStatus" in columns:
        yield from _check(file, focus_invoices.BILLING_PERIOD, "BillingPeriodStart", _period)
    elif "InvoiceIssueStatus" in columns:
        yield from _check(file, focus_invoices.INVOICE_DETAIL, "InvoiceDetailId", _detail)
    else:
        yield from focus_check.check(file)


def reconcile(charges: TextIO, details: TextIO) -> Iterator[Finding]:
    """Yield every InvoiceDetail that isn't the sum of its rows of CostAndUsage, exactly.

    Both files are of the same whole months; open ones, whose charges have no ids yet, are passed
    over.
    """
    billed: defaultdict[str, Decimal] = defaultdict(Decimal)
    for row in csv.DictReader(charges):
        if row["InvoiceDetailId"]:
            billed[row["InvoiceDetailId"]] += Decimal(row["BilledCost"])
    number = 0
    for number, row in enumerate(csv.DictReader(details), start=1):
        due = billed.pop(row["InvoiceDetailId"], Decimal())
        if row["InvoiceIssueStatus"] == "Issued" and due != Decimal(row["BilledCost"]):
            yield Finding(row=number, column="BilledCost", message=f"its charges come to {due}")
    for name, amount in billed.items():
        if amount:
            yield Finding(
                row=number + 1, column="InvoiceDetailId", message=f"{name}, {amount}, isn't there"
            )


def _check(
    file: TextIO,
    columns: tuple[str, ...],
    unique: str,
    rule: Callable[[_Row], Iterator[tuple[str, str]]],
) -> Iterator[Finding]:
    reader = csv.DictReader(file)
    missing = [name for name in columns if name not in (reader.fieldnames or [])]
    for name in missing:
        yield Finding(row=0, column=name, message="the column is missing")
    if missing:
        return
    seen: set[str] = set()
    for number, row in enumerate(reader, start=1):
        wrong = list(_shape(row, columns)) or list(rule(row))
        if row[unique] in seen:
            wrong.append((unique, "is there twice"))
        seen.add(row[unique])
        for column, message in wrong:
            yield Finding(row=number, column=column, message=message)


def _shape(row: _Row, columns: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for name in columns:
        if not row[name] and name not in _MAY_BE_NULL:
            yield name, "must not be null"
        timed = name.endswith(("Start", "End", "Created", "LastUpdated", "Date"))
        if row[name] and timed and not focus_check.is_time(row[name]):
            yield name, f"{row[name]!r} is not a UTC time such as 2026-11-01T00:00:00Z"


def _month(row: _Row, created: str, updated: str) -> Iterator[tuple[str, str]]:
    first = row["BillingPeriodStart"]
    after = focus_check.next_month(first)
    if not first.endswith("-01T00:00:00Z") or row["BillingPeriodEnd"] != after:
        yield "BillingPeriodEnd", "BillingPeriodStart and End are not a month of UTC"
    if not first <= row[created] <= row[updated]:
        yield created, f"is before the month, or after {updated}"
    if row["InvoiceIssuerName"] != focus.PROVIDER:
        yield "InvoiceIssuerName", f"is not {focus.PROVIDER}"


def _period(row: _Row) -> Iterator[tuple[str, str]]:
    yield from _month(row, "BillingPeriodCreated", "BillingPeriodLastUpdated")
    if row["BillingPeriodStatus"] not in ("Open", "Closed"):
        yield "BillingPeriodStatus", "is neither Open nor Closed"
    early = row["BillingPeriodLastUpdated"] < row["BillingPeriodEnd"]
    if early and row["BillingPeriodStatus"] == "Closed":
        yield "BillingPeriodLastUpdated", "a month is closed after its end"


def _detail(row: _Row) -> Iterator[tuple[str, str]]:
    yield from _month(row, "InvoiceDetailCreated", "InvoiceDetailLastUpdated")
    month = row["BillingPeriodStart"][:7]
    try:
        grain = msgspec.json.decode(row["InvoiceDetailGrain"], type=dict[str, str])
    except msgspec.MsgspecError:
        grain = {}
    sku, of, book = (grain.get(name, "") for name in ("SkuId", "x_ChargeMonth", "x_PriceBook"))
    issued = row["InvoiceIssueStatus"] == "Issued"
    invoice = f"{row['BillingAccountId']}-{month}"
    for name, value in (
        ("ChargeCategory", "Usage"),
        ("InvoiceId", invoice),
        ("InvoiceDetailId", focus.detail_id(invoice, book, sku, of)),
        ("InvoiceDetailDescription", f"{sku} of {of}, prices of {book}"),
        ("InvoiceIssueStatus", "Issued" if issued else "Open"),
        ("InvoiceIssueDate", row["InvoiceDetailLastUpdated"] if issued else ""),
        ("PaymentDueDate", ""),
        ("PaymentTerms", focus_invoices.TERMS),
        ("ReferenceInvoiceId", f"{row['BillingAccountId']}-{of}"),
    ):
        if row[name] != value:
            yield name, f"is {row[name]!r} where the rest of the row says {value!r}"
    if len(grain) != 3 or of > month:
        yield "InvoiceDetailGrain", "is not a SKU, a month that was, and a price book"
    if issued and row["InvoiceIssueDate"] < row["BillingPeriodEnd"]:
        yield "InvoiceIssueDate", "is before the end of the month"
    if not focus_check.is_number(row["BilledCost"]):
        yield "BilledCost", f"{row['BilledCost']!r} is not a plain decimal"
    if not focus_check.is_currency(row["BillingCurrency"]):
        yield "BillingCurrency", f"{row['BillingCurrency']!r} is not a code such as USD"
