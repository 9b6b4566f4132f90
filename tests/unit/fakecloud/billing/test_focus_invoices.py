"""FOCUS' BillingPeriod and InvoiceDetail pass their check, and no cell can be changed unnoticed."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest

from fakecloud.billing import focus, focus_invoice_check, focus_invoices, focus_rows
from fakecloud.billing.quantities import DAY_US

OCTOBER_US = 20_362 * DAY_US  # 2025-10-01
PART = focus_invoices.Part(
    book="generic", sku="lb-hour", currency="USD", of="2025-10", billed_pico=123_456
)
MONTHS = [
    focus_invoices.Month(
        account="shop",
        period="2025-10",
        begun_us=OCTOBER_US,
        now_us=OCTOBER_US + 40 * DAY_US,
        issued_us=OCTOBER_US + 32 * DAY_US,
        parts=[PART, focus_invoices.Part(book="b", sku="s", currency="USD", of="2025-10",
                                         billed_pico=0)],
    ),
    focus_invoices.Month(
        account="shop",
        period="2025-11",
        begun_us=OCTOBER_US + 31 * DAY_US,
        now_us=OCTOBER_US + 40 * DAY_US,
        issued_us=None,
        parts=[PART],
    ),
]  # fmt: skip
DATASETS = {
    "periods": (focus_invoices.BILLING_PERIOD, focus_invoices.periods),
    "details": (focus_invoices.INVOICE_DETAIL, focus_invoices.details),
}
TEXTS = ("", "x", "N/A", "-", "2025-11-01T00:00:00", "Voided", "{}", "usd", "1e3")
FREE = frozenset({"BilledCost"})  # any number: the charges say which


def findings(columns: Sequence[str], rows: Sequence[dict[str, str]]) -> list[str]:
    text = io.StringIO(focus_rows.table(columns, rows))
    return [one.column for one in focus_invoice_check.check(text)]


@pytest.mark.parametrize("name", DATASETS)
def test_every_changed_cell_is_found(name: str) -> None:
    columns, made = DATASETS[name]
    rows = list(made(MONTHS))
    assert len(rows) == 2
    assert set(rows[0]) == set(columns)
    assert sorted(columns) == list(columns)
    assert findings(columns, rows) == []
    assert findings(columns, [*rows, rows[0]]), "a row is there twice"
    shorter = [{name: row[name] for name in columns[1:]} for row in rows]
    assert findings(columns[1:], shorter) == [columns[0]]
    for number, row in enumerate(rows):
        for column in columns:
            for text in TEXTS:
                if text != row[column] and not (column in FREE and text.isdigit()):
                    changed = [*rows[:number], row | {column: text}, *rows[number + 1 :]]
                    assert findings(columns, changed), f"{column}: {row[column]!r} became {text!r}"


def test_a_correction_refers_to_the_month_that_it_corrects() -> None:
    first, late = focus_invoices.details(MONTHS)
    assert first["ReferenceInvoiceId"] == first["InvoiceId"] == late["ReferenceInvoiceId"]
    assert (late["InvoiceId"], late["InvoiceIssueStatus"]) == ("shop-2025-11", "Open")
    assert first["InvoiceDetailId"] == "shop-2025-10/generic/lb-hour/2025-10"


def test_details_are_the_sums_of_their_charges() -> None:
    first = next(focus_invoices.details(MONTHS))
    details = focus_rows.table(focus_invoices.INVOICE_DETAIL, [first])

    def difference(*costs: str, id: str = first["InvoiceDetailId"]) -> list[str]:
        rows = [{"InvoiceDetailId": id, "BilledCost": cost} for cost in costs]
        charges = focus_rows.table(("InvoiceDetailId", "BilledCost"), rows)
        found = focus_invoice_check.reconcile(io.StringIO(charges), io.StringIO(details))
        return [one.column for one in found]

    assert difference("0.000000100000", "0.000000023456") == []
    assert difference("0.000000100000", "0.000000023457") == ["BilledCost"]
    assert difference("1", id="shop-2025-10/other") == ["BilledCost", "InvoiceDetailId"]


def test_the_metadata_says_what_every_column_is() -> None:
    made = focus_invoices.metadata("CostAndUsage", focus.COLUMNS)
    schema = made["Schema"]
    assert isinstance(schema, dict)
    kinds = {one["ColumnName"]: one["DataType"] for one in schema["ColumnDefinition"]}
    assert list(kinds) == list(focus.COLUMNS)
    assert schema["FocusVersion"] == "1.4"
    assert {name for name, kind in kinds.items() if kind == "Date/Time"} == {
        "BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd",
    }  # fmt: skip
    assert kinds["BilledCost"] == kinds["ListUnitPrice"] == kinds["PricingQuantity"] == "Decimal"
    assert kinds["Tags"] == "JSON"
