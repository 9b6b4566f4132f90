"""Terms of controller managers: whoever was deposed changes nothing in the cloud, however late it wakes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from ccm import clock as clocks
from ccm import settings
from tests.fakes.ccm_clock import until
from tests.fakes.ccm_manager import LEASES, managing, scene
from tests.fakes.ccm_trouble import CALM

LINE = "11111111-2222-3333-4444-555555555555/uid-cloud-controller-manager"
NAME = "cloud-controller-manager"


async def test_p_10_b_20_a_write_that_arrives_after_the_successors_is_refused():
    """It was sent under a good lease and was under way for so long: only the cloud can tell."""
    async with AsyncExitStack() as stack:
        it = await stack.enter_async_context(scene(clocks.SystemClock()))
        first = await stack.enter_async_context(
            managing(it.server.transport(), it.cloud.url, clock=it.clock, lease=CALM)
        )
        it.create("web")
        await it.in_step("web")
        assert it.cloud.fences == {LINE: 0}

        it.cloud.gate.clear()
        it.edit("web", 8081)
        await until(
            lambda: ("PUT", "/v1/load-balancers/k8s-uid-web-1") in it.cloud.requests[-1:],
            seconds=20,
        )
        lease = it.server.objects[f"{LEASES}/{NAME}"]
        taken = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
        it.server.put(LEASES, NAME, {**lease, "spec": taken})
        it.cloud.fences[LINE] = 5  # a successor has written
        it.cloud.gate.set()

        assert await first.ended() == 1, "it goes on although the cloud told it"
        assert it.cloud.refused
        assert it.ports() == {"web": [8080]}


async def test_b_08_a_successor_writes_with_a_higher_fence():
    async with scene(clocks.SystemClock()) as it:
        for expected in (0, 1, 2):
            async with managing(
                it.server.transport(), it.cloud.url, clock=it.clock, lease=CALM
            ) as manager:
                it.create(f"web-{expected}")
                await until(lambda n=expected: it.cloud.fences.get(LINE) == n, seconds=20)
                manager.stop.set()
                assert await manager.ended() == 0
        assert it.cloud.accepted == sorted(it.cloud.accepted)


async def test_without_leader_election_no_fence_is_sent():
    async with scene() as it:
        async with managing(it.server.transport(), it.cloud.url, clock=it.clock):
            it.create("web")
            await it.in_step("web")
            await asyncio.sleep(0)
        assert it.cloud.fences == {}


async def test_p_04_a_controller_that_fails_ends_the_process():
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    async with (
        scene() as it,
        managing(it.server.transport(), it.cloud.url, clock=it.clock) as manager,
    ):
        await manager.instance._services.synced.wait()
        manager.instance._nodes.handlers.append(fail)
        it.server.put("/api/v1/nodes", "node-2", {})
        assert await manager.ended() == 1


async def test_p_02_no_service_is_looked_at_before_the_nodes_are_known():
    """Otherwise load balancers would lose their targets at each start."""
    async with scene() as it:
        it.create("web")
        it.server.hidden.add("/api/v1/nodes")
        async with managing(it.server.transport(), it.cloud.url, clock=it.clock) as manager:
            await manager.instance._services.synced.wait()
            await it.clock.sleep(5.0)
            assert it.cloud.count("PUT") == 0
            it.server.hidden.clear()
            await it.in_step("web")
        assert it.cloud.bodies[0]["spec"]["target_groups"][0]["targets"]


async def test_p_05_requests_say_who_asks():
    async with scene() as it:
        async with managing(it.server.transport(), it.cloud.url, clock=it.clock) as manager:
            await manager.instance._services.synced.wait()
        assert it.server.agents == {settings.USER_AGENT}
