"""The door to connections that are spoiled on purpose, between HAProxy and its targets.

HAProxy reaches the targets of such a load balancer through a SOCKS4 proxy on the loopback
interface, which is this: it connects them, and does with what passes as the fault wants. It
serves a load balancer's own targets and nothing else. Format: the SOCKS protocol, version 4
(https://www.openssh.com/txt/socks4.protocol); it knows IPv4 only.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Collection
from ipaddress import IPv4Address
from threading import Lock, Thread
from typing import Final

from fakecloud.domain import faults
from fakecloud.domain.disturbances import Toxic

MOST: Final = 4000
"""So many connections of one load balancer at a time; more than HAProxy makes by default."""
PIECE: Final = 16_384
HELLO_S: Final = 5.0
CONNECT_S: Final = 10.0
ANSWER_S: Final = 5.0
_GRANTED: Final = bytes([0, 90]) + bytes(6)
_REFUSED: Final = bytes([0, 91]) + bytes(6)

Target = tuple[str, int]


class Spoiler:
    """Proxies of load balancers, in one thread that is started when the first is needed.

    Any thread may call. What is spoiled ends with the server: HAProxy then connects by itself.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._doors: dict[str, _Door] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def spoil(
        self, lb_id: str, toxics: Collection[Toxic], targets: Collection[Target]
    ) -> int | None:
        """Spoil new connections to `targets` from now on; return the port to reach them through.

        None: nothing spoils them. Who still comes through an earlier port then passes unharmed.
        Raises: OSError.
        """
        with self._lock:
            door = self._doors.get(lb_id)
            if door is None:
                if not toxics:
                    return None
                door = self._doors[lb_id] = _Door(lb_id)
            door.targets, door.toxics = frozenset(targets), tuple(toxics)
            if not door.port:
                work = asyncio.run_coroutine_threadsafe(door.open(), self._started())
                work.result(ANSWER_S)
            return door.port if toxics else None

    def forget(self, lb_id: str) -> None:
        """Close what a load balancer had; an unknown id is no error."""
        with self._lock:
            door = self._doors.pop(lb_id, None)
            if door is not None and self._loop is not None:
                self._loop.call_soon_threadsafe(door.close)

    def close(self) -> None:
        """Close everything and end the thread."""
        with self._lock:
            loop, doors = self._loop, list(self._doors.values())
            self._loop, self._doors = None, {}
        if loop is not None:
            asyncio.run_coroutine_threadsafe(_end(doors), loop).result(ANSWER_S)
            loop.call_soon_threadsafe(loop.stop)

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            Thread(target=_turn, args=(self._loop,), name="spoiler", daemon=True).start()
        return self._loop


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


async def _end(doors: list[_Door]) -> None:
    for door in doors:
        door.close()
    await asyncio.gather(*(one for door in doors for one in door.living), return_exceptions=True)


class _Door:
    """The proxy of one load balancer; but for `targets` and `toxics` it belongs to the loop."""

    def __init__(self, lb_id: str) -> None:
        self._lb_id = lb_id
        self._count = 0
        self._server: asyncio.Server | None = None
        self.living: set[asyncio.Task[None]] = set()
        self.targets: frozenset[Target] = frozenset()
        self.toxics: tuple[Toxic, ...] = ()
        self.port = 0

    async def open(self) -> None:
        """Listen. Raises: OSError."""
        self._server = await asyncio.start_server(self._come, "127.0.0.1", limit=PIECE)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Accept nobody any more and cut who is there."""
        if self._server is not None:
            self._server.close()
        for task in self.living:
            task.cancel()

    def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self.living) >= MOST:
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self.living.add(task)
        task.add_done_callback(self.living.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            async with asyncio.timeout(HELLO_S):
                asked = await _asked(reader)
            if asked not in self.targets:
                writer.write(_REFUSED)
                return
            async with asyncio.timeout(CONNECT_S):
                there, back = await asyncio.open_connection(*asked, limit=PIECE)
            ends.append(back)
            writer.write(_GRANTED)
            await self._pass_on((reader, back), (there, writer))
        except* (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # HAProxy notices that the connection ends
        finally:
            for one in ends:
                one.close()

    async def _pass_on(
        self,
        up: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        down: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._count += 1
        spoils = [toxic for number, toxic in enumerate(self.toxics) if self._hits(toxic, number)]
        async with asyncio.TaskGroup() as both:
            for (reader, writer), towards in ((up, "upstream"), (down, "downstream")):
                ours = [toxic for toxic in spoils if toxic.direction == towards]
                both.create_task(_pump(reader, writer, ours, f"{self._lb_id}{self._count}"))

    def _hits(self, toxic: Toxic, number: int) -> bool:
        """Draw whether a connection is spoiled: the same for the same one of the same fault."""
        return faults.draw(number, self._lb_id, self._count, toxic.kind) < toxic.share


class _Over(OSError):
    """As much has passed as may."""


async def _asked(reader: asyncio.StreamReader) -> Target:
    """Read where HAProxy wants to be connected to."""
    version, command, port, ip = struct.unpack("!BBH4s", await reader.readexactly(8))
    await reader.readuntil(b"\0")  # who it says it is
    if (version, command) != (4, 1):
        raise ConnectionAbortedError("not a connection by SOCKS4")
    return str(IPv4Address(ip)), port


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, toxics: list[Toxic], name: str
) -> None:
    """Pass on what comes until its end, and then the end."""
    passed = 0
    by_kind: dict[str, Toxic] = {toxic.kind: toxic for toxic in toxics}
    size = _size(by_kind)
    while data := await reader.read(size):
        passed += len(data)
        limit = by_kind.get("limit_data")
        over = passed - limit.bytes if limit else 0
        if (wait_s := _wait_s(by_kind, len(data), f"{name}.{passed}")) > 0:
            await asyncio.sleep(wait_s)
        writer.write(data[: len(data) - over] if over > 0 else data)
        await writer.drain()
        if limit and over >= 0:
            raise _Over
    if closing := by_kind.get("slow_close"):
        await asyncio.sleep(closing.seconds)
    with contextlib.suppress(OSError):  # the other side may have reset it
        writer.write_eof()


def _size(by_kind: dict[str, Toxic]) -> int:
    """Return how much is passed on at once."""
    sizes = [PIECE]
    if slicer := by_kind.get("slicer"):
        sizes.append(slicer.bytes)
    if bandwidth := by_kind.get("bandwidth"):
        sizes.append(max(1, bandwidth.bytes // 20))
    return min(sizes)


def _wait_s(by_kind: dict[str, Toxic], size: int, name: str) -> float:
    """Return how long a piece of that size waits."""
    wait_s = 0.0
    if slicer := by_kind.get("slicer"):
        wait_s += slicer.seconds
    if bandwidth := by_kind.get("bandwidth"):
        wait_s += size / bandwidth.bytes
    if jitter := by_kind.get("jitter"):
        wait_s += jitter.seconds * faults.draw(0, name, 0, "jitter")
    return wait_s
