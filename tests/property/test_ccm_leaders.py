"""Processes that stand still at any moment, an API server that loses answers: one writer at most.

Each process has the machine's monotonic clock; while it is paused (SIGSTOP, a sleeping laptop, a
long collection) nothing in it happens, and then all at once.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Mapping
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ccm import errors, settings
from ccm.kube import elector
from tests.fakes.ccm_clock import FakeClock, settle
from tests.fakes.kubeapi import merge

WHO = st.sampled_from(["a", "b"])
LEASE = settings.LeaseSettings(duration_s=15.0, renew_deadline_s=10.0, retry_period_s=2.0)


class LeaseServer:
    """One Lease, with versions and conflicts as the API server has them."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self._versions = itertools.count(1)

    def request(self, method: str, body: Mapping[str, Any] | None) -> bytes:
        """Do it. Raises: KubeNotFound, KubeConflict."""
        if method == "GET":
            if self.lease is None:
                raise errors.KubeNotFound(404, "NotFound", "no lease")
            return json.dumps(self.lease).encode()
        assert body is not None
        if method == "POST":
            if self.lease is not None:
                raise errors.KubeConflict(409, "AlreadyExists", "there is one")
            return self._keep({**body, "metadata": {**body["metadata"], "uid": "u-lease"}})
        assert self.lease is not None
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise errors.KubeConflict(409, "Conflict", "the object has been modified")
        return self._keep(merge(self.lease, body))

    def _keep(self, lease: dict[str, Any]) -> bytes:
        version = str(next(self._versions))
        self.lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": version}}
        return json.dumps(self.lease).encode()


class Process:
    """One controller manager's elector, its clock and its connection."""

    def __init__(self, name: str, server: LeaseServer, clock: FakeClock, number: int) -> None:
        self._server = server
        self._clock = clock
        self.goes = asyncio.Event()
        self.goes.set()
        self.fault = ""
        self.elector = elector.Elector(
            self,  # type: ignore[arg-type] # only request() of a transport is used
            LEASE,
            f"{name}-{number}",
            self,
            random.Random(number),
        )
        self.living = asyncio.create_task(self._live())

    def now(self) -> Any:
        """Return wall time."""
        return self._clock.now()

    def monotonic(self) -> float:
        """Return the machine's time, which goes on while the process stands."""
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`, but not while the process stands."""
        await self._clock.sleep(seconds)
        await self.goes.wait()

    async def request(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, **_: object
    ) -> bytes:
        """Ask the server; the request or its answer may get lost."""
        fault, self.fault = self.fault, ""
        if fault == "request lost":
            raise errors.KubeUnreachable("told to")
        answer = self._server.request(method, body)
        if fault == "slow answer":
            await self._clock.sleep(4.0)
        await self.goes.wait()
        if fault == "answer lost":
            raise errors.KubeUnreachable("told to")
        return answer

    def may_write(self) -> bool:
        """Say whether a write that begins now would be sent."""
        try:
            self.elector.check()
        except errors.LeaseLost:
            return False
        return True

    async def _live(self) -> None:
        try:
            await self.elector.acquire()
            await self.elector.hold()
        except errors.LeaseLost:
            return


class Leaders(RuleBasedStateMachine):
    """Two processes; one that ends is started again."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.server = LeaseServer()
        self.numbers = itertools.count(1)
        self.fences: list[tuple[str, int]] = []
        self.processes: dict[str, Process] = {}
        for name in "ab":
            self.runner.run(self._start(name))

    def teardown(self) -> None:
        for one in self.processes.values():
            one.living.cancel()
        self.runner.run(settle())
        self.runner.close()

    async def _start(self, name: str) -> None:
        self.processes[name] = Process(name, self.server, self.clock, next(self.numbers))
        await settle()

    async def _pass(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        for name, one in list(self.processes.items()):
            if one.living.done():
                await self._start(name)

    @rule(seconds=st.sampled_from([0.5, 2.0, 3.0, 6.0, 11.0, 16.0]))
    def time_passes(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds))):
            self.runner.run(self._pass(min(seconds, 1.0)))
            self.at_most_one_may_write()

    @rule(seconds=st.sampled_from([9.0, 14.0, 20.0, 40.0]))
    def the_leader_stands_for_long(self, seconds: float) -> None:
        for name, one in self.processes.items():
            if one.may_write():
                one.goes.clear()
                self.time_passes(seconds)
                self.goes_on(name)
                return

    @rule(who=WHO)
    def stands(self, who: str) -> None:
        self.processes[who].goes.clear()

    @rule(who=WHO)
    def goes_on(self, who: str) -> None:
        self.processes[who].goes.set()
        self.runner.run(settle())

    @rule(who=WHO, fault=st.sampled_from(["request lost", "answer lost", "slow answer"]))
    def has_bad_luck(self, who: str, fault: str) -> None:
        self.processes[who].fault = fault

    @rule(who=WHO)
    def is_killed(self, who: str) -> None:
        self.processes[who].living.cancel()
        self.runner.run(self._pass(0.0))

    @rule(who=WHO)
    def gives_the_lease_back(self, who: str) -> None:
        one = self.processes[who]
        if one.goes.is_set():
            one.living.cancel()
            one.fault = ""
            self.runner.run(one.elector.release())
            self.runner.run(self._pass(0.0))

    @invariant()
    def at_most_one_may_write(self) -> None:
        writers = [name for name, one in self.processes.items() if one.may_write()]
        assert len(writers) <= 1, "two writers"
        for name in writers:
            fence = self.processes[name].elector.fence
            assert fence is not None
            if not self.fences or self.fences[-1][1] != fence[1]:
                assert all(one[1] < fence[1] for one in self.fences), "a fence came again"
                self.fences.append((name, fence[1]))
            assert self.fences[-1][0] == name, "two leaders with one fence"


TestLeaders = Leaders.TestCase
TestLeaders.settings = hypothesis_settings(max_examples=50, stateful_step_count=20, deadline=None)


def test_p_09_p_10_b_20_the_machine_is_run() -> None:
    """TestLeaders above is what shows these points; pytest collects it beside this."""
    assert TestLeaders.settings.max_examples >= 50
