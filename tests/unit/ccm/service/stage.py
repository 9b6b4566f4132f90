"""A world with one reconciler, and what tests look at in it."""

from __future__ import annotations

from ccm import errors, metrics
from ccm.cloud import documents
from ccm.kube import objects
from ccm.service import rates, reconciler
from tests.fakes.ccm_clock import FakeClock
from tests.fakes.ccm_world import Crash, FakeCloudDoor, FakeKube, FakeReach, World
from tests.unit.ccm import builders

KEY = "shop/web"
NAME = "k8s-u-1"
CLEANUP = objects.CLEANUP_FINALIZER


class FakePrices:
    """A cloud that knows the price of small load balancers, or can't say."""

    def __init__(self) -> None:
        self.hourly = "0.0275"
        self.fails: list[errors.CloudError] = []
        self.asked = 0

    async def rates(self) -> documents.Rates:
        """Return one price."""
        self.asked += 1
        if self.fails:
            raise self.fails.pop(0)
        return documents.Rates("USD", "book@1", (documents.Rate("lb-s", 1, 1, 1, self.hourly),))


class Stage:
    """A world with one reconciler; restart() is a new process on the same world."""

    def __init__(self) -> None:
        self.world = World()
        self.kube = FakeKube(self.world)
        self.cloud = FakeCloudDoor(self.world)
        self.clock = FakeClock()
        self.reach = FakeReach()
        self.prices = FakePrices()
        self.rates = rates.Rates(self.prices, self.clock)
        self.woken: list[str] = []
        self.metrics = metrics.Metrics()
        self.restart()

    def restart(self, **changes: object) -> None:
        """Forget everything that is in memory only."""
        self.target = reconciler.Reconciler(
            self.kube,
            self.cloud,
            self.reach,
            self.rates,
            builders.ownership(),
            builders.run_settings(**changes),
            self.clock,
            self.metrics,
            self.woken.append,
        )

    async def look(self):
        """Reconcile the one key."""
        return await self.target.reconcile(KEY)

    async def served(self, **spec: object) -> objects.Service:
        """Bring a Service to its address."""
        self.kube.create(builders.service(**spec))
        await self.look()
        self.cloud.finish(NAME)
        await self.look()
        self.world.writes.clear()
        self.kube.events.clear()
        return self.kube.store[KEY]


def condition(service, kind):
    return next((one for one in service.conditions if one.type == kind), None)


async def settle_with_crashes(it):
    for _ in range(8):
        try:
            await it.look()
        except Crash:
            it.restart()
        for name, one in list(it.cloud.store.items()):
            if one.status.state in ("PENDING", "UPDATING"):
                it.cloud.finish(name)
