"""What every answer carries, and the record of refused changes. Plain ASGI: it costs little."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fakecloud.access.rate_limits import Allowance
from fakecloud.api import mutations, problems
from fakecloud.api.context import Cloud
from fakecloud.clock import rfc3339

_VERSION: Final = version("fakecloud").encode()


def always(cloud: Cloud) -> list[tuple[bytes, bytes]]:
    """Return the headers that every answer has, whoever gives it."""
    return [
        (b"fakecloud-time", rfc3339(cloud.clock.now()).encode()),
        (b"fakecloud-version", _VERSION),
    ]


class Envelope:
    """Gives every request an id and every answer its headers; records refused changes."""

    def __init__(self, app: ASGIApp, cloud: Cloud) -> None:
        """Put the answers of `app` into envelopes."""
        self._app = app
        self._cloud = cloud

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        request = Request(scope)
        problems.request_id(request)
        mutating = mutations.is_one(request)
        if mutating:
            receive = _hashed(receive, state)

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                if mutating and mutations.is_refusal(message["status"]):
                    await run_in_threadpool(
                        mutations.record_refusal, self._cloud, request, message["status"]
                    )
                message["headers"] = [*message["headers"], *self._headers(state, message)]
            await send(message)

        await self._app(scope, receive, sealed)

    def _headers(self, state: dict[str, Any], message: Message) -> list[tuple[bytes, bytes]]:
        headers = always(self._cloud)
        if not any(name == b"x-request-id" for name, _ in message["headers"]):
            headers.append((b"x-request-id", state["request_id"].encode()))
        allowance: Allowance | None = state.get("allowance")
        if allowance is not None:
            policy = f'"default";q={allowance.limit};w=60;qu="requests"'
            left = f'"default";r={allowance.remaining};t={allowance.reset_s}'
            headers += [(b"ratelimit-policy", policy.encode()), (b"ratelimit", left.encode())]
        return headers


def _hashed(receive: Receive, state: dict[str, Any]) -> Receive:
    """Return a `receive` that keeps the hash of the body so far in the state."""
    digest = state["body_digest"] = hashlib.sha256()

    async def counted() -> Message:
        message = await receive()
        digest.update(message.get("body", b""))
        return message

    return counted
