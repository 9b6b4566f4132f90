"""A cloud in memory behind HTTP: the load balancer part of the API, and trouble on demand.

It shares nothing with the product; it is here to be slow, to fail and to be silent when told.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TOKEN = "t" * 64


@dataclass
class Trouble:
    """What goes wrong; each list of answers is used up from the front, one per request."""

    answers: list[web.Response | Callable[[], web.Response]] = field(default_factory=list)
    drop_after_commit: int = 0
    hang: bool = False
    stay_pending: bool = False
    fail_provisioning: str = ""
    provisioning_s: float = 0.0
    deletion_s: float = 0.0
    watch_status: list[int] = field(default_factory=list)
    stalled_streams: int = 0


class FakeCloud:
    """State, history and the requests seen. `url` is set while it serves.

    accepted, refused: the fences of the writes, in order; `gate`, once cleared, holds requests back.
    """

    def __init__(self) -> None:
        self.trouble = Trouble()
        self.load_balancers: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str]] = []
        self.routes: list[dict[str, Any]] = []
        self.bodies: list[dict[str, Any]] = []
        self.inventories: dict[str, dict[str, Any]] = {}
        self.rates: dict[str, Any] = {"currency": "USD", "price_book": "none", "items": []}
        self.watches: list[dict[str, str]] = []
        self.fences: dict[str, int] = {}
        self.accepted: list[int] = []
        self.refused: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.history: list[dict[str, Any]] = []
        self.oldest = 0
        self.url = ""
        self.port = 0
        self._version = itertools.count(1)
        self._number = itertools.count(1)
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: set[asyncio.Task[Any]] = set()

    # -- what a test may do ----------------------------------------------------------------

    def drop_streams(self) -> None:
        """Cut every watch."""
        for task in list(self._streams):
            task.cancel()

    def expire_history(self) -> None:
        """Forget the past: resuming gets 410."""
        self.oldest = max((frame["rv"] for frame in self.history), default=0)
        self.history.clear()

    def remove(self, name: str) -> None:
        """Delete behind everybody's back."""
        self._delete_now(name)

    def edit(self, name: str, **spec: Any) -> None:
        """Change a spec behind everybody's back."""
        one = self.load_balancers[name]
        one["spec"] = {**one["spec"], **spec}
        one["status"]["generation"] += 1
        one["status"]["observed_generation"] = one["status"]["generation"]
        self._emit("MODIFIED", one)

    def finish(self, name: str) -> None:
        """Make a load balancer ACTIVE."""
        one = self.load_balancers.get(name)
        if one is None or one["status"]["state"] == "DELETING":
            return
        one["status"]["state"] = "ACTIVE"
        one["status"]["observed_generation"] = one["status"]["generation"]
        one["status"]["last_error"] = None
        self._emit("MODIFIED", one)

    def count(self, method: str) -> int:
        """Return how many requests of `method` there were."""
        return sum(one == method for one, _ in self.requests)

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[FakeCloud]:
        """Answer on a loopback port inside the `async with`."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/v1/watch", self._watch)
        app.router.add_get("/v1/load-balancers", self._list)
        app.router.add_get("/v1/load-balancers/{name}", self._get)
        app.router.add_put("/v1/load-balancers/{name}", self._put)
        app.router.add_delete("/v1/load-balancers/{name}", self._delete)
        app.router.add_put("/v1/clusters/{uid}/inventory", self._take_inventory)
        app.router.add_get("/v1/costs/rates", self._get_rates)
        app.router.add_get("/v1/routes", self._list_routes)
        app.router.add_delete("/v1/{kind:routes|networks}/{name}", self._drop)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        try:
            yield self
        finally:
            self.drop_streams()
            for task in self._tasks:
                task.cancel()
            await runner.cleanup()

    # -- requests --------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        is_watch = request.path == "/v1/watch"
        if request.path.endswith(
            ("/inventory", "/costs/rates")
        ):  # comes by itself: no trouble is meant for it
            return await handler(request)
        self.requests.append(("WATCH" if is_watch else request.method, request.path))
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return problem(401, "unauthenticated", "a valid token is needed", retryable=False)
        await self.gate.wait()
        if not self._is_in_time(request):
            return problem(409, "stale_fence", "a later leader was here", retryable=False)
        if self.trouble.hang and not is_watch:
            await asyncio.Event().wait()
        if self.trouble.answers and not is_watch:
            answer = self.trouble.answers.pop(0)
            return answer() if callable(answer) else answer
        response: web.StreamResponse = await handler(request)
        if self.trouble.drop_after_commit and request.method in ("PUT", "DELETE"):
            self.trouble.drop_after_commit -= 1
            if request.transport:
                request.transport.abort()
        return response

    def _is_in_time(self, request: web.Request) -> bool:
        """Heed the fence of a write, as the cloud does."""
        name, _, number = request.headers.get("Fakecloud-Fence", "").rpartition(":")
        if not name:
            return True
        fence = int(number)
        if fence < self.fences.get(name, 0):
            self.refused.append(fence)
            return False
        self.fences[name] = fence
        self.accepted.append(fence)
        return True

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "items": list(self.load_balancers.values()),
                "next_page_token": None,
                "resource_version": str(self._last()),
            }
        )

    async def _get(self, request: web.Request) -> web.Response:
        one = self.load_balancers.get(request.match_info["name"])
        return web.json_response(one) if one else not_found()

    async def _put(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        body = await request.json()
        self.bodies.append(body)
        one = self.load_balancers.get(name)
        if one is None:
            one = self._create(name, body)
            return web.json_response(one, status=201)
        if one["status"]["state"] == "DELETING":
            return problem(409, "being_deleted", f"{name} is being deleted", retryable=True)
        if (
            one["spec"] == body["spec"]
            and one["labels"] == body["labels"]
            and (one["annotations"] == body.get("annotations", {}))
        ):
            return web.json_response(one)
        if one["spec"] != body["spec"]:
            one["status"]["generation"] += 1
            one["status"]["state"] = "UPDATING"
        one["spec"], one["labels"] = body["spec"], body["labels"]
        one["annotations"] = body.get("annotations", {})
        self._emit("MODIFIED", one)
        self._provision(name)
        return web.json_response(one, status=202)

    async def _list_routes(self, request: web.Request) -> web.Response:
        return web.json_response({"items": self.routes, "next_page_token": None})

    async def _drop(self, request: web.Request) -> web.Response:
        return web.Response(status=204)

    async def _take_inventory(self, request: web.Request) -> web.Response:
        self.inventories[request.match_info["uid"]] = await request.json()
        return web.json_response({})

    async def _get_rates(self, request: web.Request) -> web.Response:
        return web.json_response(self.rates)

    async def _delete(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        one = self.load_balancers.get(name)
        if one is None:
            return not_found()
        if one["status"]["state"] != "DELETING":
            one["status"]["state"] = "DELETING"
            self._emit("MODIFIED", one)
            self._spawn(self._delete_later(name))
        return web.json_response({"id": "op_1", "type": "delete"}, status=202)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        if self.trouble.watch_status:
            status = self.trouble.watch_status.pop(0)
            return problem(status, "watch_expired" if status == 410 else "internal", "told to")
        self.watches.append(dict(request.query))
        is_initial = request.query.get("initial") == "true"
        since = self._last() if is_initial else int(request.query["since"])
        if since < self.oldest:
            return problem(410, "watch_expired", "too old", retryable=False)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        task = asyncio.current_task()
        assert task
        self._streams.add(task)
        with suppress(ConnectionError):
            await self._stream(response, since, is_initial)
        self._streams.discard(task)
        return response

    async def _stream(self, response: web.StreamResponse, since: int, is_initial: bool) -> None:
        frames = []
        if is_initial:
            frames = [_frame("ADDED", since, one) for one in self.load_balancers.values()]
        frames.append({"type": "BOOKMARK", "resource_version": str(since)})
        await response.write(b"".join(json.dumps(one).encode() + b"\n" for one in frames))
        if self.trouble.stalled_streams:
            self.trouble.stalled_streams -= 1
            await asyncio.Event().wait()
        while True:
            self._changed.clear()
            for entry in [one for one in self.history if one["rv"] > since]:
                since = entry["rv"]
                await response.write(entry["line"])
            if not any(one["rv"] > since for one in self.history):
                await self._changed.wait()

    # -- state -----------------------------------------------------------------------------

    def _create(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        number = next(self._number)
        one = {
            "name": name,
            "labels": body["labels"],
            "annotations": body.get("annotations", {}),
            "spec": body["spec"],
            "status": {
                "id": f"lb_{uuid.uuid4().hex[:8]}",
                "state": "PENDING",
                "operating_state": "UNKNOWN",
                "conditions": [],
                "addresses": [
                    {
                        "family": asked["family"],
                        "ip": f"127.77.{number // 250}.{number % 250 + 1}"
                        if asked["family"] == "ipv4"
                        else f"fd00:77::{number:x}",
                        "pool": "default",
                    }
                    for asked in body["spec"]["addresses"]
                ],
                "generation": 1,
                "observed_generation": 0,
                "last_error": None,
                "operation": "op_1",
                "targets": [],
            },
        }
        self.load_balancers[name] = one
        self._emit("ADDED", one)
        self._provision(name)
        return one

    def _provision(self, name: str) -> None:
        if self.trouble.fail_provisioning:
            one = self.load_balancers[name]
            one["status"]["state"] = "ERROR"
            one["status"]["last_error"] = {
                "code": "bind_failed",
                "message": self.trouble.fail_provisioning,
                "at": "2026-01-01T00:00:00Z",
            }
            self._emit("MODIFIED", one)
        elif not self.trouble.stay_pending:
            self._spawn(self._finish_later(name))

    async def _finish_later(self, name: str) -> None:
        await asyncio.sleep(self.trouble.provisioning_s)
        self.finish(name)

    async def _delete_later(self, name: str) -> None:
        await asyncio.sleep(self.trouble.deletion_s)
        self._delete_now(name)

    def _delete_now(self, name: str) -> None:
        one = self.load_balancers.pop(name, None)
        if one is not None:
            one["status"]["state"] = "DELETED"
            self._emit("DELETED", one)

    def _emit(self, type_: str, one: dict[str, Any]) -> None:
        version = next(self._version)
        one["status"]["resource_version"] = str(version)
        frame = _frame(type_, version, one)
        self.history.append({"rv": version, "line": json.dumps(frame).encode() + b"\n"})
        self._changed.set()

    def _last(self) -> int:
        return self.history[-1]["rv"] if self.history else self.oldest

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    retryable: bool = True,
    retry_after_s: int | None = None,
) -> web.Response:
    """Return an RFC 9457 answer."""
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s is not None else {}
    return web.json_response(
        {"status": status, "code": code, "detail": detail, "retryable": retryable},
        status=status,
        headers=headers,
        content_type="application/problem+json",
    )


def not_found() -> web.Response:
    """Return a 404 as the API gives it."""
    return problem(404, "not_found", "no such load balancer", retryable=False)


def _frame(type_: str, version: int, one: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": type_,
        "resource_version": str(version),
        "kind": "load_balancer",
        "object": one,
    }
