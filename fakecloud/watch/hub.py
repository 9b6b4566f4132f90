"""The watch hub: one reader of the event history feeds every watcher from memory.

A watcher starts from a resource version and gets every later event of its project, once and in
order. Each has a bounded queue; one that reads too slowly is told 410 and lists again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from threading import Lock
from typing import Any, Final, TypeVar

import msgspec
import structlog

from fakecloud.domain import documents
from fakecloud.errors import TooManyWatches, Unavailable, WatchExpired
from fakecloud.store import (
    certificates,
    events,
    instances,
    load_balancers,
    networks,
    operations,
    reservations,
    routes,
)
from fakecloud.store.database import Connection, Database
from fakecloud.store.events import Event
from fakecloud.watch.seen import Seen

BATCH: Final = 200
QUEUE: Final = 10_000
QUEUE_BYTES: Final = 16 << 20  # of one watcher; frames are shared, but one reader may be alone
HISTORY_BYTES: Final = 32 << 20
IDLE_POLL_S: Final = 1.0
CATCH_UP_S: Final = 0.1
OUTDATED_S: Final = 2 * IDLE_POLL_S
"""When the history couldn't be read for so long, what was seen says nothing about now."""

T = TypeVar("T")

log = structlog.get_logger()


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a watch: a change, a BOOKMARK, or the ERROR that ends it. `text` is JSON.

    resumable: whether a watch from its resource version misses nothing; not inside a snapshot.
    """

    type: str
    resource_version: int
    project: str = ""
    kind: str = ""
    object_id: str = ""
    text: str
    resumable: bool = True


def frame_of(event: Event, *, resumable: bool = True) -> Frame:
    """Return the frame of an event; built once, shared by all watchers."""
    return Frame(
        type=event.type,
        resource_version=event.resource_version,
        project=event.project,
        kind=event.kind,
        object_id=event.object_id,
        text=f'{{"type":"{event.type}","resource_version":"{event.resource_version}",'
        f'"kind":"{event.kind}","object":{event.object}}}',
        resumable=resumable,
    )


def bookmark(resource_version: int, *, initial: bool = False) -> Frame:
    """Return a frame that says "you have seen everything up to here"."""
    mark = ',"initial":true' if initial else ""
    return Frame(
        type="BOOKMARK",
        resource_version=resource_version,
        text=f'{{"type":"BOOKMARK","resource_version":"{resource_version}"{mark}}}',
    )


def expired(resource_version: int) -> Frame:
    """Return the frame that ends a watch which can't be continued without a gap."""
    return Frame(
        type="ERROR",
        resource_version=resource_version,
        text=f'{{"type":"ERROR","resource_version":"{resource_version}","code":410,'
        '"object":{"type":"/problems/watch_expired","status":410,"code":"watch_expired",'
        '"detail":"this watch fell behind the event history; list again"}}',
    )


class Watcher:
    """One subscription: a queue with a bound."""

    def __init__(self, project: str, kinds: frozenset[str], since: int) -> None:
        """Take events of `kinds` in `project` after `since`."""
        self.project = project
        self.kinds = kinds
        self.seen = since
        self.queue: deque[Frame] = deque()
        self.queued_bytes = 0
        self.overrun = False
        self.closed = False
        self.ready = asyncio.Event()

    def start_after(self, version: int) -> None:
        """Drop what is at or before `version`: the reader has it from a list or the history."""
        self.seen = max(self.seen, version)
        self.queue = deque(frame for frame in self.queue if frame.resource_version > version)
        self.queued_bytes = sum(len(frame.text) for frame in self.queue)

    def wants(self, frame: Frame) -> bool:
        """Say whether a frame is about this watcher's project and kinds."""
        return frame.project == self.project and frame.kind in self.kinds

    def offer(self, frame: Frame) -> None:
        """Take a frame; a watcher whose queue is full is overrun for good."""
        if frame.resource_version <= self.seen or self.overrun:
            return
        self.seen = frame.resource_version
        if not self.wants(frame):
            return
        self.queued_bytes += len(frame.text)
        if len(self.queue) >= QUEUE or self.queued_bytes > QUEUE_BYTES:
            self.overrun = True
            self.queue.clear()
        else:
            self.queue.append(frame)
        self.ready.set()

    async def frames(self, heartbeat_s: float) -> AsyncIterator[list[Frame]]:
        """Yield what came, at least a bookmark every `heartbeat_s`; ends after an ERROR.

        It ends without one when the server stops: the reader resumes elsewhere or later.
        """
        while True:
            if not self.ready.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(heartbeat_s):
                        await self.ready.wait()
            silent = not self.ready.is_set()
            self.ready.clear()
            if self.overrun:
                yield [expired(self.seen)]
                return
            batch = list(self.queue)
            self.queue.clear()
            self.queued_bytes = 0
            if batch:
                yield batch
            if self.closed:
                return
            if silent and not batch:
                yield [bookmark(self.seen)]


