"""One resource of the cluster in memory: a paged list, then a watch that survives.

Faults and what happens: an expired resource version (as an event or as HTTP 410) lists again
and reports the difference; a closed, broken or silent connection resumes where it was; anything
else backs off. A last line that isn't whole is dropped; a line that can't be read lists again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import structlog

from ccm import clock as clocks
from ccm import errors, interning, streams
from ccm.kube import objects
from ccm.kube import transport as transports


class HasMeta(Protocol):
    """Any Kubernetes object."""

    @property
    def metadata(self) -> objects.ObjectMeta:
        """Return its metadata."""


T = TypeVar("T", bound=HasMeta)
Handler = Callable[[str, T | None, T | None], None]

_log = structlog.get_logger()


class _ListMeta(msgspec.Struct, rename={"resource_version": "resourceVersion"}):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _Frame(msgspec.Struct, gc=False):
    type: str
    object: msgspec.Raw


class _Bookmark(msgspec.Struct):
    metadata: objects.ObjectMeta


_frame_decoder = msgspec.json.Decoder(_Frame)
_bookmark_decoder = msgspec.json.Decoder(_Bookmark)


class Informer(Generic[T]):
    """The objects at `path` by key (namespace/name, or name), always readable, never awaited.

    Handlers get (key, old, new), old None = added, new None = deleted, and must not raise.
    idle_s: silence after which a watch is reopened; the server sends bookmarks about once
    a minute. watch_s: the range from which each watch draws its length.
    """

    def __init__(
        self,
        transport: transports.Transport,
        path: str,
        kind: type[T],
        clock: clocks.Clock,
        *,
        rng: random.Random | None = None,
        page_size: int = 500,
        idle_s: float = 90.0,
        watch_s: tuple[int, int] = (300, 600),
        on_error: Callable[[], None] = lambda: None,
        compact: Callable[[interning.Pool, T], T] = lambda _, item: item,
    ) -> None:
        """compact: gives objects the form in which they are kept."""
        self._transport = transport
        self._path = path
        self._clock = clock
        self._rng = rng or random.Random()
        self._page_size = page_size
        self._idle_s = idle_s
        self._watch_s = watch_s
        self._on_error = on_error
        self._compact = compact
        self._pool = interning.Pool()
        list_type = msgspec.defstruct(
            f"{kind.__name__}List",
            [("metadata", _ListMeta), ("items", tuple[kind, ...] | None, None)],  # type: ignore[valid-type]
        )
        self._list_decoder = msgspec.json.Decoder(list_type)
        self._decoder = msgspec.json.Decoder(kind)
        self._version: str | None = None
        self._heard_at = clock.monotonic()
        self.store: dict[str, T] = {}
        self.handlers: list[Handler[T]] = []
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """List and watch until cancelled."""
        pause = streams.Backoff(self._rng)
        while True:
            try:
                if self._version is None:
                    await self._list()
                if await self._watch(pause):
                    continue
                wait_s = pause.next_s()  # closed at once, without a word: don't spin
            except errors.KubeGone as error:
                self._version = None
                wait_s = self._failed(error, pause)
            except errors.CcmError as error:
                wait_s = self._failed(error, pause)
            except msgspec.MsgspecError as error:
                self._version = None
                wait_s = self._failed(error, pause)
            await self._clock.sleep(wait_s)

    def observe(self, item: T) -> None:
        """Take the answer to a write of ours into the store, unless the store is newer already.

        No handler is called, now or when the watch brings the same version: what we wrote
        ourselves is no news.
        """
        key = key_of(item)
        stored = self.store.get(key)
        if stored and stored.metadata.uid == item.metadata.uid and _is_newer(item, stored):
            self.store[key] = self._compact(self._pool, item)

    def lag_s(self) -> float:
        """Return how long ago the API server last said anything of this resource."""
        return self._clock.monotonic() - self._heard_at

    async def _list(self) -> None:
        fresh: dict[str, T] = {}
        version = continue_ = ""
        page_size = self._page_size
        while True:
            params = {"limit": str(page_size)} if page_size else {}
            if continue_:
                params["continue"] = continue_
            try:
                page = await self._page(params)
            except errors.KubeGone:
                if not continue_:
                    raise
                # The continue token expired: once without pages, as client-go does.
                fresh, continue_, page_size, version = {}, "", 0, ""
                continue
            for item in page.items or ():
                fresh[key_of(item)] = self._compact(self._pool, item)
            version = version or page.metadata.resource_version
            continue_ = page.metadata.continue_
            if not continue_:
                break
        self._heard_at = self._clock.monotonic()
        self._replace(fresh)
        self._version = version
        self.synced.set()

    async def _page(self, params: dict[str, str]) -> Any:
        body = await self._transport.request("GET", self._path, params=params, timeout_s=60.0)
        return self._list_decoder.decode(body)

    def _replace(self, fresh: dict[str, T]) -> None:
        old, self.store = self.store, fresh
        for key, item in fresh.items():
            before = old.pop(key, None)
            if before is None or not _is_same(before, item):
                self._emit(key, before, item)
        for key, before in old.items():
            self._emit(key, before, None)

    async def _watch(self, pause: streams.Backoff) -> bool:
        """Follow changes until the connection ends. Return whether it was of any use.

        Resets `pause` as soon as it is, however it ends.
        """
        began = self._clock.monotonic()
        was_useful = False
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version or "",
            "timeoutSeconds": str(self._rng.randint(*self._watch_s)),
        }
        splitter = streams.LineSplitter()
        async with self._transport.stream(self._path, params, idle_s=self._idle_s) as chunks:
            async for chunk in chunks:
                self._heard_at = self._clock.monotonic()
                for line in splitter.feed(chunk):
                    self._take(line)
                    was_useful = True
                    pause.reset()
                await asyncio.sleep(0)  # a backlog must not starve the lease
        if self._clock.monotonic() - began >= 1.0:
            was_useful = True
            pause.reset()
        return was_useful

    def _take(self, line: bytes) -> None:
        frame = _frame_decoder.decode(line)
        match frame.type:
            case "BOOKMARK":
                self._version = _bookmark_decoder.decode(frame.object).metadata.resource_version
                return
            case "ERROR":
                raise transports.api_error(500, bytes(frame.object))
        item = self._decoder.decode(frame.object)
        key = key_of(item)
        before = self.store.get(key)
        if frame.type == "DELETED":
            self.store.pop(key, None)
            self._emit(key, before or item, None)
        elif before is None or before.metadata.uid != item.metadata.uid or _is_newer(item, before):
            item = self.store[key] = self._compact(self._pool, item)
            self._emit(key, before, item)
        self._version = item.metadata.resource_version

    def _emit(self, key: str, old: T | None, new: T | None) -> None:
        for handler in self.handlers:
            handler(key, old, new)

    def _failed(self, error: Exception, pause: streams.Backoff) -> float:
        self._on_error()
        wait_s = pause.next_s(getattr(error, "retry_after_s", None))
        _log.warning(
            "watch_interrupted", path=self._path, error=str(error), retry_s=round(wait_s, 1)
        )
        return wait_s


def key_of(item: HasMeta) -> str:
    """Return namespace/name, or the name of an object without a namespace."""
    meta = item.metadata
    return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name


def _is_same(one: HasMeta, other: HasMeta) -> bool:
    return (
        one.metadata.uid == other.metadata.uid
        and one.metadata.resource_version == other.metadata.resource_version
    )


def _is_newer(item: HasMeta, stored: HasMeta) -> bool:
    """Compare versions as integers (KEP-5504); opaque ones are newer if they differ."""
    new, old = item.metadata.resource_version, stored.metadata.resource_version
    if new.isdigit() and old.isdigit():
        return int(new) > int(old)
    return new != old
