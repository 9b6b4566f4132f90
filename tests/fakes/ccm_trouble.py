"""What an API server and a lease can do wrong, and what a controller manager must make of it.

Each scenario raises AssertionError or TimeoutError where the manager doesn't hold. The lists are
those by which Python's client libraries were compared; none of them held everywhere.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from ccm import clock as clocks
from ccm import settings
from tests.fakes.ccm_clock import until
from tests.fakes.ccm_manager import LEASES, SERVICES, Manager, Scene, managing, scene

Scenario = Callable[[], Awaitable[None]]

TROUBLE_S: Final = 60.0
"""How long a watch is in trouble, by the manager's clock."""
MOST_REQUESTS: Final = 20
"""Lists and watches in that time; seven attempts of two requests are usual, thousands are a loop."""
LEASE: Final = settings.LeaseSettings(duration_s=5.0, renew_deadline_s=2.0, retry_period_s=0.1)
CALM: Final = settings.LeaseSettings(duration_s=15.0, renew_deadline_s=10.0, retry_period_s=0.1)
"""For what isn't about losing it: a busy machine doesn't renew in two seconds."""
SLACK_S: Final = 0.3
"""A request that was on its way when the lease was lost may still arrive."""


async def watch_scenario(fault: str) -> None:
    """Changes while the watch is in trouble: nothing is missed, nothing asked for in a loop."""
    async with scene() as it, _serving(it):
        it.create("stays")
        it.create("goes")
        await it.in_step("stays", "goes")
        before = len(_looks(it))
        async with _trouble(it, fault):
            it.create("new")
            it.delete("goes")
            await it.clock.sleep(TROUBLE_S)
            asked = len(_looks(it)) - before
        assert asked <= MOST_REQUESTS, f"{asked} lists and watches in {TROUBLE_S:g} s"
        it.create("after")
        await it.in_step("stays", "new", "after")
        assert it.cloud.count("PUT") == 4, "a load balancer was asked for more than once"


async def gone_scenario(fault: str, busy_lists: int = 0) -> None:
    """The version is too old: what vanished meanwhile, without an event, is noticed."""
    async with scene() as it, _serving(it):
        it.create("stays")
        it.create("vanishes")
        await it.in_step("stays", "vanishes")
        before = len(_looks(it))
        it.lose("vanishes")
        listed = it.server.lists.count(SERVICES)
        it.server.retry_after_s = 25
        it.server.list_faults = ["429"] * busy_lists
        async with _trouble(it, fault):
            it.create("new")
            await it.clock.sleep(TROUBLE_S)
            asked = len(_looks(it)) - before
            lists = it.server.lists.count(SERVICES) - listed
        assert asked <= MOST_REQUESTS, f"{asked} lists and watches in {TROUBLE_S:g} s"
        if busy_lists:
            assert lists <= 1 + TROUBLE_S / it.server.retry_after_s, "Retry-After is not honoured"
        it.server.list_faults = []
        await it.in_step("stays", "new", seconds=15.0)
        assert it.cloud.count("PUT") == 3, "a load balancer was asked for more than once"


async def quiet_scenario() -> None:
    """Nothing happens to Services for long: bookmarks keep their watch young, no list is needed."""
    async with scene() as it, _serving(it):
        it.create("stays")
        await it.in_step("stays")
        listed = it.server.lists.count(SERVICES)
        it.server.put("/api/v1/nodes", "node-1", it.server.objects["/api/v1/nodes/node-1"])
        async with _trouble(it, "bookmark"):
            seen = len(it.server.watches)
            await until(lambda: len(it.server.watches) > seen + 3)
        it.server.compact()
        it.server.cut()
        it.create("after")
        await it.in_step("stays", "after")
        assert it.server.lists.count(SERVICES) == listed, "listed again, with nothing missed"


async def refused_scenario() -> None:
    """Nobody listens for a while: attempts are few, and all is caught up afterwards."""
    async with scene() as it, _serving(it) as manager:
        it.create("stays")
        it.create("goes")
        await it.in_step("stays", "goes")
        errors_of = manager.instance._metrics.informer_errors.labels("services")
        async with it.server.down():
            it.create("new")
            it.delete("goes")
            await it.clock.sleep(TROUBLE_S)
            failed = errors_of._value.get()
        assert 1 <= failed <= MOST_REQUESTS, f"{failed:g} attempts in {TROUBLE_S:g} s"
        await it.in_step("stays", "new")


async def deposed_scenario(fault: str) -> None:
    """The lease can't be renewed: the work ends by the deadline, and nothing is written after it."""
    async with scene(clocks.SystemClock()) as it, _leading(it, LEASE) as manager:
        it.create("web")
        await it.in_step("web")
        it.server.lease_faults = [fault]
        began = it.clock.monotonic()
        working = asyncio.create_task(_edit(it))
        try:
            assert await manager.ended() == 1, "it ended as if it had been asked to"
            took_s = it.clock.monotonic() - began
            await it.clock.sleep(SLACK_S)
            written = _writes(it)
            await it.clock.sleep(SLACK_S)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        assert took_s < LEASE.duration_s, "another one may lead by now"
        assert _writes(it) == written, "written without a lease"


