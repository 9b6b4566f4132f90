"""Whether an address answers, on real loopback sockets."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

from ccm.service import reach
from tests.fakes.ccm_clock import FakeClock, settle, until


@asynccontextmanager
async def trying():
    target = reach.Reach(FakeClock())
    task = asyncio.create_task(target.run())
    try:
        yield target
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


async def test_open_port_is_known_at_once():
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    async with server, trying() as target:
        port = server.sockets[0].getsockname()[1]
        assert await target.soon("127.0.0.1", port, lambda: None) == ""


async def test_closed_port_is_tried_again_and_its_opening_wakes():
    port = closed_port()
    woken = asyncio.Event()
    async with trying() as target:
        problem = await target.soon("127.0.0.1", port, woken.set)
        assert problem
        woken.clear()
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", port)
        async with server:
            await target._clock.advance(reach.FIRST_RETRY_S)
            await until(woken.is_set)
            assert await target.soon("127.0.0.1", port, woken.set) == ""


async def test_good_result_that_is_old_is_tried_again_and_holds_meanwhile():
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    woken = asyncio.Event()
    async with trying() as target:
        async with server:
            assert await target.soon("127.0.0.1", port, woken.set) == ""
        woken.clear()
        await target._clock.advance(reach.GOOD_FOR_S + 1)
        assert await target.soon("127.0.0.1", port, woken.set) == ""
        await until(woken.is_set)
        assert await target.soon("127.0.0.1", port, woken.set)


async def test_silent_address_is_unknown_first(monkeypatch):
    answer = asyncio.Event()

    async def silent(ip, port):
        await answer.wait()
        return "no answer within 3 s"

    monkeypatch.setattr(reach, "connection_problem", silent)
    woken = asyncio.Event()
    async with trying() as target:
        assert await target.soon("192.0.2.1", 80, woken.set) is None
        answer.set()
        await until(woken.is_set)
        assert await target.soon("192.0.2.1", 80, woken.set) == "no answer within 3 s"


async def test_forgotten_address_is_tried_no_more():
    async with trying() as target:
        await target.soon("127.0.0.1", closed_port(), lambda: None)
        target.forget(["127.0.0.1"])
        await target._clock.advance(reach.LONGEST_RETRY_S)
        await settle()
        tries = len(target._clock.slept)
        await target._clock.advance(reach.LONGEST_RETRY_S)
        assert len(target._clock.slept) == tries


def test_address_outside_of_the_nodes_network_is_named():
    node_ips = ["172.18.0.2", "172.18.0.3", "fc00:f853::2"]
    assert reach.outside_of("172.18.9.9", node_ips) == ""
    assert reach.outside_of("127.77.0.1", node_ips) == "172.18.0.0/16"
    assert reach.outside_of("fd00::1", node_ips) == "fc00:f853::/64"
    assert reach.outside_of("fd00::1", ["172.18.0.2"]) == ""
