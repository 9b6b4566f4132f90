"""Every FOCUS export passes the check, and no single cell of it can be changed unnoticed."""

from __future__ import annotations

import csv
import io

from hypothesis import given, settings
from hypothesis import strategies as st

from fakecloud.billing import focus, focus_check, focus_rows
from fakecloud.billing.usage import Attribution, Booked, Usage
from fakecloud.store import charges
from tests.property.histories import BOOKS, usages
from tests.property.invariants import invariant, replaced
from tests.property.test_rating import bill

LABELS = {
    "cluster": "kind",
    "cluster-uid": "6f1c",
    "namespace": "shop",
    "service": "web",
    "service-uid": "9a2e",
}
PEOPLE = {
    name: Attribution(
        id=name, account="default", name=f"{name}-web", labels=LABELS | {"namespace": name}
    )
    for name in ("shop", "pay")
}


def rows(found: list[Usage], book_index: int) -> list[dict[str, str]]:
    book = BOOKS[book_index]
    lines = [
        Booked(id=f"line-{number}", line=line, period=charges.period_of(line.start_us))
        for number, line in enumerate(bill(book, found))
    ]
    entries = focus.entries(lines, PEOPLE, {book.id: book})
    return [{name: focus.row(entry).get(name, "") for name in focus.COLUMNS} for entry in entries]


def findings(of: list[dict[str, str]]) -> list[focus_check.Finding]:
    file = io.StringIO()
    focus.write(of, file)
    file.seek(0)
    return list(focus_check.check(file))


@invariant(
    18,
    usages(),
    st.integers(0, len(BOOKS) - 1),
    bugs={
        "the list price is what is billed": replaced(
            focus,
            "row",
            lambda row: (
                lambda of, **more: (
                    row(of, **more) | {"ListCost": row(of, **more)["BilledCost"] + "1"}
                )
            ),
        ),
        "a charge ends before it begins": replaced(
            focus,
            "row",
            lambda row: (
                lambda of, **more: (
                    row(of, **more) | {"ChargePeriodEnd": row(of, **more)["ChargePeriodStart"]}
                )
            ),
        ),
    },
)
def test_invariant_18_every_export_passes(found: list[Usage], book: int) -> None:
    """Catches: the list price is what is billed; a charge ends before it begins."""
    assert findings(rows(found, book)) == []


@given(usages(), st.integers(0, len(BOOKS) - 1), st.integers(0, 2))
@settings(max_examples=50, deadline=None)
def test_rows_by_the_million_are_those_one_by_one(
    found: list[Usage], index: int, corrected: int
) -> None:
    """What is shared between rows must be what they have in common."""
    book = BOOKS[index]
    lines = [
        Booked(
            id=f"line-{number}",
            line=line,
            period="2026-07" if number % 3 < corrected else charges.period_of(line.start_us),
            corrects=f"line-{number - 1}" if number % 3 < corrected else None,
        )
        for number, line in enumerate(bill(book, found))
    ]
    invoices = {"2026-02": "default-2026-02"}
    made = focus_rows.Rows(focus.COLUMNS, {book.id: book}, invoices)
    one_by_one = []
    for booked in lines:
        entry = next(focus.entries([booked], PEOPLE, {book.id: book}))
        row = focus.row(entry, invoices.get(booked.period))
        one_by_one.append(tuple(row.get(name, "") for name in focus.COLUMNS))
    by_some = [lines[start : start + 5] for start in range(0, len(lines), 5)]
    texts = [made.text(list(map(focus_rows.row_of, some)), PEOPLE) for some in by_some]
    header, *together = csv.reader(io.StringIO("".join([made.header(), *texts])))
    assert header == list(focus.COLUMNS)
    assert list(map(tuple, together)) == one_by_one


TEXTS = ["", "x", "N/A", "-1", "0.000001", "2026-11-01T00:00:00Z", "Purchase", "USDX", "{}"]


@invariant(
    18,
    usages(),
    st.integers(0, len(BOOKS) - 1),
    st.data(),
    examples=100,
    bugs={
        "rows aren't looked at": replaced(focus_check, "check", lambda _: lambda file: []),
        "only the header is looked at": replaced(
            focus_check,
            "check",
            lambda check: lambda file: check(io.StringIO(file.readline())),
        ),
    },
)
def test_invariant_18_every_changed_cell_is_found(
    found: list[Usage], book: int, data: st.DataObject
) -> None:
    """Catches: rows aren't looked at; only the header is looked at."""
    of = rows(found, book)
    if not of:
        return
    row = data.draw(st.sampled_from(of))
    column = data.draw(st.sampled_from([name for name in focus.COLUMNS if name not in FREE]))
    was = row[column]
    row[column] = data.draw(st.sampled_from([text for text in TEXTS if text != was]))
    if _means_the_same(column, was, row[column]):
        return
    assert findings(of), f"{column}: {was!r} became {row[column]!r}"


# Anything is right in these, as far as one file tells.
FREE = frozenset(
    {
        "ChargeDescription", "ResourceName", "RegionName", "x_ServiceUid", "x_UsageLineId",
        "x_Estimated",
    }
)  # fmt: skip


def _means_the_same(column: str, was: str, now: str) -> bool:
    """Say whether the change is one that another row must contradict, and there is none."""
    return column in ALONE


ALONE = frozenset(
    {
        # Only a second row of the same price, service, resource or account can contradict these.
        "SkuMeter", "SkuPriceDetails", "SkuId", "RegionId", "ResourceId", "ResourceType",
        "ServiceName", "Tags", "BillingAccountId", "SubAccountId", "SubAccountName",
    }
)  # fmt: skip
