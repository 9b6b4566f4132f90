"""A small HTTP/1.1 client for load: keep-alive connections, one request on each at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import cast
from urllib.parse import urlsplit

import msgspec

_WAIT_S = 30.0


class Result(msgspec.Struct, frozen=True):
    """What came back within the time: requests a second, each one's seconds, and the statuses."""

    per_second: float
    seconds: list[float]
    statuses: dict[int, int]

    @property
    def p99_ms(self) -> float:
        """Return how long the slowest hundredth took at least."""
        return percentile(self.seconds, 0.99) * 1000


def percentile(values: list[float], share: float) -> float:
    """Return the value that `share` of `values` don't pass."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def request(method: str, path: str, token: str, body: bytes = b"") -> bytes:
    """Return the bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "host: bench", f"authorization: Bearer {token}"]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Connection(asyncio.Protocol):
    """Sends the next request when the answer to the last one is whole."""

    def __init__(self, requests: Iterator[bytes], until: Callable[[], bool]) -> None:
        self.seconds: list[float] = []
        self.statuses: dict[int, int] = {}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._until = until
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._buffer.find(b"content-length: ", 0, head)
        length = int(self._buffer[at + 16 : self._buffer.find(b"\r", at)]) if at >= 0 else 0
        if len(self._buffer) < head + 4 + length:
            return
        status = int(self._buffer[9:12])
        self._buffer = b""
        self.seconds.append(time.perf_counter() - self._sent)
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self._next()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _next(self) -> None:
        wanted = None if self._until() else next(self._requests, None)
        if wanted is None:
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(wanted)


async def run(url: str, requests: Iterator[bytes], *, connections: int, seconds: float) -> Result:
    """Send `requests` over `connections` for `seconds`, or until there are no more."""
    place = urlsplit(url)
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    made = [
        (
            await loop.create_connection(
                lambda: _Connection(requests, lambda: time.perf_counter() - began > seconds),
                place.hostname or "",
                place.port or 80,
            )
        )[1]
        for _ in range(connections)
    ]
    async with asyncio.timeout(seconds + _WAIT_S):
        await asyncio.gather(*(one.done for one in made))
    took = time.perf_counter() - began
    samples = [second for one in made for second in one.seconds]
    statuses: dict[int, int] = {}
    for one in made:
        for status, count in one.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    return Result(len(samples) / took, samples, statuses)


def decode(body: bytes) -> list[tuple[int, float]]:
    """Return pairs of an integer and a number."""
    return msgspec.json.decode(body, type=list[tuple[int, float]])
