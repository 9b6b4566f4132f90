"""Watchers in one process of their own: what they got, and how long after the commit."""

from __future__ import annotations

import asyncio
import re
import time
from typing import cast
from urllib.parse import urlsplit

from tests.bench import load

_VERSION = re.compile(rb'^\{"type":"[A-Z]+","resource_version":"(\d+)","kind"', re.MULTILINE)
_SETTLE_S = 20.0


class Watcher(asyncio.Protocol):
    """One watch of load balancers; `seen`: resource versions, and when each came."""

    def __init__(self, wanted: bytes) -> None:
        self.seen: list[tuple[int, float]] = []
        self.standing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted = wanted
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self.transport.write(self._wanted)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if not self.standing.done() and b"\r\n\r\n" in data:
            self.standing.set_result(None)
        whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
        self.seen += [(int(version), now) for version in _VERSION.findall(whole + newline)]


async def run(
    url: str, token: str, *, watchers: int, events: int, per_second: float
) -> tuple[int, float]:
    """Return how many of `events` for each watcher didn't come, and the p99 of commit to arrival.

    Raises: TimeoutError.
    """
    place, loop = urlsplit(url), asyncio.get_running_loop()
    wanted = load.request("GET", "/v1/watch?kinds=load_balancer", token)
    made = [
        (
            await loop.create_connection(
                lambda: Watcher(wanted), place.hostname or "", place.port or 80
            )
        )[1]
        for _ in range(watchers)
    ]
    async with asyncio.timeout(_SETTLE_S):
        await asyncio.gather(*(one.standing for one in made))
    committed = dict(await changes(url, events, per_second))
    deadline = loop.time() + _SETTLE_S
    while loop.time() < deadline and any(len(one.seen) < events for one in made):
        await asyncio.sleep(0.05)
    lost, delays = 0, []
    for one in made:
        one.transport.close()
        arrived = dict(one.seen)
        lost += len(committed.keys() - arrived.keys()) + (len(one.seen) - len(arrived))
        delays += [at - committed[version] for version, at in arrived.items()]
    return lost, load.percentile(delays, 0.99) * 1000


async def changes(url: str, events: int, per_second: float) -> list[tuple[int, float]]:
    """Let the server make `events`; return their resource versions and moments of commit."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    path = f"/bench/changes?count={events}&per_second={per_second}"
    writer.write(f"POST {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n".encode())
    answer = await reader.read(-1)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), answer[:500]
    found: list[tuple[int, float]] = load.decode(body)
    return found
