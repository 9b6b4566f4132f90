"""Changes of requests in one thread, those that wait together with one commit.

A thread for each request costs more than the change itself: while they take the interpreter from
each other, nobody works. For the same reason the event loop and the thread that writes don't take
turns with halves of what there is to do: the loop reads every request that has come, then one
thread writes all they want. PUTs of load balancers among that are made at once, so that each
statement is for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from threading import Event
from typing import Final

import msgspec
from starlette.responses import Response

from fakecloud.errors import Unavailable
from fakecloud.requests.load_balancers import LoadBalancers
from fakecloud.requests.wishes import Done, Put
from fakecloud.store import events
from fakecloud.store.database import Connection, Database

MOST: Final = 32
_QUIET: Final = 3
"""Turns of the event loop without another change: from the network to here a request takes two."""
_LULL_S: Final = 0.02
"""Who was answered may ask again at once; after so long without a question the burst is over."""


class Change(msgspec.Struct, frozen=True):
    """What a request wants done; `run` does it in a `Database.write`.

    put: the load balancer that it is about, if that is all it wants. `done` then answers when it
    was put with others; it takes the hash of the events.
    """

    run: Callable[[], Response]
    put: Put | None = None
    done: Callable[[Connection, Done, str | None], Response] | None = None


class Writer:
    """Makes changes for the tasks of one event loop. At most `MOST` share a commit."""

    def __init__(self, database: Database, load_balancers: LoadBalancers) -> None:
        """Write to `database`; no thread is busy while nothing is to be done."""
        self._database = database
        self._load_balancers = load_balancers
        self._waiting: deque[_Waiting] = deque()  # bounded by the connections of the server
        self._writing = False
        self._idle = Event()
        self._idle.set()

    async def make(self, change: Change) -> Response:
        """Return the answer to `change` once it is committed.

        Raises: what the change raises, Unavailable.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Response] = loop.create_future()
        self._waiting.append((change, answer))
        self._idle.clear()
        if not self._writing:
            self._writing = True
            loop.call_soon(self._gather, loop)
        return await answer

    def _gather(self, loop: asyncio.AbstractEventLoop, before: int = 0, quiet: int = 0) -> None:
        """Begin to write when all requests that have come are understood."""
        count = len(self._waiting)
        quiet = 0 if count > before else quiet + 1
        if quiet < _QUIET and count < MOST:
            loop.call_soon(self._gather, loop, count, quiet)
            return
        batch = [self._waiting.popleft() for _ in range(min(count, MOST))]
        loop.run_in_executor(None, self._work, loop, batch)

    def _work(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting]) -> None:
        results = self._write([change for change, _ in batch])
        loop.call_soon_threadsafe(self._tell, loop, batch, results)

    def _tell(
        self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting], results: list[_Result]
    ) -> None:
        for (_, answer), result in zip(batch, results, strict=True):
            if answer.done():
                continue  # the request was given up; what it asked for is done all the same
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)
        if self._waiting:
            self._gather(loop)
        else:
            self._writing = False
            loop.call_later(_LULL_S, self._rest)

    def _rest(self) -> None:
        if not self._writing:
            self._idle.set()

    def idle(self, timeout_s: float) -> bool:
        """Return True when nobody waits for an answer, or did just now; False after `timeout_s`.

        Who works for nobody in particular waits here, so that a burst of requests is accepted
        first: all threads share one interpreter.
        """
        return self._idle.wait(timeout_s)

    def _write(self, changes: list[Change]) -> list[_Result]:
        """Return each one's answer, or the exception that it failed with."""
        parts = _parts(changes)
        results: dict[int, _Result] = {}
        for part, result in zip(parts, self._each(changes, parts), strict=True):
            if not isinstance(result, Exception):
                found = zip(part, result, strict=True)
                results |= {n: answer for n, answer in found if answer is not None}
            elif len(part) == 1 or isinstance(result, Unavailable):
                results |= dict.fromkeys(part, result)
        # What couldn't be done together is done one by one: there it succeeds, or says why not.
        left = [[n] for n in range(len(changes)) if n not in results]
        for (n,), result in zip(left, self._each(changes, left), strict=True):
            answer = result if isinstance(result, Exception) else result[0]
            assert answer is not None, changes[n]
            results[n] = answer
        return [results[n] for n in range(len(changes))]

    def _each(
        self, changes: list[Change], parts: list[list[int]]
    ) -> Sequence[list[Response | None] | Exception]:
        if not parts:
            return []
        try:
            return self._database.write_each(
                [partial(self._do, [changes[n] for n in part]) for part in parts]
            )
        except Exception as error:  # noqa: BLE001 - somebody waits for each answer
            return [error] * len(parts)

    def _do(self, changes: list[Change]) -> list[Response | None]:
        """Make one change, or put load balancers together, but those that are being deleted."""
        if len(changes) == 1:
            return [changes[0].run()]
        with self._database.write() as connection:
            before = events.count(connection)
            wanted = [one.put for one in changes if one.put is not None]
            answers: list[Response | None] = []
            known = 0
            for change, done in zip(changes, self._load_balancers.put_all(wanted), strict=True):
                if done is None or change.done is None:
                    answers.append(None)
                    continue
                answers.append(
                    change.done(connection, done, events.digest(connection, *done.events))
                )
                known += done.events[1] - done.events[0]
            assert before + known == events.count(connection), "events that belong to nobody"
        return answers


_Waiting = tuple[Change, asyncio.Future[Response]]
_Result = Response | Exception


def _parts(changes: list[Change]) -> list[list[int]]:
    """Return which changes are made together: the first PUT of each name, others alone."""
    keys = [None if one.put is None else (one.put.project, one.put.name) for one in changes]
    first = [n for n, key in enumerate(keys) if key is not None and keys.index(key) == n]
    alone = [[n] for n in range(len(changes)) if n not in first]
    return [first, *alone] if first else alone
