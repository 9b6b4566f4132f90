"""What Services say they cost: an annotation in a patch that is made anyway, and two Events."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from ccm import errors, metrics
from ccm.cloud import client, connection, documents
from ccm.service import rates
from tests.fakes.ccm_clock import FakeClock, settle
from tests.fakes.cloud import TOKEN, FakeCloud
from tests.unit.ccm import builders
from tests.unit.ccm.service.stage import KEY, NAME, FakePrices

COST = "fakecloud.dev/hourly-cost"


async def test_the_price_comes_with_the_address_and_in_sync_costs_nothing(it):
    await it.rates.step()
    it.kube.create(builders.service())
    await it.look()
    it.cloud.finish(NAME)
    await it.look()
    assert it.world.writes == [
        "kube:finalizers+conditions",
        "cloud:put",
        "kube:ingress+conditions+annotations",
    ]
    assert it.kube.store[KEY].annotations == {COST: "0.0275 USD"}
    assert it.kube.reasons() == ["EnsuringLoadBalancer", "EnsuredLoadBalancer", "BillingStarted"]
    assert it.kube.events[-1][2] == (
        "0.0275 USD an hour, 20.08 USD a month of 730 hours, by price book book@1; "
        "traffic not included"
    )
    it.world.writes.clear()
    it.restart()
    await it.rates.step()
    await it.look()
    assert it.world.writes == []
    assert len(it.kube.events) == 3


async def test_a_new_price_is_written_and_one_not_known_is_left(it):
    await it.rates.step()
    await it.served()
    it.prices.hourly = "0.03"
    await it.rates.step()
    await it.look()
    assert it.kube.store[KEY].annotations == {COST: "0.03 USD"}
    assert it.kube.events == []
    it.restart()
    it.world.writes.clear()
    await it.look()
    assert it.world.writes == []


async def test_switched_off_it_is_taken_away(it):
    await it.rates.step()
    await it.served()
    it.restart(hourly_cost=False)
    await it.look()
    assert it.kube.store[KEY].annotations == {}


@pytest.mark.parametrize("ends", ["deleted", "of another type"])
async def test_the_end_is_told_with_the_price_and_leaves_no_annotation(it, ends):
    await it.rates.step()
    service = await it.served()
    it.restart()
    if ends == "deleted":
        it.kube.delete(KEY)
    else:
        spec = msgspec.structs.replace(service.spec, type="ClusterIP")
        it.kube.create(msgspec.structs.replace(service, spec=spec))
    await it.look()
    it.cloud.drop(NAME)
    await it.look()
    assert it.kube.reasons()[-2:] == ["DeletedLoadBalancer", "BillingStopped"]
    assert it.kube.events[-1][2] == "0.0275 USD an hour no longer: its load balancer is gone"
    assert KEY not in it.kube.store or it.kube.store[KEY].annotations == {}


async def test_a_cloud_that_cannot_say_is_asked_again_later():
    prices, clock = FakePrices(), FakeClock()
    prices.fails = [errors.CloudRefused("not_found", "an older cloud", None)]
    it = rates.Rates(prices, clock)
    await it.step()
    shape = documents.LoadBalancerSpec(
        (documents.Address("ipv4"),), (documents.Listener("a", "tcp", 80, "a"),)
    )
    assert it.rate_of(shape) is None
    task = asyncio.create_task(it.run())
    await settle()
    assert prices.asked == 1
    await clock.advance(rates.PERIOD_S)
    assert it.rate_of(shape) == "0.0275 USD"
    assert it.rate_of(msgspec.structs.replace(shape, type="lb-l")) is None
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_the_client_gets_it():
    async with FakeCloud().serving() as fake:
        fake.rates = {"currency": "USD", "price_book": "b", "items": []}
        it = client.Client(connection.Connection(fake.url, lambda: TOKEN, metrics.Metrics()))
        assert await it.rates() == documents.Rates("USD", "b")
        await it.aclose()