async def created_scenario() -> None:
    """There is no Lease yet: it is made, and the work begins."""
    async with scene(clocks.SystemClock()) as it, _leading(it):
        it.create("web")
        await it.in_step("web")
        spec = _lease(it)
        assert spec["holderIdentity"]
        assert spec["leaseTransitions"] == 0


async def broken_work_scenario() -> None:
    """The work crashes: the process ends and gives the lease back; nobody renews it for nothing."""

    def explode(*_: object) -> None:
        raise RuntimeError("a bug")

    async with scene(clocks.SystemClock()) as it, _leading(it) as manager:
        it.create("web")
        await it.in_step("web")
        manager.instance._services.handlers.append(explode)
        it.create("other")
        assert await manager.ended() == 1
        assert _lease(it)["holderIdentity"] == "", "the lease is kept for nothing"


async def elsewhere_scenario() -> None:
    """The machine's time zone isn't UTC: times on the lease are."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Kolkata"
    time.tzset()
    try:
        async with scene(clocks.SystemClock()) as it, _leading(it):
            await until(lambda: f"{LEASES}/cloud-controller-manager" in it.server.objects)
            written = _lease(it)["renewTime"]
            assert written.endswith("Z")
            age = clocks.SystemClock().now() - datetime.fromisoformat(written).astimezone(UTC)
            assert abs(age.total_seconds()) < 60, f"renewed at {written}"
    finally:
        os.environ.pop("TZ")
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()


WATCH: Final[Mapping[str, Scenario]] = {
    "closed at once": partial(watch_scenario, "eof"),
    "connection refused": refused_scenario,
    "410 as an event": partial(gone_scenario, "error410"),
    "410 as a status": partial(gone_scenario, "410"),
    "401": partial(watch_scenario, "401"),
    "500": partial(watch_scenario, "500"),
    "500 as an event": partial(watch_scenario, "error500"),
    "last line cut off": partial(watch_scenario, "truncate"),
    "aborted in the middle": partial(watch_scenario, "abort"),
    "silent": partial(watch_scenario, "silent"),
    "list answers 429": partial(gone_scenario, "error410", busy_lists=10),
    "bookmarks only": quiet_scenario,
}
LEASE_FAULTS: Final[Mapping[str, Scenario]] = {
    "no lease yet": created_scenario,
    "connection reset": partial(deposed_scenario, "reset"),
    "hang": partial(deposed_scenario, "hang"),
    "409 on every renewal": partial(deposed_scenario, "conflict"),
    "work crashes": broken_work_scenario,
    "another time zone": elsewhere_scenario,
}


async def held(scenarios: Mapping[str, Scenario]) -> int:
    """Return how many of the scenarios hold."""
    count = 0
    for scenario in scenarios.values():
        try:
            await scenario()
        except (AssertionError, TimeoutError):
            continue
        count += 1
    return count


@asynccontextmanager
async def _serving(it: Scene[Any]) -> AsyncIterator[Manager]:
    transport = it.server.transport()
    async with managing(transport, it.cloud.url, clock=it.clock, watch_idle_s=0.1) as manager:
        yield manager


@asynccontextmanager
async def _leading(it: Scene[Any], lease: settings.LeaseSettings = CALM) -> AsyncIterator[Manager]:
    transport = it.server.transport()
    async with managing(transport, it.cloud.url, clock=it.clock, lease=lease) as manager:
        yield manager


@asynccontextmanager
async def _trouble(it: Scene[Any], fault: str) -> AsyncIterator[None]:
    it.server.troubles[SERVICES] = fault
    it.server.cut()
    try:
        yield
    finally:
        del it.server.troubles[SERVICES]


async def _edit(it: Scene[Any]) -> None:
    """Give the manager something to write all the time."""
    for port in range(1000, 9000):
        it.edit("web", port)
        await it.clock.sleep(0.01)


def _writes(it: Scene[Any]) -> int:
    """Return how many writes there were but those of the lease."""
    patches = [path for method, path in it.server.requests if method in ("PATCH", "POST")]
    return len(it.cloud.bodies) + sum("/leases" not in path for path in patches)


def _looks(it: Scene[Any]) -> list[tuple[str, str]]:
    """Return the lists and watches of all Services so far."""
    return [one for one in it.server.requests if one == ("GET", SERVICES)]


def _lease(it: Scene[Any]) -> dict[str, Any]:
    found: dict[str, Any] = it.server.objects[f"{LEASES}/cloud-controller-manager"]["spec"]
    return found
