"""Rate limits: a bucket per token that refills by the clock."""

from __future__ import annotations

import pytest

from fakecloud.access.rate_limits import GET, LIST, WATCH, Allowance, RateLimiter
from fakecloud.errors import RateLimited
from tests.fakes.clock import FakeClock


def test_what_is_left_and_when_it_is_back():
    limiter = RateLimiter(60, FakeClock())
    assert limiter.spend("a", LIST) == Allowance(60, 55, 5)
    assert limiter.spend("a", GET) == Allowance(60, 54, 6)
    assert limiter.spend("b", GET) == Allowance(60, 59, 1)


def test_an_empty_bucket_says_when_to_come_back_and_keeps_its_word():
    clock = FakeClock()
    limiter = RateLimiter(60, clock)
    for _ in range(6):
        limiter.spend("a", WATCH)
    with pytest.raises(RateLimited, match=r"60 per minute.*go on in 5 s") as refusal:
        limiter.spend("a", LIST)
    assert refusal.value.retry_after_s == 5
    clock.advance(4)
    with pytest.raises(RateLimited):
        limiter.spend("a", LIST)
    clock.advance(1)
    assert limiter.spend("a", LIST).remaining == 0


def test_a_bucket_never_holds_more_than_the_limit():
    clock = FakeClock()
    limiter = RateLimiter(60, clock)
    limiter.spend("a", GET)
    clock.advance(3600)
    assert limiter.spend("a", GET).remaining == 59


def test_the_dearest_request_fits_the_smallest_limit():
    assert RateLimiter(1, FakeClock()).spend("a", WATCH).remaining == 0
