"""The cloud in memory: snapshot, resume, expiry, and no older state over a newer one."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest

from ccm import errors, metrics
from ccm.cloud import client as clients
from ccm.cloud import connection as connections
from ccm.cloud import mirror
from ccm.service import desired, nodes, ownership
from tests.fakes.ccm_clock import FakeClock, HastyClock, until
from tests.fakes.cloud import TOKEN, FakeCloud
from tests.unit.ccm import builders

DOCUMENT = desired.build(
    builders.service(), (nodes.Backend("node-1", ("10.0.0.1",)),), builders.ownership()
).document
NAME = "k8s-u-1"


@asynccontextmanager
async def mirroring(fake, tmp_path, clock=None):
    """Give a running mirror of `fake` and the changes that it reported."""
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    client = clients.Client(
        connections.Connection(
            fake.url, lambda: connections.read_token(token_file), metrics.Metrics()
        )
    )
    target = mirror.Mirror(
        client, clock or HastyClock(), random.Random(1), keys_of=ownership.keys_of
    )
    seen: list[tuple[str, str]] = []
    target.handlers.append(
        lambda old, new: seen.append(
            ((new or old).name, new.status.state if new is not None else "gone")
        )
    )
    task = asyncio.create_task(target.run())
    try:
        yield target, seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()


async def test_put_becomes_active_by_the_stream(tmp_path):
    async with FakeCloud().serving() as fake, mirroring(fake, tmp_path) as (target, seen):
        await target.synced.wait()
        assert target.problem == ""
        answer = await target.put(NAME, DOCUMENT)
        assert not answer.is_applied
        await until(lambda: (NAME, "ACTIVE") in seen)
        one = target.observed(NAME)
        assert one is not None
        assert one.is_applied
        assert one.status.addresses[0].ip == "127.77.0.2"
        assert target.made_for("shop/web") == (one,)


async def test_snapshot_of_what_is_there_already(tmp_path):
    async with FakeCloud().serving() as fake:
        async with mirroring(fake, tmp_path) as (target, _):
            await target.put(NAME, DOCUMENT)
        async with mirroring(fake, tmp_path) as (target, seen):
            await target.synced.wait()
            assert target.observed(NAME) is not None
            assert len(seen) == 1


async def test_resumes_without_a_new_snapshot_and_misses_nothing(tmp_path):
    async with FakeCloud().serving() as fake, mirroring(fake, tmp_path) as (target, seen):
        await target.put(NAME, DOCUMENT)
        await until(lambda: (NAME, "ACTIVE") in seen)
        before = len(seen)
        fake.drop_streams()
        fake.remove(NAME)
        await until(lambda: target.observed(NAME) is None)
        assert seen[before:] == [(NAME, "gone")]


@pytest.mark.parametrize("way", ["status", "history"])
async def test_expired_history_takes_a_snapshot_and_reports_what_is_gone(tmp_path, way):
    async with FakeCloud().serving() as fake, mirroring(fake, tmp_path) as (target, seen):
        await target.put(NAME, DOCUMENT)
        await until(lambda: (NAME, "ACTIVE") in seen)
        if way == "status":
            fake.trouble.watch_status = [410]
        del fake.load_balancers[NAME]
        fake.expire_history()
        fake.oldest += 1
        fake.drop_streams()
        await until(lambda: seen[-1] == (NAME, "gone"))


async def test_b_01_stalled_stream_is_opened_again_and_misses_nothing(tmp_path, monkeypatch):
    """Open, but silent: the heartbeat that was asked for doesn't come."""
    monkeypatch.setattr(clients, "STREAM_IDLE_S", 0.05)
    async with FakeCloud().serving() as fake:
        fake.trouble.stalled_streams = 2
        async with mirroring(fake, tmp_path) as (target, seen):
            await target.put(NAME, DOCUMENT)
            await until(lambda: (NAME, "ACTIVE") in seen)
        assert {one["heartbeat"] for one in fake.watches} == {"1s"}
        assert len(fake.watches) >= 3
    assert clients.HEARTBEAT_S < 4


async def test_cloud_that_is_down_is_a_problem_until_it_is_back(tmp_path):
    clock = HastyClock()
    async with FakeCloud().serving() as fake:
        fake.trouble.watch_status = [500] * 100_000
        async with mirroring(fake, tmp_path, clock) as (target, _):
            await until(lambda: len(clock.slept) > 5)
            assert target.problem == "told to"
            fake.trouble.watch_status.clear()
            await target.synced.wait()
            assert target.problem == ""
    assert clock.slept[5] > 4 * clock.slept[0]


