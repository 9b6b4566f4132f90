"""Events: aggregated, bounded, never in the way (S-46, S-48)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import asynccontextmanager

from ccm import metrics
from ccm.clock import micro_time
from ccm.kube import events
from tests.fakes.ccm_clock import FakeClock, HastyClock, until
from tests.fakes.kubeapi import FakeApiServer
from tests.unit.ccm import builders

SOURCE = "service-controller"
PATH = "/apis/events.k8s.io/v1/namespaces/shop/events"


@asynccontextmanager
async def recording(server, clock=None):
    """Give a running recorder."""
    transport = server.transport()
    recorder = events.Recorder(
        transport, "fakecloud-ccm-host", clock or HastyClock(), metrics.Metrics()
    )
    task = asyncio.create_task(recorder.run())
    try:
        yield recorder
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await transport.close()


async def test_s_46_event_has_everything_that_the_api_server_demands():
    async with FakeApiServer().serving() as server, recording(server) as recorder:
        recorder.record(
            SOURCE, builders.service().reference, "Normal", "EnsuringLoadBalancer", "Ensuring"
        )
        await until(lambda: server.objects)
    (event,) = server.objects.values()
    metadata = event.pop("metadata")
    assert metadata["name"].startswith("web.")
    assert event == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "type": "Normal",
        "reason": "EnsuringLoadBalancer",
        "action": "EnsuringLoadBalancer",
        "note": "Ensuring",
        "reportingController": "service-controller",
        "reportingInstance": "fakecloud-ccm-host",
        "regarding": {
            "apiVersion": "v1",
            "kind": "Service",
            "namespace": "shop",
            "name": "web",
            "uid": "u-1",
        },
    }


async def test_s_48_equal_events_become_one_series():
    async with FakeApiServer().serving() as server, recording(server) as recorder:
        for _ in range(5):
            recorder.record(
                SOURCE, builders.service().reference, "Warning", "SyncLoadBalancerFailed", "same"
            )
        await recorder.drain()
        (event,) = server.objects.values()
        assert event["series"]["count"] == 5
        assert [method for method, _ in server.requests].count("POST") == 1
        assert [method for method, _ in server.requests].count("PATCH") == 2


async def test_other_words_are_another_event():
    async with FakeApiServer().serving() as server, recording(server) as recorder:
        for note in ("one", "two"):
            recorder.record(
                SOURCE, builders.service().reference, "Warning", "SyncLoadBalancerFailed", note
            )
        await until(lambda: len(server.objects) == 2)


async def test_s_48_one_service_cannot_flood():
    async with FakeApiServer().serving() as server, recording(server) as recorder:
        for n in range(100):
            recorder.record(
                SOURCE, builders.service().reference, "Warning", "SyncLoadBalancerFailed", str(n)
            )
        recorder.record(SOURCE, builders.service(uid="u-2").reference, "Normal", "Other", "heard")
        await recorder.drain()
        assert len(server.objects) == events.BURST + 1


async def test_s_10_full_queue_drops_and_does_not_block():
    async with FakeApiServer().serving() as server:
        transport = server.transport()
        recorder = events.Recorder(transport, "x", HastyClock(), metrics.Metrics())
        for n in range(events.QUEUE_LIMIT + 50):
            recorder.record(SOURCE, builders.service(uid=str(n)).reference, "Normal", "A", "b")
        assert recorder._queue.qsize() == events.QUEUE_LIMIT
        await transport.close()


async def test_refused_event_is_dropped_and_the_next_is_written():
    """A namespace that is being deleted refuses new events with 403."""
    async with FakeApiServer().serving() as server, recording(server) as recorder:
        server.answers = [("POST", 403)]
        recorder.record(SOURCE, builders.service().reference, "Normal", "A", "refused")
        recorder.record(SOURCE, builders.service().reference, "Normal", "A", "written")
        await until(lambda: server.objects)
        assert [one["note"] for one in server.objects.values()] == ["written"]


async def test_server_error_is_tried_again():
    async with FakeApiServer().serving() as server, recording(server) as recorder:
        server.answers = [("POST", 500), ("POST", 429)]
        recorder.record(SOURCE, builders.service().reference, "Normal", "A", "b")
        await until(lambda: server.objects)


async def test_s_48_a_series_that_ends_is_written_with_its_last_count():
    clock = FakeClock()
    async with FakeApiServer().serving() as server, recording(server, clock) as recorder:
        about = builders.service().reference
        for _ in range(4):
            recorder.record(SOURCE, about, "Warning", "SyncLoadBalancerFailed", "same")
        await recorder._queue.join()
        (event,) = server.objects.values()
        assert event["series"]["count"] == 2, "later ones are counted here"
        await clock.advance(events.SERIES_IDLE_S + 1)
        recorder.record(SOURCE, builders.service(uid="u-2").reference, "Normal", "Other", "now")
        await until(lambda: len(server.objects) == 2)
        await until(lambda: event_of(server, "same")["series"]["count"] == 4)
        assert len(recorder._series) == 1


async def test_s_48_a_series_that_goes_on_is_written_now_and_then():
    clock = FakeClock()
    async with FakeApiServer().serving() as server, recording(server, clock) as recorder:
        about = builders.service().reference
        recorder.record(SOURCE, about, "Warning", "SyncLoadBalancerFailed", "same")
        for _ in range(8):
            await recorder._queue.join()
            await clock.advance(300.0)
            recorder.record(SOURCE, about, "Warning", "SyncLoadBalancerFailed", "same")
        await until(lambda: event_of(server, "same")["series"]["count"] > 2)
        assert [method for method, _ in server.requests].count("PATCH") == 2


async def test_what_is_old_is_found_without_looking_at_the_rest():
    """Ten thousand Services have as many series: each event must not look at all of them."""
    clock = FakeClock()
    async with FakeApiServer().serving() as server:
        transport = server.transport()
        recorder = events.Recorder(transport, "x", clock, metrics.Metrics())
        looks = 0

        class Counting(OrderedDict):
            def __iter__(self):
                nonlocal looks
                for one in super().__iter__():
                    looks += 1
                    yield one

            def items(self):
                nonlocal looks
                for one in super().items():
                    looks += 1
                    yield one

        recorder._series, recorder._budgets = Counting(), Counting()
        for n in range(50):
            key = events._Key(SOURCE, builders.service(uid=str(n)).reference, "Normal", "A", "b")
            await recorder._create(events._Entry(key, clock.monotonic(), clock.now()))
            await recorder._close_idle()
        await transport.close()
    assert looks <= 2 * 50


async def test_events_wait_while_there_is_much_to_do_but_not_for_ever():
    clock, busy = FakeClock(), [True]
    async with FakeApiServer().serving() as server, recording(server, clock) as recorder:
        recorder.give_way_to(lambda: busy[0])
        said_at = micro_time(clock.now())
        for uid in ("u-1", "u-2"):
            recorder.record(SOURCE, builders.service(uid=uid).reference, "Normal", "A", uid)
        await clock.advance(5.0)
        assert not server.objects
        busy[0] = False
        await clock.advance(1.0)
        await until(lambda: len(server.objects) == 2)
        assert event_of(server, "u-1")["eventTime"] == said_at, "when it happened, not was written"

        busy[0] = True
        recorder.record(SOURCE, builders.service(uid="u-3").reference, "Normal", "A", "u-3")
        await clock.advance(events.PATIENCE_S + 1)
        await until(lambda: len(server.objects) == 3)

        recorder.record(SOURCE, builders.service(uid="u-4").reference, "Normal", "A", "u-4")
        draining = asyncio.create_task(recorder.drain())
        await clock.advance(1.0)
        await draining
        assert len(server.objects) == 4


def event_of(server, note):
    """Return the event with that note."""
    return next(one for one in server.objects.values() if one["note"] == note)
