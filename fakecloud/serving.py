"""The HTTP server with the limits that uvicorn lacks, and the same loops without a server."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from asyncio import TimerHandle
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fakecloud import app
from fakecloud.dataplane import premises
from fakecloud.errors import StartError
from fakecloud.settings import Settings

MAX_HEAD_BYTES: Final = 64 * 1024
HEAD_TIMEOUT_S: Final = 15.0
STALL_S: Final = 30.0
"""A client that takes nothing of what waits for it, or whose host is silent, is let go of."""
MORE_CONNECTIONS: Final = 1000
"""Connections beside the watches; one more is answered 503 at once."""


class Ends(Protocol):
    """What must be told when the server stops, because it would wait for it otherwise."""

    def close(self) -> None:
        """End every watch."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; load balancers go on running. Raises: StartError."""
    premises.set_limits()
    premises.check(settings)
    host, port = settings.address()
    with listen(host, port) as listener, app.running(settings) as made:
        _settled()
        server(
            made,
            made.state.cloud.hub,
            max_watches=settings.max_watches,
            cert=settings.tls_cert,
            key=settings.tls_key,
        ).run_on(listener)


def work(settings: Settings) -> None:
    """Run load balancers until SIGTERM or SIGINT, without an API. Raises: StartError."""
    premises.set_limits()
    premises.check(settings)
    if settings.database_url.startswith("sqlite"):
        raise StartError(
            "fakecloud work shares a database with a server: give the --database of PostgreSQL"
        )
    with app.running(settings) as made:
        _settled()
        asyncio.run(_work(made))


def _settled() -> None:
    """Let the collector pass over what was made at start and stays: looking at all of it every
    now and then held up every request by 100 ms (seen)."""
    gc.collect()
    gc.freeze()


async def _work(made: FastAPI) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with made.router.lifespan_context(made):
        print(f"fakecloud works as host {made.state.cloud.host}", flush=True)  # noqa: T201
        await stop.wait()


class BoundedHttp(HttpToolsProtocol):
    """Closes connections whose request line and headers are too large, or too slow to come, and
    those whose client doesn't take the answer.

    Without this anybody who reaches the port fills the memory, or holds every file descriptor,
    before a token is looked at (both seen); and a watcher that sleeps, or whose host is gone
    without a word, keeps its place and what waits for it for ever.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._head_bytes = 0
        self._deadline: TimerHandle | None = None
        self._stalled: TimerHandle | None = None
        _notice_silence(transport.get_extra_info("socket"))
        self._await_head()

    def pause_writing(self) -> None:
        """Give the client a while to take what waits for it."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALL_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: it has taken most of it."""
        super().resume_writing()
        self._goes_on()

    def data_received(self, data: bytes) -> None:
        """Take bytes; those of an unfinished head are counted."""
        super().data_received(data)
        if self._deadline is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.abort()

    def on_message_begin(self) -> None:
        """Begin a request; on a kept connection its head has the same limits."""
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        """End of the head."""
        super().on_headers_complete()
        self._head_is_there()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._head_is_there()
        self._goes_on()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head_bytes = 0
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.abort)

    def _head_is_there(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _goes_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


def _notice_silence(connection: socket.socket) -> None:
    """Let the kernel end a connection whose other side hasn't answered it for STALL_S."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, int(STALL_S))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, int(STALL_S / 3)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALL_S * 1000))


class Server(uvicorn.Server):
    """Prints its URL when it answers, so that scripts can wait for the line."""

    def __init__(self, config: uvicorn.Config, watches: Ends) -> None:
        super().__init__(config)
        self._watches = watches

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting requests and wait for those under way."""
        self._watches.close()
        await super().shutdown(sockets)

    def run_on(self, listener: socket.socket) -> None:
        """Serve until SIGTERM or SIGINT."""
        # uvicorn raises the signal that ended it once more; without a handler of our own that
        # would make a clean stop look like a death by signal.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._end)
        with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(self._serve_on(listener))

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self.should_exit = True

    async def _serve_on(self, listener: socket.socket) -> None:
        serving = asyncio.create_task(self.serve([listener]))
        while not self.started and not serving.done():
            await asyncio.sleep(0.005)
        if self.started:
            host, port = listener.getsockname()[:2]
            scheme = "https" if self.config.is_ssl else "http"
            shown = f"[{host}]" if ":" in host else host
            print(f"fakecloud is ready at {scheme}://{shown}:{port}", flush=True)  # noqa: T201
        await serving


def server(
    app: FastAPI, watches: Ends, *, max_watches: int, cert: Path | None, key: Path | None
) -> Server:
    """Return the server for `app`."""
    options: dict[str, Any] = {
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "http": BoundedHttp,
        "timeout_graceful_shutdown": 2,
        "timeout_keep_alive": 75,
        "limit_concurrency": max_watches + MORE_CONNECTIONS,
        "ssl_certfile": cert,
        "ssl_keyfile": key,
    }
    return Server(uvicorn.Config(app, **options), watches)


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket. Raises: StartError that names address and reason."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise StartError(
            f"can't listen on {host}:{port}: {error.strerror}; give another --listen"
        ) from None
    return listener
