"""Plain PUTs of load balancers, without the framework's way to the handler. Plain ASGI.

That way costs more than the change itself: a dozen dependencies for each request. Only the common
case is served here: a known token, no query, no header that asks for more, a right document.
Everything else goes on to the handler, which alone says what is wrong with it.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from functools import partial
from typing import Final

from pydantic import ValidationError
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fakecloud.access.rate_limits import MUTATE
from fakecloud.api import load_balancers, problems, schemas
from fakecloud.api.context import Cloud
from fakecloud.api.mutations import Mutation
from fakecloud.errors import Problem
from fakecloud.requests.wishes import Put, Wish
from fakecloud.resources import Token

_PREFIX: Final = "/v1/load-balancers/"
_PLAIN: Final = frozenset(
    b"host authorization content-type content-length transfer-encoding connection accept "
    b"accept-encoding user-agent x-request-id fakecloud-fence".split()
)
"""Headers that say nothing which only the handler understands; a Mutation heeds the fence."""
_JSON: Final = b"application/json"


class Puts:
    """Does `PUT /v1/load-balancers/{name}` if nothing about it is special."""

    def __init__(self, app: ASGIApp, cloud: Cloud) -> None:
        """Stand before `app`."""
        self._app = app
        self._cloud = cloud

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] != "http" or scope["method"] != "PUT" or scope["query_string"]:
            await self._app(scope, receive, send)
            return
        name, caller = _name(scope["path"]), self._caller(scope["headers"])
        if name is None or caller is None:
            await self._app(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1].get("more_body", False):
            messages.append(await receive())
        if messages[-1]["type"] == "http.disconnect":
            return  # the rest of the wish is missing, however complete it looks
        body = b"".join(message.get("body", b"") for message in messages)
        wish = _wish(body)
        if wish is None or not self._allowed(scope, caller):
            await self._app(scope, _again(messages, receive), send)
            return
        request = Request(scope)
        request.state.caller = caller
        asked = None  # which address is asked for, and had, matters to others
        if not any(address.ip for address in wish.spec.addresses):
            asked = Put(project=caller.project, name=name, wish=wish)
        act = partial(self._cloud.load_balancers.put, caller.project, name, wish)
        try:
            change = Mutation(self._cloud, caller, request, body, None)
            answer = await load_balancers.changed(self._cloud, change, act, put=asked)
        except Problem as problem:
            answer = problems.answer(request, problem)
        await answer(scope, receive, send)

    def _allowed(self, scope: Scope, caller: Token) -> bool:
        """Say whether the caller isn't too fast; the handler tells one that is."""
        if self._cloud.rate_limiter is not None:
            try:
                scope["state"]["allowance"] = self._cloud.rate_limiter.spend(caller.id, MUTATE)
            except Problem:
                return False
        return True

    def _caller(self, headers: list[tuple[bytes, bytes]]) -> Token | None:
        """Return who may do this, if that is known without a query."""
        given, kind = b"", b""
        for name, value in headers:
            if name == b"authorization":
                if given:
                    return None
                given = value
            elif name == b"content-type":
                kind = value
            elif name not in _PLAIN:
                return None
        scheme, _, secret = given.decode("latin-1").partition(" ")
        if scheme.lower() == "bearer" and kind == _JSON:
            with suppress(Problem):
                token = self._cloud.authority.remembered(secret.strip())
                return token if token is not None and token.may("lb:write") else None
        return None


def _name(path: str) -> str | None:
    """Return the name of the load balancer that `path` is about, None if there is none."""
    name = path.removeprefix(_PREFIX)
    return name if name != path and re.fullmatch(load_balancers.NAME, name) else None


def _wish(body: bytes) -> Wish | None:
    """Return the wish of a document, None if there is anything wrong with it."""
    try:
        found = schemas.PutLoadBalancer.model_validate(json.loads(body))
        spec = load_balancers.offered(found)
    except (ValueError, RecursionError, ValidationError, Problem):
        return None
    return Wish(labels=found.labels, annotations=found.annotations, spec=spec)


def _again(messages: list[Message], receive: Receive) -> Receive:
    """Return a `receive` that begins with messages which were taken already."""
    left = iter(messages)

    async def replayed() -> Message:
        return next(left, None) or await receive()

    return replayed
