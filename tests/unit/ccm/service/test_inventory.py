"""What the cloud hears of the cluster's Services."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from ccm import errors, metrics
from ccm.cloud import client, connection
from ccm.kube import objects
from ccm.service import inventory
from tests.fakes.ccm_clock import FakeClock, settle
from tests.fakes.cloud import TOKEN, FakeCloud
from tests.unit.ccm import builders


class Setup:
    """An inventory over Services that a test sets."""

    def __init__(self):
        self.all: tuple[objects.Service, ...] = ()
        self.sent: list[tuple[str, list[str], int]] = []
        self.fails: list[errors.CloudError] = []
        self.clock = FakeClock()
        self.target = inventory.Inventory(self, self, builders.ownership(), self.clock)

    def services(self):
        return self.all

    async def put_inventory(self, cluster_uid, services, lease_s):
        if self.fails:
            raise self.fails.pop(0)
        self.sent.append((cluster_uid, list(services), lease_s))


def service(uid: str, **meta: object) -> objects.Service:
    one = builders.service()
    return msgspec.structs.replace(
        one, metadata=msgspec.structs.replace(one.metadata, uid=uid, **meta)
    )


def of_type(one: objects.Service, type_: str) -> objects.Service:
    return msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, type=type_))


async def test_only_what_has_or_wants_a_load_balancer_is_listed():
    it = Setup()
    leaving = service("u-3", finalizers=(objects.CLEANUP_FINALIZER,))
    it.all = (service("u-2"), of_type(service("u-1"), "ClusterIP"), of_type(leaving, "ClusterIP"))
    await it.target.step()
    assert it.sent == [(builders.CLUSTER_UID, ["u-2", "u-3"], 180)]


async def test_it_is_sent_again_long_before_its_lease_ends_also_after_a_refusal():
    it = Setup()
    it.fails = [errors.CloudRefused("not_found", "an older cloud", None)]
    task = asyncio.create_task(it.target.run())
    await settle()
    assert it.sent == []
    await it.clock.advance(inventory.PERIOD_S)
    await it.clock.advance(inventory.PERIOD_S)
    assert len(it.sent) == 2
    assert inventory.LEASE_S >= 3 * inventory.PERIOD_S
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_the_client_puts_it():
    async with FakeCloud().serving() as fake:
        it = client.Client(connection.Connection(fake.url, lambda: TOKEN, metrics.Metrics()))
        await it.put_inventory("c-1", ["u-1"], 180)
        await it.aclose()
        assert fake.inventories == {"c-1": {"services": ["u-1"], "lease_s": 180}}
