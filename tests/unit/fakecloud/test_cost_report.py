"""The cost report and the price books."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fakecloud import errors
from fakecloud.billing import books, money, prices, rating, report

START = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOW = START + 100 * HOUR
BOOK = books.load("aws-nlb-us-east-1")


def usage(
    lb: str = "web",
    started_at: datetime = START,
    ended_at: datetime | None = None,
    **labels: str,
) -> rating.UsageInterval:
    return rating.UsageInterval(
        lb_id=f"lb_{lb}",
        project="default",
        name=lb,
        labels=labels,
        type="lb-s",
        started_at=started_at,
        ended_at=ended_at,
    )


def built(*intervals: rating.UsageInterval, group_by: str = "load_balancer", **range_: Any) -> Any:
    asked = {"start": START, "end": NOW, "now": NOW, **range_}
    return report.build(intervals, BOOK, group_by=group_by.split(","), **asked)


def test_document() -> None:
    """61 hours at 0.0225, and a load balancer that ended in the middle."""
    made = built(
        usage("a", NOW - 61 * HOUR, cluster="kind", namespace="shop"),
        usage("b", START, START + HOUR, cluster="kind"),
        group_by="namespace,load_balancer",
    )
    assert made == {
        "from": "2026-11-01T00:00:00.000000Z",
        "to": "2026-11-05T04:00:00.000000Z",
        "currency": "USD",
        "price_book": "aws-nlb-us-east-1@1",
        "complete_until": "2026-11-05T04:00:00.000000Z",
        "groups": [
            {
                "key": {"namespace": None, "load_balancer": "b"},
                "amount": "0.0225",
                "monthly_run_rate": "0.00",
            },
            {
                "key": {"namespace": "shop", "load_balancer": "a"},
                "amount": "1.3725",
                "monthly_run_rate": "16.425",
            },
        ],
        "total": "1.395",
        "monthly_run_rate": "16.425",
    }


@pytest.mark.parametrize(
    ("seconds", "amount"),
    [(1, "0.0000062325"), (60, "0.000374985"), (3600, "0.0225"), (730 * 3600, "16.425")],
)
def test_seconds_cost(seconds: int, amount: str) -> None:
    """One second is 277 micro-hours: the started micro-hour is free."""
    end = START + timedelta(seconds=seconds)
    assert built(usage(ended_at=end), end=end, now=end)["total"] == amount


def test_an_open_interval_costs_up_to_now_only() -> None:
    made = built(usage(), end=NOW + 900 * HOUR)
    assert made["total"] == "2.25"
    assert (made["complete_until"], made["to"]) == (
        "2026-11-05T04:00:00.000000Z",
        "2026-12-12T16:00:00.000000Z",
    )


def test_ranges_are_half_open() -> None:
    """What ends at `from` and what starts at `to` cost nothing and are not shown."""
    before, after = usage("a", START, START + HOUR), usage("b", START + 2 * HOUR)
    made = built(before, after, start=START + HOUR, end=START + 2 * HOUR)
    assert (made["groups"], made["total"], made["monthly_run_rate"]) == ([], "0.00", "0.00")


def test_run_rate_is_of_what_was_active_at_the_end_of_the_range() -> None:
    """Also when it has ended since."""
    made = built(usage(ended_at=NOW), end=START + HOUR)
    assert (made["total"], made["monthly_run_rate"]) == ("0.0225", "16.425")


def test_labels_group_and_missing_ones_are_null() -> None:
    made = built(usage("a", team="x"), usage("b", team="x"), usage("c"), group_by="label:team,sku")
    assert [one["key"] for one in made["groups"]] == [
        {"label:team": None, "sku": "lb-hour"},
        {"label:team": "x", "sku": "lb-hour"},
    ]
    assert [one["amount"] for one in made["groups"]] == ["2.25", "4.50"]


@pytest.mark.parametrize("token", ["", "colour", "label:", "Namespace"])
def test_unknown_group_is_refused_with_the_known_ones(token: str) -> None:
    with pytest.raises(errors.InvalidParameter, match="load_balancer"):
        built(usage(), group_by=f"namespace,{token}")


def test_csv() -> None:
    made = built(usage("a", team='=1+"2"'), usage("b"), group_by="label:team")
    text = report.to_csv(made, ["label:team"])
    span = "USD,2026-11-01T00:00:00.000000Z,2026-11-05T04:00:00.000000Z"
    assert text.splitlines() == [
        "label:team,amount,monthly_run_rate,currency,from,to",
        f",2.25,16.425,{span}",
        f'"\'=1+""2""",2.25,16.425,{span}',
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"price": "0.02250001"}, "six decimals"),
        ({"price": "-1"}, "negative"),
        ({"price": "NaN"}, "negative or has"),
        ({"price": "cheap"}, "not a decimal"),
        ({"price": 0.0225}, "price"),
        ({"sku": "other"}, "lb-hour"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_books_name_book_and_cause(change: dict[str, Any], message: str) -> None:
    entry = {"sku": "lb-hour", "unit": "hour", "price": "0.0225", "description": "d"}
    entry |= {"source": "s", "read_on": "2026-09-20"}
    document = {"name": "x", "version": 1, "currency": "USD", "prices": [entry | change]}
    with pytest.raises(errors.StartError, match=rf"price book x.yaml: .*{message}"):
        prices.parse(document, "x.yaml")


def test_every_shipped_book_loads_and_an_unknown_one_lists_them() -> None:
    assert [books.load(name).name for name in books.names()] == books.names()
    assert BOOK.prices["lb-hour"].price_micros == money.micros("0.0225") == 22_500
    with pytest.raises(errors.StartError, match="aws-nlb-us-east-1"):
        books.load("../../etc")


def test_an_empty_csv_has_the_header_of_a_full_one() -> None:
    full = report.to_csv(built(usage("a"), group_by="namespace"), ["namespace"])
    empty = report.to_csv(built(group_by="namespace"), ["namespace"])
    assert empty.splitlines() == full.splitlines()[:1]