class Hub:
    """Reads the event history once for all watchers. Lives in one event loop."""

    def __init__(self, database: Database, *, max_watches: int) -> None:
        """Begin with what `database` holds now; read it in threads, so that no loop waits for it.

        Raises: Unavailable.
        """
        self._database = database
        self._max_watches = max_watches
        self._watchers: set[Watcher] = set()
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)  # by object id
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._commits = 0
        self._counting = Lock()
        self._caught_up_to = 0
        self._read_at = float("-inf")
        self._stepped = asyncio.Event()
        self.seen = Seen()
        with database.read() as connection:
            self.version = self.seen.load(connection)

    def notify(self) -> None:
        """Say that something was committed; from any thread."""
        with self._counting:
            self._commits += 1
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake.set)

    def close(self) -> None:
        """End every watch, because the server stops."""
        for watcher in self._watchers:
            watcher.closed = True
            watcher.ready.set()

    async def run(self) -> None:
        """Feed the watchers until cancelled; a database that is away is asked again."""
        self._loop = asyncio.get_running_loop()
        while True:
            try:
                await self.step()
                await asyncio.wait_for(self._wake.wait(), IDLE_POLL_S)
            except TimeoutError:
                continue
            except Unavailable as error:
                log.warning("watch_paused", reason=error.detail)
                await asyncio.sleep(IDLE_POLL_S)

    async def caught_up(self) -> bool:
        """Say whether `seen` has all that this process had committed when it was called.

        Waits for that a moment. What other servers commit is seen when they have told of it, at
        the latest after IDLE_POLL_S.
        """
        commits = self._commits
        if self._caught_up_to < commits:
            with suppress(TimeoutError):
                async with asyncio.timeout(CATCH_UP_S):
                    while self._caught_up_to < commits:
                        await self._stepped.wait()
            if self._caught_up_to < commits:
                return False
        return asyncio.get_running_loop().time() - self._read_at < OUTDATED_S

    async def step(self) -> None:
        """Hand every new event to every watcher."""
        self._wake.clear()
        while True:
            commits, now = self._commits, asyncio.get_running_loop().time()
            oldest, batch = await self._since(self.version)
            if self.version < oldest:  # the history was trimmed past us while we couldn't read
                await self._start_over()
                continue
            for event in batch:
                self._hand_out(event)
            if len(batch) < BATCH:
                self._caught_up_to, self._read_at = commits, now
                self._stepped.set()
                self._stepped = asyncio.Event()
                return

    def _hand_out(self, event: Event) -> None:
        self.seen.apply(event)
        shared = frame_of(event)
        for watcher in self._watchers:
            watcher.offer(shared)
        for changed in self._waiting.get(event.object_id, ()):
            changed.set()
        self.version = event.resource_version

    async def _start_over(self) -> None:
        """Go on from what is there now; whoever watches has missed something."""
        for watcher in self._watchers:
            watcher.overrun = True
            watcher.ready.set()
        for changed in chain.from_iterable(self._waiting.values()):
            changed.set()
        self.version = await self._read(self.seen.load)

    async def history(self, watcher: Watcher, since: int) -> list[Frame]:
        """Return what `watcher` wants to know from after `since` up to now.

        Raises: WatchExpired when the history starts later, ends earlier or holds too much.
        """
        newest = await self._read(events.current_version)
        if since > newest:
            raise WatchExpired(
                f"since={since} is newer than anything here, so it is from another history; "
                "list again"
            )
        frames: list[Frame] = []
        size = 0
        for _ in range(QUEUE // BATCH):
            oldest, batch = await self._since(since)
            if since < oldest:
                raise WatchExpired(
                    f"since={since} is older than the history, which starts at {oldest}; list again"
                )
            if batch:
                since = batch[-1].resource_version
            frames.extend(frame for frame in map(frame_of, batch) if watcher.wants(frame))
            if len(batch) < BATCH:
                watcher.start_after(since)
                return frames
            size += sum(len(event.object) for event in batch)
            if size > HISTORY_BYTES:
                break
        raise WatchExpired("that is too long ago to be told event by event; list again")

    async def snapshot(self, watcher: Watcher) -> list[Frame]:
        """Return everything living and every running operation as ADDED, then a bookmark."""

        def read(connection: Connection) -> tuple[int, list[Frame]]:
            version = events.current_version(connection)
            return version, list(_present(connection, watcher))

        version, frames = await self._read(read)
        watcher.start_after(version)
        return [*frames, bookmark(version, initial=True)]

    @contextmanager
    def subscribed(
        self, project: str, kinds: frozenset[str], since: int | None, most: int | None = None
    ) -> Iterator[Watcher]:
        """Give a Watcher that from now on misses nothing, if the project has less than `most`.

        Raises: TooManyWatches.
        """
        if most is not None and self.watches(project) >= most:
            raise TooManyWatches(f"project {project!r} holds its {most} watches; end one first")
        if len(self._watchers) >= self._max_watches:
            raise TooManyWatches(f"this server holds {self._max_watches} watches; try again later")
        watcher = Watcher(project, kinds, self.version if since is None else since)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def watches(self, project: str) -> int:
        """Return how many watches a project holds on this server."""
        return sum(watcher.project == project for watcher in tuple(self._watchers))

    @contextmanager
    def changes_of(self, object_id: str) -> Iterator[asyncio.Event]:
        """Give an event that is set at every change of one object, for who waits for a state."""
        changed = asyncio.Event()
        self._waiting[object_id].add(changed)
        try:
            yield changed
        finally:
            self._waiting[object_id].discard(changed)
            if not self._waiting[object_id]:
                del self._waiting[object_id]

    async def _since(self, version: int) -> tuple[int, list[Event]]:
        """Return where the history starts, and what came after `version`, of one snapshot."""

        def read(connection: Connection) -> tuple[int, list[Event]]:
            batch = events.since(connection, version, BATCH)
            if batch and batch[0].resource_version == version + 1:
                return version, batch  # nothing is missing, wherever it starts
            return events.oldest(connection), batch

        return await self._read(read)

    async def _read(self, query: Callable[[Connection], T]) -> T:
        def run() -> T:
            with self._database.read() as connection:
                return query(connection)

        return await asyncio.to_thread(run)


_PRESENT: Final[Mapping[str, tuple[Callable[[Connection, str], Iterable[Any]], Any]]] = {
    "load_balancer": (load_balancers.living, documents.load_balancer),
    "operation": (operations.running, documents.operation),
    "address": (reservations.living, documents.reserved_address),
    "certificate": (certificates.living, documents.certificate),
    "instance": (instances.living, documents.instance),
    "network": (networks.living, documents.network),
    "route": (routes.living, documents.route),
}


def _present(connection: Connection, watcher: Watcher) -> Iterator[Frame]:
    for kind, (living, document) in _PRESENT.items():
        if kind in watcher.kinds:
            for one in living(connection, watcher.project):
                yield _added(watcher, kind, one.resource_version, one.id, document(one))


def _added(watcher: Watcher, kind: str, version: int, id: str, document: object) -> Frame:
    return frame_of(
        Event(
            resource_version=version,
            project=watcher.project,
            type="ADDED",
            kind=kind,
            object_id=id,
            object=msgspec.json.encode(document).decode(),
        ),
        resumable=False,
    )
