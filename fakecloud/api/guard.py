"""Limits on requests before any handler: size and type of the body. Plain ASGI, so it costs little."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fakecloud import errors
from fakecloud.api import problems

MAX_BODY_BYTES: Final = 1 << 20
_WITH_BODY: Final = frozenset({"PUT", "POST", "PATCH"})
_TYPES: Final = frozenset({"application/json", "application/merge-patch+json"})


class _TooLarge(Exception):
    """The body passed the limit while it was read."""


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
            started = False

            async def watched_send(message: Message) -> None:
                nonlocal started
                started = True
                await send(message)

            try:
                await self._app(scope, _limited(receive), watched_send)
            except _TooLarge:
                if started:
                    raise
                problem = _too_large()
        if problem is not None:
            answer = problems.response(problem, problems.request_id(request))
            await answer(scope, receive, send)


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


def _limited(receive: Receive) -> Receive:
    size = 0

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            raise _TooLarge
        return message

    return limited


def _too_large() -> errors.Problem:
    return errors.PayloadTooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes")
