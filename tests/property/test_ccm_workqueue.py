"""The work queue against a model of it: sets, nothing lost, nothing with two workers (S-12)."""

from __future__ import annotations

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ccm import metrics
from ccm.kube import workqueue
from tests.fakes.ccm_clock import FakeClock, settle

KEYS = st.sampled_from("abcd")


class Queue(RuleBasedStateMachine):
    """due: key → earliest time; dirty: to be handed out; working: with a worker."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.runner.run(self._start())
        self.dirty: set[str] = set()
        self.working: set[str] = set()
        self.due: dict[str, float] = {}
        self.failures: dict[str, int] = {}

    async def _start(self) -> None:
        self.queue = workqueue.WorkQueue(self.clock, metrics.Metrics(), base_s=1.0, max_s=8.0)
        self.timers = asyncio.create_task(self.queue.run_timers())

    def teardown(self) -> None:
        self.timers.cancel()
        self.runner.run(settle())
        self.runner.close()

    def _add_after(self, key: str, seconds: float) -> None:
        when = self.clock.monotonic() + seconds
        self.due[key] = min(when, self.due.get(key, when))

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.queue.add(key)
        self.dirty.add(key)

    @rule(key=KEYS, seconds=st.integers(1, 10))
    def add_after(self, key: str, seconds: int) -> None:
        self.queue.add_after(key, seconds)
        self._add_after(key, seconds)

    @rule(key=KEYS)
    def add_failed(self, key: str) -> None:
        count = self.failures.get(key, 0)
        expected = min(2.0**count, 8.0)
        assert self.queue.add_failed(key) == expected
        self.failures[key] = count + 1
        self._add_after(key, expected)

    @rule(key=KEYS)
    def forget(self, key: str) -> None:
        self.queue.forget(key)
        self.failures.pop(key, None)

    @rule()
    def get(self) -> None:
        ready = self.dirty - self.working
        if not ready:
            return
        key = self.runner.run(self.queue.get())
        assert key in ready, "handed out what was not added, or is with another worker"
        self.dirty.discard(key)
        self.working.add(key)

    @rule(key=KEYS)
    def done(self, key: str) -> None:
        if key in self.working:
            self.queue.done(key)
            self.working.discard(key)

    @rule(seconds=st.integers(1, 12))
    def time_passes(self, seconds: int) -> None:
        self.runner.run(self.clock.advance(float(seconds)))
        for key in [key for key, when in self.due.items() if when <= self.clock.monotonic()]:
            del self.due[key]
            self.dirty.add(key)

    @invariant()
    def exactly_what_is_dirty_and_free_is_ready(self) -> None:
        assert sorted(self.queue._ready) == sorted(self.dirty - self.working)
        assert all(self.queue.failures(key) == self.failures.get(key, 0) for key in "abcd")


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_u_15_s_12_the_machine_is_run() -> None:
    """TestQueue above is what shows these points; pytest collects it beside this."""
    assert TestQueue.settings.max_examples >= 50
