"""The prober against real servers on loopback."""

from __future__ import annotations

import asyncio
import errno
import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from threading import Event

import pytest

from fakecloud import model
from fakecloud.domain import checks
from fakecloud.health import prober

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
LIMIT_S = 10  # of any wait here, so that a broken rule fails and doesn't hang
START = datetime(2026, 11, 23, 10, tzinfo=UTC)


class StoppedClock:
    """A clock that stands still; the prober's turns follow the loop."""

    def now(self) -> datetime:
        return START

    def monotonic(self) -> float:
        return 0.0

    def wait(self, stop: Event, seconds: float) -> bool:
        return stop.is_set()


class Target:
    """A server with a settable answer. None: reads and says nothing; b"": hangs up."""

    def __init__(self, answer: bytes | None = OK) -> None:
        self.answer = answer
        self.connections = 0
        self.open = 0
        self.requests = 0
        self.hang_up_after = False
        self.one_answer_each = False
        self.progress = asyncio.Condition()
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self._writers.add(writer)
        await self._tell()
        with suppress(OSError, asyncio.IncompleteReadError):
            for turn in itertools.count():
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                if turn and self.one_answer_each:
                    break
                if self.answer is not None:
                    writer.write(self.answer)
                await self._tell()
                if self.answer == b"" or self.hang_up_after:
                    break
        self._writers.discard(writer)
        writer.close()
        self.open -= 1
        await self._tell()

    async def hang_up(self) -> None:
        """Close every connection, as an idle server does."""
        for writer in list(self._writers):
            writer.close()
        await self.until(lambda: not self.open)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S), self.progress:
            await self.progress.wait_for(holds)

    async def _tell(self) -> None:
        async with self.progress:
            self.progress.notify_all()


@asynccontextmanager
async def serving(target: Target, host: str = "127.0.0.1") -> AsyncIterator[Target]:
    server = await asyncio.start_server(target.serve, host)
    target.port = server.sockets[0].getsockname()[1]
    try:
        yield target
    finally:
        server.close()
        await target.hang_up()


class Probing:
    """A running prober and its changes."""

    def __init__(self, **options: int) -> None:
        self.changes: asyncio.Queue[tuple[model.ProbeKey, checks.ProbeResult]] = asyncio.Queue()
        self.prober = prober.Prober(
            StoppedClock(),
            lambda key, result: self.changes.put_nowait((key, result)),
            rng=random.Random(7),
            **options,
        )

    async def change(self) -> tuple[bool | None, str]:
        async with asyncio.timeout(LIMIT_S):
            _, result = await self.changes.get()
        return result.healthy, result.reason


@asynccontextmanager
async def probing(*keys: model.ProbeKey, **options: int) -> AsyncIterator[Probing]:
    watched = Probing(**options)
    watched.prober.watch(keys)
    task = asyncio.create_task(watched.prober.run())
    try:
        yield watched
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def key(port: int, ip: str = "127.0.0.1", **check: object) -> model.ProbeKey:
    wanted: dict[str, object] = {"protocol": "http", "interval_s": 1, "timeout_s": 1, **check}
    return model.ProbeKey(ip=ip, port=port, check=model.HealthCheck(**wanted))  # type: ignore[arg-type]


async def test_weight_of_a_good_answer_is_told_and_stays_while_the_target_fails() -> None:
    """kube-proxy's header, with the number of local endpoints."""
    weighing = (
        b"HTTP/1.1 200 OK\r\nx-load-balancing-ENDPOINT-weight: %d\r\nContent-Length: 0\r\n\r\n"
    )
    async with serving(Target(weighing % 3)) as target, probing(key(target.port)) as watched:
        assert await watched.change() == (True, "http_200")
        assert watched.prober.result(key(target.port)).weight == 3
        target.answer = weighing % 5
        assert await watched.change() == (True, "http_200")
        assert watched.prober.result(key(target.port)).weight == 5
        target.answer = BUSY
        assert await watched.change() == (False, "http_503")
        assert watched.prober.result(key(target.port)).weight == 5


async def test_health_follows_the_target_on_one_connection() -> None:
    async with serving(Target()) as target, probing(key(target.port)) as watched:
        assert await watched.change() == (True, "http_200")
        target.answer = BUSY
        assert await watched.change() == (False, "http_503")
        target.answer = OK
        assert await watched.change() == (True, "http_200")
        assert target.connections == 1
        assert watched.prober.result(key(target.port)).since == START


async def test_a_connection_that_the_idle_peer_closed_is_opened_again() -> None:
    """The close costs no verdict, not even with fall 1."""
    async with serving(Target()) as target, probing(key(target.port, fall=1)) as watched:
        assert await watched.change() == (True, "http_200")
        await target.hang_up()
        await target.until(lambda: target.requests == 2)
        assert target.connections == 2
        target.hang_up_after = True  # answers and closes without saying so
        await target.until(lambda: target.requests == 4)
        assert watched.changes.empty()


