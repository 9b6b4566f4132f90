"""The HTTP server around the application, and the same loops without one."""

from __future__ import annotations

import asyncio
import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from fakecloud import app
from fakecloud.errors import StartError
from fakecloud.settings import Settings
from fakecloud.watch import Hub


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; load balancers go on running. Raises: StartError."""
    host, port = settings.address()
    listener = _listen(host, port)
    with listener, app.running(settings) as made:
        config = uvicorn.Config(
            made,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
            timeout_keep_alive=75,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        )
        server = Server(config, made.state.cloud.hub)
        scheme = "https" if settings.tls_cert else "http"
        bound_host, bound_port = listener.getsockname()[:2]
        shown = f"[{bound_host}]" if ":" in bound_host else bound_host
        _Announcing(server, f"{scheme}://{shown}:{bound_port}").run(listener)


def work(settings: Settings) -> None:
    """Run load balancers until SIGTERM or SIGINT, without an API. Raises: StartError."""
    if settings.database_url.startswith("sqlite"):
        raise StartError(
            "fakecloud work shares a database with a server: give the --database of PostgreSQL"
        )
    with app.running(settings) as made:
        asyncio.run(_work(made))


async def _work(made: FastAPI) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with made.router.lifespan_context(made):
        print(f"fakecloud works as host {made.state.cloud.host}", flush=True)  # noqa: T201
        await stop.wait()


class Server(uvicorn.Server):
    """Ends the watches when it stops; it would otherwise wait for them until it gives up."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting requests and wait for those under way."""
        self._hub.close()
        await super().shutdown(sockets)


class _Announcing:
    """Runs uvicorn and prints the URL when it answers, so that scripts can wait for the line."""

    def __init__(self, server: uvicorn.Server, url: str) -> None:
        self._server = server
        self._url = url

    def run(self, listener: socket.socket) -> None:
        # uvicorn raises the signal that ended it once more; without a handler of our own that
        # would make a clean stop look like a death by signal.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._end)
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(self._run(listener))

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._server.should_exit = True

    async def _run(self, listener: socket.socket) -> None:
        serving = asyncio.create_task(self._server.serve([listener]))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.005)
        if self._server.started:
            print(f"fakecloud is ready at {self._url}", flush=True)  # noqa: T201 - the one line
        await serving


def _listen(host: str, port: int) -> socket.socket:
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
