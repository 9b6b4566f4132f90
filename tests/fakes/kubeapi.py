"""An API server in memory that misbehaves when told: enough for informers, leases and events.

Behaviour is real where it matters to a client: resource versions, 409 on a stale one, merge
patches, finalizers, bookmarks, a history that ends, paged lists with continue tokens. A watch or
list of a collection sees all namespaces' objects. `watch_faults` is used up one per watch,
`troubles` meets every watch of a path until it is taken away.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web
from kubernetes.aio.client import configuration

from ccm.kube import transport as transports

Object = dict[str, Any]


class FakeApiServer:
    """Objects by path (collection path + "/" + name), a history of changes, and faults."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.history: list[tuple[int, str, str, Object]] = []
        self.requests: list[tuple[str, str]] = []
        self.hidden: set[str] = set()
        self.agents: set[str] = set()
        self.watches: list[dict[str, str]] = []
        self.lists: list[str] = []
        self.watch_faults: list[str] = []
        self.troubles: dict[str, str] = {}
        self.list_faults: list[str] = []
        self.retry_after_s = 7
        self.lease_faults: list[str] = []
        self.answers: list[tuple[str, int]] = []
        self.refuse_bodies = False
        self._version = itertools.count(10)
        self._changed = asyncio.Event()
        self._streams: set[asyncio.Task[Any]] = set()
        self._oldest = 0
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeApiServer]:
        """Answer on a loopback port inside the `async with`."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await self._listen(0)
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            self.cut()
            await runner.cleanup()

    @asynccontextmanager
    async def down(self) -> AsyncIterator[None]:
        """Refuse connections inside the `async with`."""
        assert self._site
        await self._site.stop()
        self.cut()
        try:
            yield
        finally:
            await self._listen(int(self.url.rpartition(":")[2]))

    async def _listen(self, port: int) -> None:
        assert self._runner
        self._site = web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True)
        await self._site.start()

    def transport(self) -> transports.Transport:
        """Return a client of this server."""
        config = configuration.Configuration()
        config.host = self.url
        return transports.Transport(config)

    # -- state -----------------------------------------------------------------------------

    def put(self, collection: str, name: str, body: Object | None = None) -> Object:
        """Create or replace an object."""
        path = f"{collection}/{name}"
        type_ = "MODIFIED" if path in self.objects else "ADDED"
        version = next(self._version)
        one = {**(body or {})}
        meta = {"name": name, "uid": f"uid-{name}", **one.get("metadata", {})}
        one["metadata"] = {**meta, "resourceVersion": str(version)}
        self.objects[path] = one
        self._note(version, type_, collection, one)
        return one

    def delete(self, collection: str, name: str) -> None:
        """Delete an object; one with finalizers is only marked."""
        one = self.objects[f"{collection}/{name}"]
        if one["metadata"].get("finalizers"):
            marked = {**one["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
            self.put(collection, name, {**one, "metadata": marked})
            return
        self._remove(collection, name)

    def _remove(self, collection: str, name: str) -> None:
        one = self.objects.pop(f"{collection}/{name}")
        version = next(self._version)
        meta = {**one["metadata"], "resourceVersion": str(version)}
        self._note(version, "DELETED", collection, {**one, "metadata": meta})

    def forget_silently(self, collection: str, name: str) -> None:
        """Delete without an event, as if the watch had missed it."""
        del self.objects[f"{collection}/{name}"]
        next(self._version)

    def compact(self) -> None:
        """Forget the history: who watches from before now gets 410."""
        self._oldest = self._now()
        self.history.clear()

    def cut(self) -> None:
        """Cut every watch."""
        for task in list(self._streams):
            task.cancel()

    def _note(self, version: int, type_: str, collection: str, one: Object) -> None:
        self.history.append((version, type_, collection, one))
        self._changed.set()

    def _now(self) -> int:
        return max((entry[0] for entry in self.history), default=max(1, self._oldest))

    # -- requests --------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.requests.append((request.method, path))
        self.agents.add(request.headers.get("User-Agent", ""))
        if self.answers:
            kind, status = self.answers[0]
            if kind == request.method:
                self.answers.pop(0)
                return failure(status, "told to")
        if "/leases" in path and self.lease_faults:
            await self._misbehave(request, self.lease_faults[0])
            if self.lease_faults[0].isdigit():
                return failure(int(self.lease_faults[0]), "told to")
            if self.lease_faults[0] == "conflict" and request.method == "PATCH":
                return failure(409, "the object has been modified")
        if request.query.get("watch") == "true":
            return await self._watch(request)
        if request.method == "GET":
            return self._get(request)
        writes = {"POST": self._post, "DELETE": self._delete, "PATCH": self._patch}
        return await writes[request.method](request)

    async def _misbehave(self, request: web.Request, fault: str) -> None:
        if fault == "hang":
            await asyncio.Event().wait()
        if fault == "reset" and request.transport:
            request.transport.abort()
            await asyncio.sleep(0)

    def _get(self, request: web.Request) -> web.Response:
        if request.path in self.objects:
            return web.json_response(self.objects[request.path])
        if request.path.rpartition("/")[0] in {"/api/v1/namespaces"} | {
            path for _, _, path, _ in self.history
        }:
            return failure(404, "not found")
        if "/leases/" in request.path:
            return failure(404, "not found")
        return self._list(request)

    def _list(self, request: web.Request) -> web.Response:
        self.lists.append(request.path)
        if request.path in self.hidden:
            return failure(503, "told to")
        if self.list_faults:
            fault = self.list_faults.pop(0)
            if fault == "garbage":
                return web.Response(text='{"metadata": {"resourceVersion": "1"}, "items": [{]}')
            headers = {"Retry-After": str(self.retry_after_s)} if fault == "429" else {}
            return failure(int(fault), "told to", headers)
        items = [one for path, one in self.objects.items() if _is_in(_parent(path), request.path)]
        limit = int(request.query.get("limit", "0")) or len(items) + 1
        start = int(request.query.get("continue", "0"))
        meta = {"resourceVersion": str(self._now())}
        if start + limit < len(items):
            meta["continue"] = str(start + limit)
        return web.json_response({"metadata": meta, "items": items[start : start + limit]})

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["metadata"]["name"]
        if f"{request.path}/{name}" in self.objects:
            return failure(409, "already exists")
        return web.json_response(self.put(request.path, name, body), status=201)

    async def _delete(self, request: web.Request) -> web.Response:
        one = self.objects.get(request.path)
        if one is None:
            return failure(404, "not found")
        for name, value in (await request.json())["preconditions"].items():
            if one["metadata"][name] != value:
                return failure(409, f"the {name} has changed")
        self.delete(_parent(request.path), one["metadata"]["name"])
        return web.json_response({"kind": "Status", "status": "Success"})

    async def _patch(self, request: web.Request) -> web.Response:
        is_strategic = request.content_type == "application/strategic-merge-patch+json"
        assert is_strategic or request.content_type == "application/merge-patch+json"
        path = request.path.removesuffix("/status")
        one = self.objects.get(path)
        if one is None:
            return failure(404, "not found")
        body = await request.json()
        version = body.get("metadata", {}).pop("resourceVersion", None)
        if version not in (None, one["metadata"]["resourceVersion"]):
            return failure(409, "the object has been modified")
        if is_strategic:
            body["status"]["conditions"] = _by_type(one, body)
        where, _, name = path.rpartition("/")
        changed = self.put(where, name, merge(one, body))
        meta = changed["metadata"]
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            self._remove(where, name)
        return web.json_response(changed)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        self.watches.append(dict(request.query))
        fault = self.troubles.get(request.path, "")
        if self.watch_faults:
            fault = self.watch_faults.pop(0)
        if int(request.query["resourceVersion"]) < self._oldest:
            fault = "410"
        if fault.isdigit():
            return failure(int(fault), "told to")
        response = web.StreamResponse()
        await response.prepare(request)
        if fault == "eof":
            return response
        task = asyncio.current_task()
        assert task
        self._streams.add(task)
        with suppress(ConnectionError):
            if fault == "silent":
                await asyncio.Event().wait()
            elif fault in _BAD_LINES:
                await response.write(_BAD_LINES[fault])
            else:
                await self._stream(request, response, fault)
        self._streams.discard(task)
        return response

    async def _stream(self, request: web.Request, response: web.StreamResponse, fault: str) -> None:
        since = int(request.query["resourceVersion"])
        while True:
            self._changed.clear()
            for version, type_, one in self._after(since, request.path):
                since = version
                line = _line(type_, one)
                if fault in ("truncate", "abort"):
                    await response.write(line[: len(line) // 2])
                    if fault == "abort" and request.transport:
                        request.transport.abort()
                    return
                await response.write(line)
            if fault == "bookmark":
                meta = {"resourceVersion": str(next(self._version))}
                await response.write(_line("BOOKMARK", {"metadata": meta}))
                return
            if not self._after(since, request.path):
                await self._changed.wait()

    def _after(self, since: int, path: str) -> list[tuple[int, str, Object]]:
        changes = self.history
        return [(v, type_, one) for v, type_, c, one in changes if v > since and _is_in(c, path)]


def failure(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """Return a Status as the API server gives it."""
    reasons = {404: "NotFound", 409: "Conflict", 410: "Expired"}
    body = {
        "kind": "Status",
        "status": "Failure",
        "code": status,
        "reason": reasons.get(status, ""),
        "message": message,
    }
    return web.json_response(body, status=status, headers=headers)


def merge(one: Any, patch: Any) -> Any:
    """Apply a merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(one) if isinstance(one, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def _is_in(place: str, collection: str) -> bool:
    """Say whether `collection` is `place`, or that of all namespaces."""
    if place == collection:
        return True
    before, _, rest = place.partition("/namespaces/")
    return "/" in rest and f"{before}/{rest.partition('/')[2]}" == collection


def _by_type(one: Object, patch: Object) -> list[Object]:
    """Return conditions as a strategic merge patch of them leaves them."""
    there = {c["type"]: c for c in one.get("status", {}).get("conditions", ())}
    for condition in patch["status"]["conditions"]:
        there[condition["type"]] = {**there.get(condition["type"], {}), **condition}
    return list(there.values())


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _line(type_: str, one: Object) -> bytes:
    return json.dumps({"type": type_, "object": one}).encode() + b"\n"


_BAD_LINES = {
    "error410": _line("ERROR", {"code": 410, "reason": "Expired", "message": "too old"}),
    "error500": _line("ERROR", {"code": 500, "message": "told to"}),
    "garbage": b'{"type": "MODIFIED", "object": {"metadata": 5}}\n',
}