async def test_cloud_that_was_away_is_back_within_a_quarter_of_a_second(tmp_path):
    """However long it was away, and however often before."""
    clock = HastyClock()
    fake = FakeCloud()
    returns: list[str] = []
    async with AsyncExitStack() as stack:
        life = await stack.enter_async_context(AsyncExitStack())
        await life.enter_async_context(fake.serving())
        port = int(fake.url.rpartition(":")[2])
        target, seen = await stack.enter_async_context(mirroring(fake, tmp_path, clock))
        target.on_return.append(lambda: returns.append("back"))
        await target.put(NAME, DOCUMENT)
        await until(lambda: (NAME, "ACTIVE") in seen)
        for times in (1, 2, 3):
            await life.aclose()
            clock.slept.clear()
            await until(lambda: len(clock.slept) > 12)
            assert "connect" in target.problem.lower()
            await life.enter_async_context(fake.serving(port))
            await until(lambda times=times: len(returns) == times + 1)
            assert target.problem == ""
            assert max(clock.slept) <= 0.25
    assert len(seen) == len(set(seen))


async def test_stream_that_worked_for_a_while_begins_a_new_row_of_pauses(tmp_path):
    clock = FakeClock()
    async with FakeCloud().serving() as fake:
        fake.trouble.watch_status = [500] * 3
        async with mirroring(fake, tmp_path, clock) as (target, _):
            for count in (1, 2, 3):
                await until(lambda count=count: len(clock.slept) == count)
                await clock.advance(clock.slept[-1])
            await target.synced.wait()
            await clock.advance(mirror.STEADY_S)
            fake.trouble.watch_status = [500]
            fake.drop_streams()
            await until(lambda: len(clock.slept) == 4)
    assert clock.slept[2] > 2 * clock.slept[0]
    assert clock.slept[3] <= 0.3


async def test_revoked_token_is_a_problem_although_the_stream_is_up(tmp_path):
    async with FakeCloud().serving() as fake, mirroring(fake, tmp_path) as (target, _):
        await target.synced.wait()
        (tmp_path / "token").write_text("revoked")
        target._client._connection._token = "revoked"
        with pytest.raises(errors.CloudUnauthenticated):
            await target.look_up(NAME)
        assert "token" in target.problem
        (tmp_path / "token").write_text(TOKEN)
        with pytest.raises(errors.CloudUnauthenticated):
            await target.look_up(NAME)
        await target.look_up(NAME)
        assert target.problem == ""


async def test_late_answer_does_not_bring_back_an_older_state(tmp_path):
    """The stream says ACTIVE before the answer to the PUT says PENDING."""
    async with FakeCloud().serving() as fake, mirroring(fake, tmp_path) as (target, seen):
        first = await target.put(NAME, DOCUMENT)
        await until(lambda: (NAME, "ACTIVE") in seen)
        target._remember(first)
        assert target.observed(NAME).is_applied


async def test_late_answer_does_not_bring_back_what_is_deleted(tmp_path):
    async with FakeCloud().serving() as fake, mirroring(fake, tmp_path) as (target, seen):
        first = await target.put(NAME, DOCUMENT)
        await target.delete(NAME)
        await until(lambda: seen and seen[-1] == (NAME, "gone"))
        target._remember(first)
        assert target.observed(NAME) is None
        assert target.made_for("shop/web") == ()


async def test_b_20_nothing_is_written_without_the_lease(tmp_path):
    def refuse() -> None:
        raise errors.LeaseLost("another one leads")

    async with FakeCloud().serving() as fake, mirroring(fake, tmp_path) as (target, _):
        await target.synced.wait()
        target._may_write = refuse
        with pytest.raises(errors.LeaseLost):
            await target.put(NAME, DOCUMENT)
        with pytest.raises(errors.LeaseLost):
            await target.delete(NAME)
        assert fake.load_balancers == {}


async def test_who_is_no_longer_named_by_an_answer_is_told(tmp_path):
    """The stream's event finds the answer in memory already: it would tell nothing new."""
    labels = {**DOCUMENT.labels, "namespace": "shop", "share": "edge"}

    def noted(document, *members):
        text = ownership.write_members(dict.fromkeys(members, "u"))
        return msgspec.structs.replace(document, annotations={ownership.MEMBERS: text})

    async with FakeCloud().serving() as fake, mirroring(fake, tmp_path) as (target, seen):
        both = noted(msgspec.structs.replace(DOCUMENT, labels=labels), "shop/web", "shop/api")
        await target.put(NAME, both)
        await until(lambda: (NAME, "ACTIVE") in seen)
        before = target.observed(NAME)
        told: list[tuple[str, ...]] = []
        target.handlers.append(lambda old, _: told.append(ownership.keys_of(old)))
        later = str(int(before.status.resource_version or 0) + 1)
        status = msgspec.structs.replace(before.status, resource_version=later)
        target._remember(noted(msgspec.structs.replace(before, status=status), "shop/api"))
        assert any("shop/web" in keys for keys in told)
        assert target.made_for("shop/web") == ()
