"""A bare client of the API server, and a look at what controller and cloud make of its writes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import httpx2
import msgspec

from tests.cluster import embedded, kubeapi
from tests.flows.kube.world import World

Json = dict[str, Any]

SERVICES = "/api/v1/namespaces/default/services"
FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
CLIENTS = 32
TIMEOUT_S = 300.0


class Slow(Exception):
    """Something didn't happen in time; names what is missing."""


def service(name: str, **spec: object) -> Json:
    """Return a Service of type LoadBalancer with one port."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": "echo"},
            "ports": [{"port": 8080, "targetPort": 8080}],
            **spec,
        },
    }


@contextlib.asynccontextmanager
async def connected(cluster: embedded.EmbeddedCluster) -> AsyncIterator[kubeapi.KubeApi]:
    """Give the administrator's connections."""
    plane = cluster.control_plane
    async with kubeapi.KubeApi(plane.url, plane.credentials) as api:
        yield api


async def each(items: Iterable[Any], work: Callable[[Any], Awaitable[Any]]) -> None:
    """Do `work` for every item, for as many at a time as there are connections."""
    waiting = deque(items)

    async def client() -> None:
        while waiting:
            await work(waiting.popleft())

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client())


async def limit(cluster: embedded.EmbeddedCluster, count: int) -> tuple[float, float]:
    """Return the seconds that the API server needs for what `count` Services can't do without.

    That is create, finalizer, status; then delete, finalizer removal; with nobody else at work.
    """
    names = [f"bare-{number}" for number in range(count)]
    async with connected(cluster) as api:

        async def patch(name: str, body: Json) -> None:
            where = f"{SERVICES}/{name}/status"
            await api.request("PATCH", where, body, kubeapi.MERGE_PATCH)

        async def create(name: str) -> None:
            await api.request("POST", SERVICES, service(name))
            await patch(name, {"metadata": {"finalizers": [FINALIZER]}})
            await patch(name, {"status": {"loadBalancer": {"ingress": [{"ip": "127.77.0.1"}]}}})

        async def delete(name: str) -> None:
            await api.request("DELETE", f"{SERVICES}/{name}")
            await patch(name, {"metadata": {"finalizers": None}})

        began = time.monotonic()
        await each(names, create)
        between = time.monotonic()
        await each(names, delete)
        return between - began, time.monotonic() - between


class Services:
    """Notes when each Service has an address, and when it is gone (kubeapi.Follower)."""

    def __init__(self) -> None:
        self.addressed: dict[str, float] = {}
        self.present: set[str] = set()
        self.there = asyncio.Event()
        self._changed = asyncio.Event()

    def replaced(self, objects: list[Json]) -> None:
        """Take all Services there are."""
        self.present.clear()
        for one in objects:
            self.changed("MODIFIED", one)
        self.there.set()

    def changed(self, event: str, item: Json) -> None:
        """Take a change."""
        name = item["metadata"]["name"]
        if event == "DELETED":
            self.present.discard(name)
        else:
            self.present.add(name)
            if item.get("status", {}).get("loadBalancer", {}).get("ingress"):
                self.addressed.setdefault(name, time.monotonic())
        self._changed.set()

    async def until_addressed(self, names: Iterable[str]) -> None:
        """Return when all have an address. Raises: Slow."""
        await self._until(lambda: set(names) - self.addressed.keys(), "without an address")

    async def until_gone(self, names: Iterable[str]) -> None:
        """Return when none is there. Raises: Slow."""
        await self._until(lambda: set(names) & self.present, "still there")

    async def _until(self, missing: Callable[[], set[str]], what: str) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while missing():
                    self._changed.clear()
                    await self._changed.wait()
                    await asyncio.sleep(0.005)  # many changes are one look
        except TimeoutError:
            raise Slow(f"{len(missing())} Services are {what} after {TIMEOUT_S:g} s") from None


@contextlib.asynccontextmanager
async def followed(cluster: embedded.EmbeddedCluster) -> AsyncIterator[Services]:
    """Give the Services as they are from now on."""
    seen = Services()
    async with connected(cluster) as api:
        following = asyncio.create_task(api.follow(SERVICES, seen))
        try:
            await seen.there.wait()
            yield seen
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


class _Target(msgspec.Struct):
    node: str | None = None


class _Group(msgspec.Struct):
    targets: list[_Target] = []


class _Spec(msgspec.Struct):
    target_groups: list[_Group] = []


class _Status(msgspec.Struct):
    state: str = ""
    generation: int = 0
    observed_generation: int = 0
    created_at: str = ""
    updated_at: str = ""


class Balancer(msgspec.Struct):
    """A load balancer as the cloud tells of it."""

    name: str
    labels: dict[str, str] = {}
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)

    @property
    def is_applied(self) -> bool:
        """Say whether it serves what was asked for last."""
        status = self.status
        return status.state == "ACTIVE" and status.observed_generation >= status.generation

    def nodes(self) -> set[str | None]:
        """Return the nodes among its targets."""
        return {target.node for group in self.spec.target_groups for target in group.targets}


class _Frame(msgspec.Struct):
    type: str
    object: msgspec.Raw = msgspec.Raw()


_frames = msgspec.json.Decoder(_Frame)
_balancers = msgspec.json.Decoder(Balancer)


class Balancers:
    """The cloud's load balancers, and when each was first seen and first served, by its stream."""

    def __init__(self) -> None:
        self.now: dict[str, Balancer] = {}
        self.first: dict[str, float] = {}
        self.served: dict[str, float] = {}
        self.there = asyncio.Event()
        self._changed = asyncio.Event()

    def take(self, line: bytes) -> None:
        """Take a frame."""
        frame = _frames.decode(line)
        if frame.type == "BOOKMARK":
            self.there.set()
            return
        if frame.type not in ("ADDED", "MODIFIED", "DELETED"):
            raise Slow(f"the cloud's stream broke: {line[:200]!r}")
        one = _balancers.decode(frame.object)
        if frame.type == "DELETED":
            self.now.pop(one.name, None)
        else:
            at = time.monotonic()
            self.now[one.name] = one
            self.first.setdefault(one.name, at)
            if one.is_applied:
                self.served.setdefault(one.name, at)
        self._changed.set()

    async def until(self, good: Callable[[], bool], what: str) -> None:
        """Return when it is so. Raises: Slow."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while not good():
                    self._changed.clear()
                    await self._changed.wait()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise Slow(f"{what}: not within {TIMEOUT_S:g} s") from None


@contextlib.asynccontextmanager
async def watched(world: World) -> AsyncIterator[Balancers]:
    """Give the cloud's load balancers as they are from now on."""
    seen = Balancers()

    async def follow() -> None:
        params = {"kinds": "load_balancer", "initial": "true"}
        headers = {
            "Authorization": f"Bearer {world.token_file.read_text().strip()}",
            "Accept": "application/x-ndjson",
        }
        async with (
            httpx2.AsyncClient(base_url=f"{world.url}/v1", headers=headers, timeout=60) as http,
            http.stream("GET", "/watch", params=params) as answer,
        ):
            async for line in answer.aiter_lines():
                if line:
                    seen.take(line.encode())

    following = asyncio.create_task(follow())
    waiting = asyncio.create_task(seen.there.wait())
    try:
        await asyncio.wait((following, waiting), return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
        yield seen
    finally:
        following.cancel()
        waiting.cancel()
        await asyncio.gather(following, waiting, return_exceptions=True)
