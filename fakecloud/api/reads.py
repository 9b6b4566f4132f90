"""Plain reads of one load balancer, answered from what the watch hub has seen. Plain ASGI.

Only the common case is served here: a known token, no query, no condition. Everything else, and
everything that isn't in memory or may be outdated there, goes on to the handler, which asks the
database; so nothing here refuses.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from fakecloud.access.rate_limits import GET
from fakecloud.api.context import Cloud
from fakecloud.errors import Problem
from fakecloud.resources import Token
from fakecloud.watch.seen import Document

_PREFIX: Final = "/v1/load-balancers/"
_ELSEWHERE: Final = frozenset({b"x-project", b"if-none-match"})


class Reads:
    """Answers `GET /v1/load-balancers/{name}` if it can do so at once."""

    def __init__(self, app: ASGIApp, cloud: Cloud) -> None:
        """Stand before `app`."""
        self._app = app
        self._cloud = cloud

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if (
            scope["type"] == "http"
            and scope["method"] == "GET"
            and scope["path"].startswith(_PREFIX)
            and not scope["query_string"]
        ):
            document = await self._find(scope)
            if document is not None:
                headers = [
                    (b"etag", document.etag),
                    (b"content-length", str(len(document.body)).encode()),
                    (b"content-type", b"application/json"),
                ]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": document.body})
                return
        await self._app(scope, receive, send)

    async def _find(self, scope: Scope) -> Document | None:
        token = self._caller(scope["headers"])
        if token is None or not token.may("lb:read") or not await self._cloud.hub.caught_up():
            return None
        document = self._cloud.hub.seen.find(token.project, scope["path"][len(_PREFIX) :])
        limiter = self._cloud.rate_limiter
        if document is not None and limiter is not None:
            try:
                scope["state"]["allowance"] = limiter.spend(token.id, GET)
            except Problem:
                return None
        return document

    def _caller(self, headers: list[tuple[bytes, bytes]]) -> Token | None:
        """Return whose token it is if that is known without a query."""
        given = b""
        for name, value in headers:
            if name == b"authorization":
                if given:
                    return None
                given = value
            elif name in _ELSEWHERE:
                return None
        scheme, _, secret = given.decode("latin-1").partition(" ")
        if scheme.lower() == "bearer":
            with suppress(Problem):
                return self._cloud.authority.remembered(secret.strip())
        return None
