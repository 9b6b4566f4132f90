"""Trying whether a published address answers: one TCP connection from where this process runs.

A good result is tried again at a later look, a bad one by itself, less and less often.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from ccm import clock as clocks

SOON_S: Final = 0.05
"""How long a look waits for a result; a near address answers much sooner."""
TIMEOUT_S: Final = 3.0
FIRST_RETRY_S: Final = 2.0
LONGEST_RETRY_S: Final = 60.0
GOOD_FOR_S: Final = 600.0
"""A good result that is older is tried again at the next look; meanwhile it holds."""
LIMIT: Final = 64
"""Attempts at a time."""


@dataclass(slots=True)
class _Attempt:
    ip: str
    port: int
    wake: Callable[[], None]
    at: float
    problem: str | None = None
    known: asyncio.Event = field(default_factory=asyncio.Event)


class Reach:
    """Results by address and port. `here` names this place in messages."""

    def __init__(self, clock: clocks.Clock) -> None:
        self._clock = clock
        self._attempts: dict[tuple[str, int], _Attempt] = {}
        self._new: asyncio.Queue[_Attempt] = asyncio.Queue()
        self._slots = asyncio.Semaphore(LIMIT)
        self.here = platform.node()

    async def soon(self, ip: str, port: int, wake: Callable[[], None]) -> str | None:
        """Return why nothing answers, "" if something does, None if that isn't known yet.

        wake: called when it is, and when it changes.
        """
        attempt = self._attempts.get((ip, port))
        if attempt is None:
            attempt = self._attempts[ip, port] = _Attempt(ip, port, wake, self._clock.monotonic())
            self._new.put_nowait(attempt)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(attempt.known.wait(), SOON_S)
        elif attempt.problem == "" and self._clock.monotonic() - attempt.at > GOOD_FOR_S:
            attempt.at = self._clock.monotonic()
            self._new.put_nowait(attempt)
        attempt.wake = wake
        return attempt.problem

    def forget(self, ips: Iterable[str]) -> None:
        """Drop what is known of addresses that are published no more."""
        gone = set(ips)
        for key in [one for one in self._attempts if one[0] in gone]:
            del self._attempts[key]

    async def run(self) -> None:
        """Try what is asked for until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._try(await self._new.get()))

    async def _try(self, attempt: _Attempt) -> None:
        pause_s = FIRST_RETRY_S
        while self._attempts.get((attempt.ip, attempt.port)) is attempt:
            async with self._slots:
                problem = await connection_problem(attempt.ip, attempt.port)
            is_news = problem != attempt.problem
            attempt.problem = problem
            attempt.known.set()
            if is_news:
                attempt.wake()
            if not problem:
                return
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_RETRY_S)


async def connection_problem(ip: str, port: int) -> str:
    """Return why there is no TCP connection, "" if there is one."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(ip, port)
    except TimeoutError:
        return f"no answer within {TIMEOUT_S:.0f} s"
    except OSError as error:
        return error.strerror or type(error).__name__
    writer.close()
    return ""


def outside_of(ip: str, node_ips: Iterable[str]) -> str:
    """Return the network of the nodes that `ip` is not in, "" if it is in, or nobody knows.

    Kubernetes doesn't tell the nodes' prefix; /16 and /64 are what is usual.
    """
    address = ipaddress.ip_address(ip)
    same = [one for one in map(ipaddress.ip_address, node_ips) if one.version == address.version]
    length = 16 if address.version == 4 else 64
    found = {ipaddress.ip_network(f"{one}/{length}", strict=False) for one in same}
    if not found or any(address in network for network in found):
        return ""
    return ", ".join(sorted(map(str, found)))
