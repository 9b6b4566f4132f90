"""List and watch against an API server that misbehaves."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager

import msgspec
import pytest

from ccm.kube import informer, objects
from tests.fakes.ccm_clock import HastyClock, until
from tests.fakes.kubeapi import FakeApiServer

NODES = "/api/v1/nodes"


@asynccontextmanager
async def watching(server: FakeApiServer, clock=None, **options):
    """Run an informer on `server`; give it with the changes that its handler saw."""
    transport = server.transport()
    target = informer.Informer(
        transport,
        NODES,
        objects.Node,
        clock or HastyClock(),
        rng=random.Random(1),
        **{"idle_s": 5.0, **options},
    )
    seen: list[tuple[str, bool, bool]] = []
    target.handlers.append(lambda key, old, new: seen.append((key, old is None, new is None)))
    task = asyncio.create_task(target.run())
    try:
        yield target, seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await transport.close()


async def test_lists_in_pages_and_follows():
    async with FakeApiServer().serving() as server:
        for n in range(5):
            server.put(NODES, f"n{n}")
        async with watching(server, page_size=2) as (target, seen):
            await target.synced.wait()
            assert len(target.store) == 5
            server.put(NODES, "n5")
            server.delete(NODES, "n0")
            await until(lambda: "n5" in target.store and "n0" not in target.store)
        assert seen[-2:] == [("n5", True, False), ("n0", False, True)]
        assert sum(path == NODES for _, path in server.requests) == 4


@pytest.mark.parametrize(
    "fault",
    ["410", "error410", "eof", "truncate", "abort", "500", "error500", "429", "401", "garbage"],
)
async def test_a_15_nothing_is_missed_after_a_fault_of_the_watch(fault):
    """Added and deleted while the watch was in trouble: both are reported, once."""
    async with FakeApiServer().serving() as server:
        server.put(NODES, "old")
        server.watch_faults = [fault, fault]
        async with watching(server) as (target, seen):
            await target.synced.wait()
            server.put(NODES, "new")
            server.delete(NODES, "old")
            await until(lambda: set(target.store) == {"new"})
            server.put(NODES, "last")
            await until(lambda: "last" in target.store)
        assert seen == [
            ("old", True, False),
            ("new", True, False),
            ("old", False, True),
            ("last", True, False),
        ]


@pytest.mark.parametrize("fault", ["410", "error410"])
async def test_a_15_deletion_missed_by_the_watch_is_found_by_the_new_list(fault):
    async with FakeApiServer().serving() as server:
        server.put(NODES, "stays")
        server.put(NODES, "goes")
        async with watching(server) as (target, seen):
            await until(lambda: len(server.watches) == 1)
            server.forget_silently(NODES, "goes")
            server.watch_faults = [fault]
            server.cut()
            await until(lambda: set(target.store) == {"stays"})
        assert seen[2:] == [("goes", False, True)]


@pytest.mark.parametrize("fault", ["eof", "500", "error500", "410", "error410", "401"])
async def test_faults_that_repeat_back_off(fault):
    """No hot loop: pauses grow to the limit, whatever the fault."""
    async with FakeApiServer().serving() as server:
        server.watch_faults = [fault] * 8
        clock = HastyClock()
        async with watching(server, clock) as (_target, _):
            await until(lambda: not server.watch_faults)
        pauses = [one for one in clock.slept if one]
        assert len(pauses) >= 7
        assert pauses[0] >= 0.8
        assert pauses[6] >= 30.0


async def test_silent_watch_is_reopened_where_it_was():
    async with FakeApiServer().serving() as server:
        server.put(NODES, "a")
        server.watch_faults = ["silent"]
        async with watching(server, idle_s=0.05) as (_target, _):
            await until(lambda: len(server.watches) >= 2)
        assert server.watches[0]["resourceVersion"] == server.watches[1]["resourceVersion"]
        assert sum("limit" in path for _, path in server.requests) == 0


async def test_a_15_bookmark_moves_the_place_to_resume_from():
    async with FakeApiServer().serving() as server:
        server.put(NODES, "a")
        server.watch_faults = ["bookmark"]
        async with watching(server) as (_target, _):
            await until(lambda: len(server.watches) >= 2)
        first, second = (int(one["resourceVersion"]) for one in server.watches[:2])
        assert second > first
        assert all(one["allowWatchBookmarks"] == "true" for one in server.watches)


async def test_continue_token_that_expired_lists_once_without_pages():
    async with FakeApiServer().serving() as server:
        for n in range(5):
            server.put(NODES, f"n{n}")
        server.list_faults = []
        original = server._list

        def expire_second_page(request):
            if "continue" in request.query:
                server.list_faults = ["410"]
            return original(request)

        server._list = expire_second_page
        async with watching(server, page_size=2) as (target, _):
            await target.synced.wait()
            assert len(target.store) == 5


@pytest.mark.parametrize("fault", ["500", "429", "garbage"])
async def test_list_that_fails_is_repeated(fault):
    async with FakeApiServer().serving() as server:
        server.put(NODES, "a")
        server.list_faults = [fault]
        clock = HastyClock()
        async with watching(server, clock) as (target, _):
            await asyncio.wait_for(target.synced.wait(), 5)
        assert clock.slept[0] >= (7.0 if fault == "429" else 0.8)


async def test_a_15_relist_reports_only_what_changed():
    async with FakeApiServer().serving() as server:
        server.put(NODES, "a")
        server.put(NODES, "b")
        async with watching(server) as (_target, seen):
            await until(lambda: len(server.watches) == 1)
            server.watch_faults = ["410"]
            server.cut()
            await until(lambda: len(server.watches) >= 3)
            assert len(seen) == 2


async def test_our_own_write_is_no_news():
    async with FakeApiServer().serving() as server:
        server.put(NODES, "a")
        async with watching(server) as (target, seen):
            await until(lambda: len(server.watches) == 1)
            answer = {"metadata": {"name": "a", "uid": "uid-a", "resourceVersion": "11"}}
            target.observe(msgspec.convert(answer, objects.Node))
            assert server.put(NODES, "a")["metadata"]["resourceVersion"] == "11"
            server.put(NODES, "b")
            await until(lambda: "b" in target.store)
        assert [key for key, _, _ in seen] == ["a", "b"]


async def test_answer_to_a_write_never_brings_back_what_is_gone_or_older():
    async with FakeApiServer().serving() as server:
        server.put(NODES, "a")
        async with watching(server) as (target, _):
            await target.synced.wait()
            for uid, version, name in (("uid-a", "5", "a"), ("x", "99", "a"), ("y", "99", "c")):
                meta = {"name": name, "uid": uid, "resourceVersion": version}
                target.observe(msgspec.convert({"metadata": meta}, objects.Node))
            assert target.store["a"].metadata.resource_version == "10"
            assert "c" not in target.store
