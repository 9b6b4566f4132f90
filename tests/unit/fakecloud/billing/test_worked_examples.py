"""Bills computed by hand from what providers publish, reproduced to the last digit.

Ten load balancers with one HTTP port each, for 730 hours of one month, no traffic:

    AWS NLB        10 x 730 x (0.0225 + 0.005)                     = 200.75
    DigitalOcean   12 a month; 730 of the 744 hours of a month     = 10 x 12 x 730/744
    Hetzner LB11   730 x 0.0120 = 8.76, capped at 7.49             = 74.90
    Linode         730 x 0.015 = 10.95, capped at 10               = 100.00
    OVH S          730 x 0.0083 = 6.059, capped at 6               = 60.00
    Scaleway LB-S  10 x 730 x 0.023                                = 167.90
    GCP            730 x (0.025 + 5 x 0.01)                        = 54.75
    Azure          730 x (0.025 + 5 x 0.01) + 10 x 730 x 0.005     = 91.25
"""

from __future__ import annotations

from decimal import Decimal

import pytest

from fakecloud.billing import books, money, prices, projection
from fakecloud.billing.quantities import HOUR_US, MICRO
from fakecloud.billing.usage import Hour, Line, Span, Usage

MARCH_US = 1_772_323_200 * MICRO  # 2026-03-01T00:00:00Z, a month of 744 hours


def balancer(number: int, hours: int, **span: int) -> Usage:
    made = Span(
        start_us=MARCH_US,
        end_us=MARCH_US + hours * HOUR_US,
        attribution="shop/web",
        type="lb-s",
        **{"ports": 1, "protocols": 1, "ipv4": 1, **span},
    )
    return Usage(resource=f"lb_{number}", kind="load_balancer", spans=(made,))


def bill(book: prices.PriceBook, usages: list[Usage]) -> list[Line]:
    return list(projection.bill(usages, book))


def total(lines: list[Line]) -> Decimal:
    return Decimal(money.text(sum(line.billed_pico for line in lines)))


@pytest.mark.parametrize(
    ("book", "ten", "one"),
    [
        ("aws-nlb-us-east-1", "200.75", "20.075"),
        ("hetzner-eu", "74.90", "7.49"),
        ("hetzner-eu@1", "53.90", "5.39"),
        ("akamai-linode", "100", "10"),
        ("ovh-octavia", "60", "6"),
        ("scaleway-par", "167.90", "16.79"),
        ("gcp-us-central1", "54.75", "18.25"),
        ("azure-standard", "91.25", "21.90"),
        ("generic", "219", "21.90"),
    ],
)
def test_ten_services_and_one_for_730_hours(book: str, ten: str, one: str) -> None:
    assert total(bill(books.load(book), [balancer(n, 730) for n in range(10)])) == Decimal(ten)
    assert total(bill(books.load(book), [balancer(0, 730)])) == Decimal(one)


def test_a_whole_month_costs_the_monthly_price() -> None:
    for book, price in (("digitalocean", "12"), ("vultr", "10"), ("bunny", "9.50")):
        assert total(bill(books.load(book), [balancer(0, 744)])) == Decimal(price)


def test_a_second_costs_a_started_hour_and_the_least_of_a_minute() -> None:
    second = Usage(
        resource="lb_1",
        kind="load_balancer",
        spans=(Span(start_us=0, end_us=MICRO, attribution="a", type="lb-s", ports=1, protocols=1),),
    )
    assert total(bill(books.load("aws-nlb-us-east-1"), [second])) == Decimal("0.0225")
    # 60 s at 0.025 an hour, in whole micro-hours: 16666 x 0.025 / 1,000,000
    assert total(bill(books.load("generic"), [second])) == Decimal("0.00041665")


def test_the_fullest_dimension_of_each_hour_is_the_capacity() -> None:
    # Hour 1: 1.5 GB and little else is 1.5 NLCU; hour 2: 2,880,000 connections are 800 a second,
    # so 1 NLCU, beside 0.5 GB. Averages over both hours would say 1.0 + 0.5.
    hours = (
        Hour(start_us=0, attribution="a", bytes_in=10**9, bytes_out=5 * 10**8, new_connections=10),
        Hour(start_us=HOUR_US, attribution="a", bytes_in=5 * 10**8, new_connections=2_880_000),
    )
    usage = Usage(resource="lb_1", kind="load_balancer", spans=(), hours=hours)
    lines = bill(books.load("aws-nlb-us-east-1"), [usage])
    assert [line.quantity_micros for line in lines if line.sku == "lb-network-capacity"] == [
        1_500_000,
        1_000_000,
    ]


def test_egress_has_tiers_over_the_whole_account() -> None:
    # 150 GB out by two load balancers: 100 GB are free, 50 GB cost 0.09.
    usages = [
        Usage(
            resource=f"lb_{n}",
            kind="load_balancer",
            spans=(),
            hours=(Hour(start_us=MARCH_US, attribution="a", bytes_out=75 * 10**9),),
        )
        for n in range(2)
    ]
    lines = [
        line
        for line in bill(books.load("aws-nlb-us-east-1"), usages)
        if line.sku == "egress-internet"
    ]
    assert total(lines) == Decimal("4.50")
    assert {line.price_id.rsplit("/", 1)[1] for line in lines} == {"free-tier", "tier-2"}


def test_traffic_beyond_what_is_included() -> None:
    # 22 TiB are 24.189255 TB, 20 TiB are 21.990232 TB: 2.199023 TB at 1.00.
    hours = tuple(
        Hour(start_us=MARCH_US + n * HOUR_US, attribution="a", bytes_out=2**40) for n in range(22)
    )
    usage = Usage(resource="lb_1", kind="load_balancer", spans=(), hours=hours)
    assert total(bill(books.load("hetzner-eu"), [usage])) == Decimal("2.199023")


def test_an_unverified_figure_is_no_price() -> None:
    book = books.load("hetzner-eu")
    medium = balancer(0, 730)
    medium = Usage(
        resource="lb_1",
        kind="load_balancer",
        spans=(Span(start_us=0, end_us=HOUR_US, attribution="a", type="lb-m", ipv4=1),),
    )
    assert [line.sku for line in bill(book, [medium])] == ["ipv4-inuse-hour"]
    assert [sku.priced for sku in book.of_plan("lb-m") if sku.meter == "alive"] == [False]
