"""What becomes of a key after each kind of end (S-14, B-32)."""

from __future__ import annotations

import asyncio

import pytest

from ccm import errors, metrics
from ccm.kube import workers, workqueue
from ccm.kube.workers import Outcome
from ccm.service.ports import Verdict
from tests.fakes.ccm_clock import FakeClock, settle


class Script:
    """Ends each look as told."""

    def __init__(self, *ends):
        self.ends = list(ends)
        self.looks = 0

    async def reconcile(self, key):
        self.looks += 1
        end = self.ends.pop(0) if self.ends else Outcome(Verdict.IN_SYNC)
        if isinstance(end, Exception):
            raise end
        return end


class Setup:
    """A queue, its timers and one worker on a script."""

    def __init__(self, *ends):
        self.clock = FakeClock()
        self.metrics = metrics.Metrics()
        self.queue = workqueue.WorkQueue(self.clock, self.metrics, base_s=1.0)
        self.script = Script(*ends)
        self.target = workers.Workers(self.queue, self.script, self.metrics, 1)

    async def __aenter__(self):
        self._tasks = [
            asyncio.create_task(self.target.run()),
            asyncio.create_task(self.queue.run_timers()),
        ]
        self.queue.add("shop/web")
        await settle()
        return self

    async def __aexit__(self, *_):
        self.queue.shut_down()
        await settle()
        await asyncio.gather(*self._tasks)


@pytest.mark.parametrize(
    ("end", "pause_s", "failures"),
    [
        pytest.param(Outcome(Verdict.WAITING, 60.0), 60.0, 0, id="waiting"),
        pytest.param(errors.RetryAfter(42.0, "planned"), 42.0, 0, id="planned"),
        pytest.param(errors.CloudBusy("rate_limited", "x", 7.0), 7.0, 0, id="retry-after"),
        pytest.param(errors.KubeError(429, "", "x", 3.0), 3.0, 0, id="429 of the API server"),
        pytest.param(errors.KubeConflict(409, "", "x"), 0.05, 0, id="conflict"),
        pytest.param(errors.CloudUnreachable("x"), 1.0, 1, id="unreachable"),
        pytest.param(errors.KubeError(500, "", "x"), 1.0, 1, id="API server"),
        pytest.param(ZeroDivisionError("bug"), 1.0, 1, id="bug"),
    ],
)
async def test_s_14_s_18_u_08_key_comes_back_after(end, pause_s, failures):
    async with Setup(end) as it:
        assert it.script.looks == 1
        assert it.queue.failures("shop/web") == failures
        await it.clock.advance(pause_s * 0.9)
        assert it.script.looks == 1
        await it.clock.advance(pause_s * 0.2)
        assert it.script.looks == 2


@pytest.mark.parametrize("end", [Outcome(Verdict.IN_SYNC), errors.KubeNotFound(404, "", "gone")])
async def test_key_stays_away_after(end):
    async with Setup(end) as it:
        await it.clock.advance(10_000)
        assert it.script.looks == 1


async def test_s_14_success_starts_the_back_off_anew():
    async with Setup(errors.CloudUnreachable("x"), errors.CloudUnreachable("x")) as it:
        await it.clock.advance(1.0)
        assert it.queue.failures("shop/web") == 2
        await it.clock.advance(2.0)
        assert it.queue.failures("shop/web") == 0


async def test_a_lost_lease_ends_the_workers():
    setup = Setup(errors.LeaseLost("another one leads"))
    setup.queue.add("shop/web")
    with pytest.raises(errors.LeaseLost):
        await setup.target.run()
