"""The cloud's load balancers in memory, kept by its watch stream.

What the stream says wins; answers to our own requests are taken in only where they are newer,
so that a slow answer can't bring back an older state.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Final, Protocol, TypeVar

import msgspec
import structlog

from ccm import clock as clocks
from ccm import errors, interning, streams
from ccm.cloud import documents

TOMBSTONES: Final = 4096
UNREACHABLE_PAUSE_S: Final = 0.15
"""Times a jitter of 1 to 1.5. Short and constant: deletions and addresses wait for the stream."""
STEADY_S: Final = 1.0
"""A stream that lasted this long was of use; the next fault is the first of a new row."""
REMEDY_401: Final = "put a valid token into --cloud-token-file"

T = TypeVar("T")

_log = structlog.get_logger()


class FrameLike(Protocol):
    """One line of the watch stream."""

    @property
    def type(self) -> str:
        """Return OPEN (first of a stream), ADDED, MODIFIED, DELETED or BOOKMARK."""

    @property
    def kind(self) -> str:
        """Return the kind of the object, "" in a bookmark."""

    @property
    def resource_version(self) -> str | int:
        """Return where to resume after this frame."""

    def load_balancer(self) -> documents.LoadBalancer:
        """Return the load balancer it carries. Raises: msgspec.MsgspecError."""


class Client(Protocol):
    """Requests to the cloud; all raise CloudError."""

    async def get(self, name: str) -> documents.LoadBalancer | None:
        """Return the load balancer, None if there is none."""

    async def put(
        self, name: str, document: documents.Document, fence: str = ""
    ) -> documents.LoadBalancer:
        """Ask for `document`; return the load balancer as it is now."""

    async def delete(self, name: str, fence: str = "") -> bool:
        """Ask for deletion; return False if there is nothing to delete."""

    async def put_inventory(
        self, cluster_uid: str, services: Collection[str], lease_s: int, fence: str = ""
    ) -> None:
        """Say which Services a cluster has."""

    def watch(self, since: str | None) -> AsyncIterator[FrameLike]:
        """Yield frames from `since` on, or a snapshot first."""


class Mirror:
    """The Cloud protocol of the reconciler: reads from memory, writes through.

    Handlers get (old, new) of each change that the stream tells of, and of answers by which it is
    for fewer keys; new None = deleted.
    on_return: called when the cloud is there again after a fault.
    """

    def __init__(
        self,
        client: Client,
        clock: clocks.Clock,
        rng: random.Random | None = None,
        *,
        keys_of: Callable[[documents.LoadBalancer], tuple[str, ...]],
        may_write: Callable[[], None] = lambda: None,
        fence: Callable[[], str] = lambda: "",
    ) -> None:
        """keys_of: what a load balancer was made for, the keys of made_for().

        may_write: called before every write; raises LeaseLost when another one leads.
        fence: what is sent with every write, so that the cloud refuses it once another one led.
        """
        self._client = client
        self._keys_of = keys_of
        self._may_write = may_write
        self._fence = fence
        self._clock = clock
        self._rng = rng or random.Random()
        self._store: dict[str, documents.LoadBalancer] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._pool = interning.Pool()
        self._dead: OrderedDict[str, None] = OrderedDict()
        self._since: str | None = None
        self.handlers: list[
            Callable[[documents.LoadBalancer | None, documents.LoadBalancer | None], None]
        ] = []
        self.on_return: list[Callable[[], None]] = []
        self.synced = asyncio.Event()
        self._opened_at: float | None = None
        self._stream_problem = "not connected yet"
        self._refusal = ""

    @property
    def problem(self) -> str:
        """Return why the cloud is of no use now, "" if it is."""
        return self._refusal or self._stream_problem

    def observed(self, name: str) -> documents.LoadBalancer | None:
        """Return the load balancer as last seen."""
        return self._store.get(name)

    def made_for(self, key: str) -> tuple[documents.LoadBalancer, ...]:
        """Return the load balancers made for `key`, of any cluster."""
        return tuple(self._store[name] for name in self._names.get(key, ()))

    async def look_up(self, name: str) -> documents.LoadBalancer | None:
        """Return the load balancer as the cloud has it now. Raises: CloudError."""
        found = await self._ask(self._client.get(name))
        if found is None:
            self._drop(name)
        else:
            self._remember(found)
        return found

    async def put(self, name: str, document: documents.Document) -> documents.LoadBalancer:
        """Ask the cloud for `document`; return what it made of it. Raises: CloudError."""
        self._may_write()
        answer = await self._ask(self._client.put(name, document, self._fence()))
        self._remember(answer)
        seen = self._store.get(name)
        is_further = seen and seen.status.id == answer.status.id
        return seen if seen and is_further else answer

    async def delete(self, name: str) -> bool:
        """Ask for deletion. Return False if nothing is left. Raises: CloudError."""
        self._may_write()
        is_left = await self._ask(self._client.delete(name, self._fence()))
        if not is_left:
            self._drop(name)
        return is_left

    async def put_inventory(
        self, cluster_uid: str, services: Collection[str], lease_s: int
    ) -> None:
        """Say which Services a cluster has. Raises: CloudError."""
        self._may_write()
        fence = self._fence()
        await self._ask(self._client.put_inventory(cluster_uid, services, lease_s, fence))

    async def run(self) -> None:
        """Follow the stream until cancelled; a fault means a pause and a new connection."""
        pause = streams.Backoff(self._rng, first_s=0.2, max_s=15.0)
        while True:
            self._opened_at = None
            try:
                await self._follow()
                error: Exception | None = None
            except errors.CloudWatchExpired as expired:
                self._since, error = None, expired
            except errors.CcmError as failed:
                error = failed
            except msgspec.MsgspecError as unreadable:
                self._since, error = None, unreadable
            if self._was_steady():
                pause.reset()
            if isinstance(error, errors.CloudUnreachable):
                wait_s = UNREACHABLE_PAUSE_S * self._rng.uniform(1.0, 1.5)
            else:
                wait_s = pause.next_s(getattr(error, "retry_after_s", None))
            self._tell(error, wait_s)
            await self._clock.sleep(wait_s)

    async def _ask(self, asking: Awaitable[T]) -> T:
        try:
            answer = await asking
        except errors.CloudFenced as error:
            raise errors.LeaseLost(f"the cloud says so: {error}") from error
        except errors.CloudUnauthenticated as error:
            self._refusal = str(error)
            _log.error("cloud_refused_token", error=str(error), remedy=REMEDY_401)
            raise
        self._refusal = ""
        return answer

    async def _follow(self) -> None:
        snapshot: set[str] | None = set() if self._since is None else None
        async for frame in self._client.watch(self._since):
            if frame.type == "OPEN":
                self._opened_at = self._clock.monotonic()
            elif frame.type == "BOOKMARK":
                if snapshot is not None:
                    self._prune(snapshot)
                    snapshot = None
                    self.synced.set()
            elif frame.kind in ("load_balancer", ""):
                name = self._take(frame)
                if snapshot is not None:
                    snapshot.add(name)
            if snapshot is None:
                # Half a snapshot is no place to resume from.
                self._since = str(frame.resource_version) or self._since
                self._connected()

    def _take(self, frame: FrameLike) -> str:
        load_balancer = frame.load_balancer()
        name = load_balancer.name
        old = self._store.get(name)
        if frame.type == "DELETED" or load_balancer.status.state == "DELETED":
            self._drop(name)
            self._bury(load_balancer.status.id)
            self._emit(old or load_balancer, None)
        else:
            self._keep(load_balancer)
            self._emit(old, load_balancer)
        return name

    def _prune(self, snapshot: set[str]) -> None:
        for name in [name for name in self._store if name not in snapshot]:
            self._emit(self._drop(name), None)

    def _remember(self, answer: documents.LoadBalancer) -> None:
        if answer.status.id in self._dead:
            return
        stored = self._store.get(answer.name)
        # An answer is how it was when it was sent; the stream may be ahead.
        if stored is None or stored.status.id != answer.status.id or _is_newer(answer, stored):
            self._keep(answer)
            if stored is not None and not set(self._keys_of(stored)) <= set(self._keys_of(answer)):
                # The stream will tell nothing new of it, least of all to who is no longer named.
                self._emit(stored, answer)

    def _keep(self, load_balancer: documents.LoadBalancer) -> None:
        self._drop(load_balancer.name)
        kept = documents.compact(self._pool, load_balancer)
        self._store[kept.name] = kept
        for key in self._keys_of(kept):
            self._names[key] = tuple(sorted({*self._names.get(key, ()), kept.name}))

    def _drop(self, name: str) -> documents.LoadBalancer | None:
        dropped = self._store.pop(name, None)
        if dropped is not None:
            for key in self._keys_of(dropped):
                left = tuple(one for one in self._names[key] if one != name)
                if left:
                    self._names[key] = left
                else:
                    del self._names[key]
        return dropped

    def _bury(self, id_: str) -> None:
        self._dead[id_] = None
        if len(self._dead) > TOMBSTONES:
            self._dead.popitem(last=False)

    def _emit(self, old: documents.LoadBalancer | None, new: documents.LoadBalancer | None) -> None:
        for handler in self.handlers:
            handler(old, new)

    def _connected(self) -> None:
        if not self._stream_problem:
            return
        self._stream_problem = self._refusal = ""
        _log.info("cloud_connected", load_balancers=len(self._store))
        for handler in self.on_return:
            handler()

    def _was_steady(self) -> bool:
        opened_at = self._opened_at
        return opened_at is not None and self._clock.monotonic() - opened_at >= STEADY_S

    def _tell(self, error: Exception | None, wait_s: float) -> None:
        text = str(error) if error else "the cloud closed the stream"
        if isinstance(error, errors.CloudUnauthenticated):
            _log.error(
                "cloud_refused_token",
                error=text,
                remedy=REMEDY_401,
                retry_s=round(wait_s, 1),
            )
        elif error is not None:
            say = _log.debug if text == self._stream_problem else _log.warning
            say("cloud_stream_interrupted", error=text, retry_s=round(wait_s, 1))
        if error is not None:
            self._stream_problem = text


def _is_newer(one: documents.LoadBalancer, other: documents.LoadBalancer) -> bool:
    """Compare resource versions if they are numbers, otherwise generations."""
    new, old = one.status.resource_version, other.status.resource_version
    if new.isdigit() and old.isdigit():
        return int(new) > int(old)
    return one.status.generation > other.status.generation
