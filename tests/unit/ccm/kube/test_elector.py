"""The Lease under faults: never two leaders, never a hang, given back at the end."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager

import pytest

from ccm import clock as clocks
from ccm import errors, settings
from ccm.kube import elector
from tests.fakes.ccm_clock import FakeClock, HastyClock, settle, until
from tests.fakes.kubeapi import FakeApiServer

PATH = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/cloud-controller-manager"
FAST = settings.LeaseSettings(duration_s=2.0, renew_deadline_s=0.3, retry_period_s=0.02)


@asynccontextmanager
async def candidate(server, name="a", clock=None, lease=FAST):
    """Give an elector named `name`."""
    transport = server.transport()
    try:
        yield elector.Elector(
            transport, lease, name, clock or clocks.SystemClock(), random.Random(1)
        )
    finally:
        await transport.close()


def lease_of(server):
    return server.objects[PATH]["spec"]


async def test_p_08_first_creates_the_lease_with_exact_times():
    async with FakeApiServer().serving() as server, candidate(server, clock=FakeClock()) as a:
        await a.acquire()
        assert lease_of(server) == {
            "holderIdentity": "a",
            "leaseDurationSeconds": 2,
            "acquireTime": "2026-01-01T00:00:00.000000Z",
            "renewTime": "2026-01-01T00:00:00.000000Z",
            "leaseTransitions": 0,
        }
        assert a.fence == ("uid-cloud-controller-manager", 0)


async def test_b_08_p_07_second_waits_until_the_lease_is_given_back():
    async with FakeApiServer().serving() as server, candidate(server) as a:
        await a.acquire()
        async with candidate(server, "b") as b:
            waiting = asyncio.create_task(b.acquire())
            await until(lambda: len(server.requests) > 6)
            assert not waiting.done()
            await a.release()
            await waiting
        assert lease_of(server)["holderIdentity"] == "b"
        assert lease_of(server)["leaseTransitions"] == 1
        assert b.fence == ("uid-cloud-controller-manager", 1)


async def test_p_09_expired_lease_is_taken_by_local_time_not_by_its_own():
    """renewTime far in the future must not matter; the wait is one duration from first sight."""
    clock = FakeClock()
    lease = settings.LeaseSettings()
    async with FakeApiServer().serving() as server, candidate(server, "b", clock, lease) as b:
        spec = {
            "holderIdentity": "dead",
            "leaseDurationSeconds": 15,
            "renewTime": "2099-01-01T00:00:00.000000Z",
        }
        server.put(PATH.rpartition("/")[0], "cloud-controller-manager", {"spec": spec})
        waiting = asyncio.create_task(b.acquire())
        await until(lambda: clock.slept)
        for _ in range(6):
            before = len(clock.slept)
            await clock.advance(2.4)
            await until(lambda before=before: len(clock.slept) > before or waiting.done())
        assert not waiting.done()
        await clock.advance(2.4)
        await asyncio.wait_for(waiting, 5)
        assert lease_of(server)["holderIdentity"] == "b"


@pytest.mark.parametrize("fault", ["hang", "reset", "500", "409", "401"])
async def test_p_10_leader_that_cannot_renew_stops_before_the_lease_is_over(fault):
    async with FakeApiServer().serving() as server, candidate(server) as a:
        await a.acquire()
        server.lease_faults = [fault]
        began = asyncio.get_running_loop().time()
        with pytest.raises(errors.LeaseLost):
            await asyncio.wait_for(a.hold(), 5)
        took = asyncio.get_running_loop().time() - began
        assert took < FAST.duration_s
        assert a.fence is None


async def test_leader_survives_a_fault_shorter_than_the_deadline():
    async with FakeApiServer().serving() as server, candidate(server) as a:
        await a.acquire()
        server.answers = [("PATCH", 500), ("PATCH", 409)]
        holding = asyncio.create_task(a.hold())
        await until(lambda: not server.answers)
        before = len(server.requests)
        await until(lambda: len(server.requests) > before + 3)
        assert not holding.done()
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


async def test_leader_whose_lease_was_taken_stops_at_once():
    async with FakeApiServer().serving() as server, candidate(server) as a:
        await a.acquire()
        spec = {**lease_of(server), "holderIdentity": "thief", "leaseDurationSeconds": 15}
        server.put(PATH.rpartition("/")[0], "cloud-controller-manager", {"spec": spec})
        with pytest.raises(errors.LeaseLost, match="thief"):
            await asyncio.wait_for(a.hold(), 5)


async def test_b_20_a_leader_that_slept_past_its_deadline_may_not_write():
    """A process that was stopped finds out before its next write, not after its next renewal."""
    clock = FakeClock()
    async with FakeApiServer().serving() as server, candidate(server, clock=clock) as a:
        with pytest.raises(errors.LeaseLost):
            a.check()
        await a.acquire()
        a.check()
        await clock.advance(FAST.renew_deadline_s)
        with pytest.raises(errors.LeaseLost):
            a.check()


async def test_acquire_survives_faults():
    async with FakeApiServer().serving() as server, candidate(server, clock=HastyClock()) as a:
        server.answers = [("GET", 500), ("GET", 403), ("POST", 409)]
        await asyncio.wait_for(a.acquire(), 5)
        assert lease_of(server)["holderIdentity"] == "a"


async def test_release_without_a_lease_writes_nothing():
    async with FakeApiServer().serving() as server, candidate(server) as a:
        await a.release()
        assert server.requests == []


async def test_fields_of_the_lease_that_we_do_not_know_survive():
    async with FakeApiServer().serving() as server, candidate(server) as a:
        body = {"spec": {"holderIdentity": "", "strategy": "OldestEmulationVersion"}}
        server.put(PATH.rpartition("/")[0], "cloud-controller-manager", body)
        await a.acquire()
        await settle()
        assert lease_of(server)["strategy"] == "OldestEmulationVersion"


async def test_renewal_is_one_request_unless_somebody_else_wrote():
    async with FakeApiServer().serving() as server, candidate(server, clock=FakeClock()) as a:
        slow = []
        a._on_slow_path = lambda: slow.append(1)
        await a.acquire()
        before = len(server.requests)
        assert await a._attempt()
        assert [method for method, _ in server.requests[before:]] == ["PATCH"]
        server.put(PATH.rpartition("/")[0], "cloud-controller-manager", server.objects[PATH])
        before = len(server.requests)
        assert await a._attempt()
        assert [method for method, _ in server.requests[before:]] == ["PATCH", "GET", "PATCH"]
        assert slow == [1]