async def test_a_close_that_crosses_the_request_costs_no_verdict() -> None:
    """The peer hangs up on the second request of a connection, as one whose idle time is over."""
    async with serving(Target()) as target, probing(key(target.port, fall=1)) as watched:
        target.one_answer_each = True
        assert await watched.change() == (True, "http_200")
        await target.until(lambda: target.requests == 5)
        assert target.connections == 3
        assert watched.changes.empty()


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        pytest.param(None, (False, "timeout"), id="silence"),
        pytest.param(b"", (False, "connection_closed"), id="hang up"),
        pytest.param(b"SSH-2.0-x\r\n", (False, "bad_response"), id="not HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, (False, "bad_response"), id="head"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", (True, "http_200"), id="body"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nuntil close", (True, "http_200"), id="endless"),
        pytest.param(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", (False, "http_302"), id="302"),
    ],
)
async def test_answers(answer: bytes | None, verdict: tuple[bool, str]) -> None:
    async with serving(Target(answer)) as target, probing(key(target.port)) as watched:
        assert await watched.change() == verdict


async def test_nobody_listens() -> None:
    async with serving(Target()) as target:
        pass
    for protocol in ("http", "tcp"):
        async with probing(key(target.port, protocol=protocol)) as watched:
            assert await watched.change() == (False, "connection_refused")


async def test_tcp_check_connects_and_hangs_up() -> None:
    async with serving(Target()) as target, probing(key(target.port, protocol="tcp")) as watched:
        assert await watched.change() == (True, "tcp_connected")
        await target.until(lambda: target.connections == 1 and not target.open)
        assert target.requests == 0


async def test_ipv6() -> None:
    async with AsyncExitStack() as stack:
        try:
            target = await stack.enter_async_context(serving(Target(), "::1"))
        except OSError as error:
            pytest.skip(f"no IPv6 on loopback: {error}")
        for protocol, reason in (("http", "http_200"), ("tcp", "tcp_connected")):
            async with probing(key(target.port, "::1", protocol=protocol)) as watched:
                assert await watched.change() == (True, reason)


async def test_equal_keys_are_one_probe() -> None:
    async with serving(Target()) as target, probing(*[key(target.port)] * 3) as watched:
        await watched.change()
        await target.until(lambda: target.requests == 2)
        assert target.connections == 1
        assert watched.changes.empty()


async def test_unwatched_keys_are_closed_and_forgotten() -> None:
    async with (
        serving(Target()) as old,
        serving(Target()) as new,
        probing(key(old.port)) as watched,
    ):
        await watched.change()
        await asyncio.to_thread(watched.prober.watch, [key(new.port)])
        assert watched.prober.result(key(new.port)).healthy is None
        changed, result = await watched.changes.get()
        assert (changed, result.healthy) == (key(new.port), True)
        await old.until(lambda: not old.open)
        assert watched.prober.result(key(old.port)).healthy is None


async def test_a_key_watched_anew_is_asked_anew() -> None:
    """Both changes of the set arrive at the loop as one."""
    async with serving(Target()) as target, probing(key(target.port)) as watched:
        await watched.change()
        watched.prober.watch([])
        watched.prober.watch([key(target.port)])
        assert await watched.change() == (True, "http_200")
        assert watched.prober.result(key(target.port)).healthy is True


async def test_probes_wait_when_too_many_are_under_way() -> None:
    """Silent targets hold the only place; the others get their turn after the timeout."""
    async with serving(Target(None)) as silent, serving(Target()) as well:
        silent_key, well_key = key(silent.port), key(well.port)
        async with probing(silent_key, max_concurrent=1) as watched:
            await silent.until(lambda: silent.requests == 1)
            watched.prober.watch([silent_key, well_key])
            first, _ = await watched.changes.get()
            assert (first, well.requests) == (silent_key, 0)
            second, result = await watched.changes.get()
            assert (second, result.healthy) == (well_key, True)


async def test_no_more_idle_connections_than_allowed() -> None:
    async with serving(Target()) as target:
        keys = [key(target.port, path=f"/{n}") for n in range(5)]
        async with probing(*keys, max_idle=2) as watched:
            for _ in keys:
                await watched.change()
            await target.until(lambda: target.open == 2)


async def test_no_verdict_when_this_process_is_out_of_descriptors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    connect, failed = loop.create_connection, asyncio.Event()

    async def exhausted(*_args: object, **_options: object) -> None:
        failed.set()
        raise OSError(errno.EMFILE, "Too many open files")

    async with serving(Target()) as target:
        monkeypatch.setattr(loop, "create_connection", exhausted)
        async with probing(key(target.port)) as watched:
            await failed.wait()
            monkeypatch.setattr(loop, "create_connection", connect)
            assert watched.prober.result(key(target.port)).reason == "prober_exhausted"
            assert await watched.change() == (True, "http_200")


async def test_stopping_closes_everything_and_it_can_run_again() -> None:
    async with serving(Target()) as target:
        async with probing(key(target.port)) as watched:
            await watched.change()
        await target.until(lambda: not target.open)
        assert watched.prober.result(key(target.port)).healthy is True
        again = asyncio.create_task(watched.prober.run())
        target.answer = BUSY
        assert await watched.change() == (False, "http_503")
        again.cancel()
        with pytest.raises(asyncio.CancelledError):
            await again
