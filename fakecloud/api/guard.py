"""Limits on requests before any handler: size and type of the body. Plain ASGI, so it costs little."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fakecloud import errors
from fakecloud.api import problems

MAX_BODY_BYTES: Final = 1 << 20
_WITH_BODY: Final = frozenset({"PUT", "POST", "PATCH"})
_TYPES: Final = frozenset({"application/json", "application/merge-patch+json"})


class _TooLarge(Exception):
    """The body passed the limit while it was read. Ours, but the framework may answer it as 400."""


class Guard:
    """Refuses bodies that are too large (413) or not JSON (415)."""

    def __init__(self, app: ASGIApp) -> None:
        """Guard `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with a problem."""
        if scope["type"] != "http" or scope["method"] not in _WITH_BODY:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        problem = _refusal(request)
        if problem is None:
            body = _Limited(receive)

            async def send_unless_too_large(message: Message) -> None:
                if not body.too_large:
                    await send(message)

            with suppress(_TooLarge):
                await self._app(scope, body, send_unless_too_large)
            problem = _too_large() if body.too_large else None
        if problem is not None:
            await problems.answer(request, problem)(scope, receive, send)


def _refusal(request: Request) -> errors.Problem | None:
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        return _too_large()
    if length == "0" or (not length and "transfer-encoding" not in request.headers):
        return None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _TYPES:
        return errors.UnsupportedMediaType(
            f"the body has content type {kind or 'none'!r}; send application/json"
        )
    return None


class _Limited:
    """A `receive` that ends the reading of a body that is too large. Handlers answer after it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._size = 0
        self.too_large = False

    async def __call__(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > MAX_BODY_BYTES:
            self.too_large = True
            raise _TooLarge
        return message


def _too_large() -> errors.Problem:
    return errors.PayloadTooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes")
