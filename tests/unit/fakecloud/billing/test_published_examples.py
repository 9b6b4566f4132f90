"""More bills by hand: hours that aren't whole, ends of months, new prices, and what providers print.

What providers print is rated as they print it: a price that changed since then is put back.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest

from fakecloud.billing import books, events, money, projection, rating
from fakecloud.billing.quantities import HOUR_US, MICRO
from fakecloud.billing.usage import Hour, Span, Usage
from tests.unit.fakecloud.billing.test_worked_examples import balancer, bill, total


def us(text: str) -> int:
    return events.seconds_us(datetime.fromisoformat(text).replace(tzinfo=UTC))


def alive(start: str, end: str, **more: int) -> Usage:
    span = Span(
        start_us=us(start), end_us=us(end), attribution="a", type="lb-s", ports=1, protocols=1,
        **more,
    )  # fmt: skip
    return Usage(resource="lb_1", kind="load_balancer", spans=(span,))


@pytest.mark.parametrize(
    ("book", "ten"),
    [
        # 730 of March's 744 hours are 0.981182 months, in whole micro-months
        ("digitalocean", "117.74184"),  # 10 x 12 x 0.981182
        ("vultr", "98.1182"),  # 10 x 10 x 0.981182
        ("bunny", "93.21229"),  # 10 x 9.50 x 0.981182
        ("aws-alb-us-east-1", "200.75"),  # 10 x 730 x (0.0225 + 0.005)
        ("aws-clb-us-east-1", "219"),  # 10 x 730 x (0.025 + 0.005)
    ],
)
def test_ten_services_for_730_hours_of_the_other_presets(book: str, ten: str) -> None:
    assert total(bill(books.load(book), [balancer(n, 730) for n in range(10)])) == Decimal(ten)


@pytest.mark.parametrize(
    ("book", "start", "end", "amount"),
    [
        # Two hours are begun in 61 minutes: 2 x 0.0225. To the second it would be 0.022875.
        pytest.param("aws-nlb-us-east-1", "2026-11-01", "2026-11-01T01:01", "0.045", id="begun"),
        # 3 x 0.0120: 01:30 to 04:00 is two and a half hours, counted from its own start
        pytest.param("hetzner-eu", "2026-11-01T01:30", "2026-11-01T04:00", "0.036", id="own start"),
        # 90 minutes by the second: 1.5 x 0.025
        pytest.param("generic", "2026-11-01", "2026-11-01T01:30", "0.0375", id="by the second"),
        # 36 of 720 hours are 0.05 months x 12
        pytest.param("digitalocean", "2026-11-03", "2026-11-04T12:00", "0.60", id="of 30 days"),
        # 36 of 744 hours are 0.048387 months x 12
        pytest.param("digitalocean", "2026-12-03", "2026-12-04T12:00", "0.580644", id="of 31 days"),
        # edges in whole micro-months: 0.125 - 0.071428 = 0.053572 months x 12
        pytest.param("digitalocean", "2027-02-03", "2027-02-04T12:00", "0.642864", id="of 28 days"),
        # 17 days x 24 x 0.0120 = 4.896, and 19 days x 24 x 0.0120 = 5.472: no cap is reached
        pytest.param("hetzner-eu", "2026-01-15", "2026-02-20", "10.368", id="under two caps"),
        # 744 x 0.0120 = 8.928 and 672 x 0.0120 = 8.064, each 7.49 at most
        pytest.param("hetzner-eu", "2027-01-01", "2027-03-01", "14.98", id="two caps"),
        # 672 h x 0.015 = 10.08, capped at 10; in 2028 there are 696 h, capped too
        pytest.param("akamai-linode", "2027-02-01", "2027-03-01", "10", id="February"),
        pytest.param("akamai-linode", "2028-02-01", "2028-03-01", "10", id="February of a leap year"),
        # 672 h x 0.0083 = 5.5776: the month is too short for the cap of 6
        pytest.param("ovh-octavia", "2027-02-01", "2027-03-01", "5.5776", id="too short for the cap"),
        # 23:30 to 00:30 over the new year: one hour, begun in the old one
        pytest.param("aws-nlb-us-east-1", "2026-12-31T23:30", "2027-01-01T00:30", "0.0225", id="year"),
        # 730 h are cheaper under the cap than 9 days more: both end at 7.49
        pytest.param("hetzner-eu", "2026-03-01", "2026-03-31T10:00", "7.49", id="at the cap"),
    ],
)  # fmt: skip
def test_parts_of_hours_and_ends_of_months(book: str, start: str, end: str, amount: str) -> None:
    lines = bill(books.load(book), [alive(start, end)])
    assert total(lines) == Decimal(amount)


def test_hetzners_price_rose_in_april_2026() -> None:
    """March: 744 x 0.0086 = 6.3984, capped at 5.39. April: 720 x 0.0120 = 8.64, capped at 7.49."""
    schedule = rating.Schedule(
        [
            rating.Assignment(from_us=0, book=books.load("hetzner-eu@1")),
            rating.Assignment(from_us=us("2026-04-01"), book=books.load("hetzner-eu")),
        ]
    )
    lines = list(rating.rate(alive("2026-03-01", "2026-05-01"), schedule))
    by_month = {
        month: money.text(sum(one.billed_pico for one in lines if one.book == book))
        for month, book in (("03", "hetzner-eu@1"), ("04", "hetzner-eu@2"))
    }
    assert by_month == {"03": "5.39", "04": "7.49"}


@pytest.mark.parametrize(
    ("new_a_second", "lasting_s", "bytes_a_second", "units", "a_month"),
    [
        # 1 / 25 = 0.04; 120 / 3,000 = 0.04; 0.3 MB x 3,600 / 1 GB = 1.08: 1.08 LCU
        pytest.param(1, 120, 300_000, 1_080_000, "6.2208", id="$6.22: bytes decide"),
        # 100 / 25 = 4; 100 x 180 / 3,000 = 6; 1 MB x 3,600 / 1 GB = 3.6: 6 LCU
        pytest.param(100, 180, 1_000_000, 6_000_000, "34.56", id="$34.56: connections decide"),
    ],
)
def test_the_capacity_units_of_awss_own_examples(
    new_a_second: int, lasting_s: int, bytes_a_second: int, units: int, a_month: str
) -> None:
    """An Application Load Balancer in us-east-1 for 30 days, capacity without its 0.0225 an hour.

    aws.amazon.com/elasticloadbalancing/pricing, its examples of ordinary and of many connections,
    as others quote them: $6.22 and $34.56 a month. Prices as read on 2026-09-20, unchanged.
    """
    hours = tuple(
        Hour(
            start_us=us("2026-11-01") + n * HOUR_US,
            attribution="a",
            new_connections=new_a_second * 3600,
            connection_us=new_a_second * lasting_s * 3600 * MICRO,
            bytes_in=bytes_a_second * 3600,
        )
        for n in range(720)
    )
    usage = Usage(resource="lb_1", kind="load_balancer", spans=(), hours=hours)
    lines = bill(books.load("aws-alb-us-east-1"), [usage])
    capacity = [line for line in lines if line.sku == "lb-application-capacity"]
    assert {line.quantity_micros for line in capacity} == {units}
    assert total(capacity) == Decimal(a_month)


def test_six_nodes_of_digitalocean() -> None:
    """docs.digitalocean.com/products/networking/load-balancers, when a node cost $10: six nodes
    are $60 a month. Today it is $12, so six are $72."""
    book = books.load("digitalocean")
    whole = [msgspec.structs.replace(alive("2026-11-01", "2026-12-01"), resource=f"lb_{n}")
             for n in range(6)]  # fmt: skip
    then = [
        msgspec.structs.replace(sku, price="10") if sku.meter == "alive" else sku
        for sku in book.skus
    ]
    assert total(bill(msgspec.structs.replace(book, skus=then), whole)) == Decimal("60")
    assert total(bill(book, whole)) == Decimal("72")


@pytest.mark.parametrize(
    ("rules", "an_hour"), [(1, "0.025"), (3, "0.025"), (5, "0.025"), (6, "0.035"), (10, "0.075")]
)
def test_googles_forwarding_rules(rules: int, an_hour: str) -> None:
    """cloud.google.com/load-balancing/pricing, read 2026-09-20: the first five cost 0.025 an hour,
    each more 0.01. So ten are 0.025 + 5 x 0.01."""
    usages = [balancer(n, 1) for n in range(rules)]
    lines = list(projection.bill(usages, books.load("gcp-us-central1")))
    assert total([one for one in lines if one.sku == "forwarding-rules"]) == Decimal(an_hour)
