"""The queue's semantics (ccm-contract S-12, S-14)."""

from __future__ import annotations

import asyncio

import pytest

from ccm import metrics
from ccm.kube import workqueue
from tests.fakes.ccm_clock import FakeClock, settle


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def queue(clock):
    return workqueue.WorkQueue(clock, metrics.Metrics(), base_s=1.0, max_s=300.0)


@pytest.fixture
async def timers(queue):
    task = asyncio.create_task(queue.run_timers())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def drain(queue):
    found = []
    while queue._ready:
        key = queue._ready[0]
        found.append(key)
        task = queue.get()
        with pytest.raises(StopIteration):
            task.send(None)
        queue.done(key)
    return found


async def test_s_12_key_added_twice_is_handed_out_once(queue):
    queue.add("a")
    queue.add("b")
    queue.add("a")
    assert drain(queue) == ["a", "b"]


async def test_s_12_s_13_key_in_work_is_not_handed_to_a_second_worker(queue):
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert not queue._ready
    queue.done("a")
    assert drain(queue) == ["a"]


async def test_s_12_s_13_b_02_two_workers_never_hold_the_same_key(queue):
    held: list[str] = []
    overlaps = 0

    async def worker():
        nonlocal overlaps
        while True:
            try:
                key = await queue.get()
            except workqueue.ShutDown:
                return
            overlaps += key in held
            held.append(key)
            await asyncio.sleep(0)
            held.remove(key)
            queue.done(key)

    tasks = [asyncio.create_task(worker()) for _ in range(8)]
    for n in range(200):
        queue.add(f"k{n % 5}")
        if n % 7 == 0:
            await asyncio.sleep(0)
    await settle()
    queue.shut_down()
    await asyncio.gather(*tasks)
    assert overlaps == 0


async def test_delayed_key_comes_when_due(queue, clock, timers):
    queue.add_after("a", 5.0)
    await clock.advance(4.9)
    assert drain(queue) == []
    await clock.advance(0.2)
    assert drain(queue) == ["a"]


async def test_s_12_earliest_deadline_wins(queue, clock, timers):
    queue.add_after("a", 60.0)
    queue.add_after("a", 5.0)
    queue.add_after("a", 30.0)
    await clock.advance(6.0)
    assert drain(queue) == ["a"]
    await clock.advance(100.0)
    assert drain(queue) == []


async def test_s_11_back_off_doubles_up_to_the_limit_and_starts_again_when_forgotten(queue):
    delays = [queue.add_failed("a") for _ in range(11)]
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert queue.failures("a") == 11
    queue.forget("a")
    assert queue.add_failed("a") == 1


async def test_s_14_u_08_planned_wait_leaves_the_failure_count_alone(queue, clock, timers):
    queue.add_failed("a")
    await clock.advance(1.0)
    queue.add_after("a", 42.0)
    assert queue.failures("a") == 1


async def test_s_12_p_07_shut_down_sends_idle_workers_home_and_takes_nothing_more(queue):
    waiting = asyncio.create_task(queue.get())
    await settle()
    queue.shut_down()
    with pytest.raises(workqueue.ShutDown):
        await waiting
    queue.add("a")
    queue.add_after("b", 1.0)
    assert drain(queue) == []


async def test_age_of_the_oldest_key_in_work(queue, clock):
    assert queue.oldest_work_s() == 0.0
    queue.add("a")
    await queue.get()
    await clock.advance(7.0)
    assert queue.oldest_work_s() == 7.0


async def test_what_failed_is_handed_out_at_once_when_the_cause_is_gone(queue, clock, timers):
    """Plain waits stay; and the old deadline does not hand the key out a second time."""
    for _ in range(5):
        queue.add_failed("failed")
    queue.add_after("waits", 60.0)

    queue.retry_failed()

    assert drain(queue) == ["failed"]
    assert queue.add_failed("failed") == 1.0
    await clock.advance(1.0)
    assert drain(queue) == ["failed"]
    await clock.advance(58.0)
    assert drain(queue) == []
    await clock.advance(1.0)
    assert drain(queue) == ["waits"]


async def test_p_16_waits_and_looks_are_measured(clock):
    numbers = metrics.Metrics()
    queue = workqueue.WorkQueue(clock, numbers, name="service")

    def value(what, kind=""):
        return numbers.registry.get_sample_value(f"workqueue_{what}{kind}", {"name": "service"})

    queue.add("a")
    await clock.advance(2)
    assert await queue.get() == "a"
    await clock.advance(3)
    queue.add("a")  # while it is worked on
    assert value("unfinished_work_seconds") == value("longest_running_processor_seconds") == 3
    await clock.advance(4)
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert value("unfinished_work_seconds") == 0
    assert value("queue_duration_seconds", "_sum") == 2 + 4
    assert value("work_duration_seconds", "_sum") == 3 + 4
    assert value("work_duration_seconds", "_count") == 2
    assert queue._added == {}
