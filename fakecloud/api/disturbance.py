"""Faults between the network and the handlers, and in the stream of changes. Plain ASGI.

It stands before everything else, so that what it does to an answer is the last thing done to it.
Health and `/v1/chaos` are never disturbed. Where no fault is asked for, a request costs one look
into memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fakecloud import errors
from fakecloud.api import envelope, page_faults, problems, tampering
from fakecloud.api.context import Cloud
from fakecloud.domain.fault_actions import AT_ADMISSION
from fakecloud.domain.faults import Facts, Hit, Layer
from fakecloud.resources import Token
from fakecloud.store import load_balancers

log = structlog.get_logger()

HANG_S: Final = 30.0
_HTML: Final = (
    "<html><head><title>502 Bad Gateway</title></head>"
    "<body><center><h1>502 Bad Gateway</h1></center></body></html>\n"
)
_VERBS: Final = {"PUT": "put", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
_BY_STATUS: Final[dict[int, type[errors.Problem]]] = {
    kind.status: kind
    for kind in (
        errors.Unauthenticated, errors.ScopeMissing, errors.NotFound, errors.PreconditionFailed,
        errors.MaintenanceLocked, errors.RateLimited, errors.Internal, errors.UpstreamError,
        errors.Unavailable, errors.DeadlineExceeded, errors.NoCapacity,
    )
}  # fmt: skip

_DENIALS: Final = (errors.Unauthenticated, errors.TokenExpired, errors.TokenRevoked)


class Disturbance:
    """Lets faults of the layers api and watch, and those at admission, happen to requests."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before `app`."""
        self._app = app
        self._effects: dict[str, Callable[[_Struck], Awaitable[None]]] = {
            "status": _status,
            "html_502": _html_502,
            "rate_limit": _rate_limit,
            "pool_exhausted": _no_capacity,
            "quota_zero": _no_quota,
            "latency": self._latency,
            "hang": _hang,
            "reset_before": _reset,
            "drop_after_commit": self._drop_after_commit,
            "truncate_body": self._truncate,
            "clock_skew_header": self._skew,
            "auth_flap": _deny,
            "dup_page": self._misplace,
            "skip_page": self._misplace,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, disturbed if a fault says so."""
        if scope["type"] != "http" or not _may_be_disturbed(scope["path"]):
            await self._app(scope, receive, send)
            return
        cloud: Cloud = scope["app"].state.cloud
        if cloud.chaos.quiet(Layer.API, Layer.WATCH, Layer.PROVISION) and not _is_watch(scope):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        token = await _token(request, cloud)
        if token is None:
            await self._app(scope, receive, send)  # it is refused anyway
            return
        request_id = _named(request)
        hit = await _look(cloud, request, token.project, request_id)
        if hit is not None:
            await self._strike(_Struck(cloud, request, token.project, hit, receive, send))
        elif _is_watch(scope):
            facts = _facts(Layer.WATCH, request, token.project)
            stream = tampering.Stream(cloud, facts, request_id, send, _Cut(receive))
            await stream.run(lambda out: self._app(scope, receive, out))
        else:
            await self._app(scope, receive, send)

    async def _strike(self, struck: _Struck) -> None:
        action = struck.hit.action
        struck.request.state.fault = struck.hit.rule_id
        log.info("fault_injected", fault=struck.hit.rule_id, action=action.type)
        effect = self._effects.get(action.type, self._tamper)
        await effect(struck)

    async def _latency(self, struck: _Struck) -> None:
        await asyncio.sleep(struck.hit.seconds())
        await self._app(struck.request.scope, struck.receive, struck.marked)

    async def _drop_after_commit(self, struck: _Struck) -> None:
        async def lose(_message: Message) -> None:
            """The handler believes that it has answered."""

        await self._app(struck.request.scope, struck.receive, lose)
        await struck.cut.now()

    async def _truncate(self, struck: _Struck) -> None:
        start, body = await tampering.whole(self._app, struck.request.scope, struck.receive)
        await struck.marked(start)
        await struck.send({"type": "http.response.body", "body": body[: len(body) // 2],
                           "more_body": True})  # fmt: skip
        await struck.cut.after_sending()

    async def _tamper(self, struck: _Struck) -> None:
        """Change the whole answer: bodies that lie, are no JSON, or are outdated."""
        start, body = await tampering.whole(self._app, struck.request.scope, struck.receive)
        if start["status"] == 200 or struck.hit.action.type not in tampering.OF_READS:
            start, body = await tampering.change(
                struck.cloud.database, struck.project, struck.hit, start, body
            )
        await struck.marked(start)
        await struck.send({"type": "http.response.body", "body": body})

    async def _skew(self, struck: _Struck) -> None:
        skew_s = struck.hit.action.skew_s or 0.0

        async def skewed(message: Message) -> None:
            await struck.marked(tampering.with_skewed_time(message, skew_s))

        await self._app(struck.request.scope, struck.receive, skewed)

    async def _misplace(self, struck: _Struck) -> None:
        """Let the pages of a list overlap, or leave a gap."""
        kind, request = struck.hit.action.type, struck.request
        start, body = await page_faults.answer(self._app, request.scope, struck.receive, kind)
        await struck.marked(start)
        await struck.send({"type": "http.response.body", "body": body})


class _Cut:
    """Ends the connection of a request without an answer.

    ASGI has no word for that; uvicorn's `receive` belongs to the object that has the transport.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._transport = getattr(getattr(receive, "__self__", None), "transport", None)

    async def now(self) -> None:
        """Reset the connection: what was not sent yet never is."""
        assert self._transport is not None, "this server doesn't let its connections be cut"
        self._transport.abort()
        await self._end()

    async def after_sending(self) -> None:
        """Close the connection when what was written has been sent."""
        assert self._transport is not None, "this server doesn't let its connections be cut"
        self._transport.close()
        await self._end()

    async def _end(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


class _Struck:
    """A request and the fault that hit it."""

    def __init__(
        self,
        cloud: Cloud,
        request: Request,
        project: str,
        hit: Hit,
        receive: Receive,
        send: Send,
    ) -> None:
        self.cloud = cloud
        self.request = request
        self.project = project
        self.hit = hit
        self.receive = receive
        self.send = send
        self.cut = _Cut(receive)

    async def marked(self, message: Message) -> None:
        """Send a message; an answer's start says which fault hit it."""
        if message["type"] == "http.response.start":
            given = [*message["headers"], (b"x-fault-injected", self.hit.rule_id.encode())]
            names = {name for name, _ in given}
            usual = (
                (b"x-request-id", problems.request_id(self.request).encode()),
                *envelope.always(self.cloud),
            )
            headers = [*given, *(pair for pair in usual if pair[0] not in names)]
            message = {**message, "headers": headers}
        await self.send(message)

    async def answer(self, response: Response) -> None:
        """Answer in place of the handlers."""
        await response(self.request.scope, self.receive, self.marked)

    async def refuse(
        self, kind: type[errors.Problem], status: int, retry_after_s: int | None
    ) -> None:
        """Answer with a problem of that kind, under any status."""
        fault = errors.InjectedFault(f"fault {self.hit.rule_id} was injected")
        members = {
            "type": f"/problems/{kind.code}",
            "title": kind.title,
            "status": status,
            "code": kind.code,
            "retryable": kind.retryable,
            "retry_after_ms": None if retry_after_s is None else retry_after_s * 1000,
        }
        answer = problems.response(fault, problems.request_id(self.request))
        await self.answer(tampering.with_members(answer, members))


async def _status(struck: _Struck) -> None:
    action = struck.hit.action
    status = int(action.code or 500)
    kind = next((k for k in problems.catalogue() if k.code == action.problem), None)
    kind = kind or _BY_STATUS.get(status, errors.InjectedFault)
    after = kind.retry_after_s if action.retry_after_s is None else action.retry_after_s
    await struck.refuse(kind, status, after)


async def _rate_limit(struck: _Struck) -> None:
    after = struck.hit.action.retry_after_s
    await struck.refuse(errors.RateLimited, 429, 1 if after is None else after)


async def _deny(struck: _Struck) -> None:
    code = struck.hit.action.problem
    kind = next((k for k in _DENIALS if k.code == code), errors.Unauthenticated)
    await struck.refuse(kind, 401, None)


async def _no_capacity(struck: _Struck) -> None:
    await struck.refuse(errors.NoCapacity, 507, errors.NoCapacity.retry_after_s)


async def _no_quota(struck: _Struck) -> None:
    await struck.refuse(errors.QuotaExceeded, 403, None)


async def _html_502(struck: _Struck) -> None:
    await struck.answer(Response(_HTML, 502, media_type="text/html"))


async def _reset(struck: _Struck) -> None:
    await struck.cut.now()


async def _hang(struck: _Struck) -> None:
    """Say nothing for a while, then reset; nothing is done for the request."""

    async def gone() -> None:
        while (await struck.receive())["type"] != "http.disconnect":
            pass

    try:
        async with asyncio.timeout(struck.hit.seconds(HANG_S)):
            await gone()
    except TimeoutError:
        await struck.cut.now()


def _may_be_disturbed(path: str) -> bool:
    return path.startswith("/v1/") and not path.startswith(("/v1/chaos/", "/v1/chaos:"))


def _is_watch(scope: Scope) -> bool:
    return (scope["path"], scope["method"]) == ("/v1/watch", "GET")


def _named(request: Request) -> str:
    """Return the request's id, settled here so that log and answer agree."""
    known = problems.request_id(request)
    request.state.request_id = known
    return known


async def _token(request: Request, cloud: Cloud) -> Token | None:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        return None
    try:
        remembered = cloud.authority.remembered(secret)
        token = remembered or await asyncio.to_thread(cloud.authority.find, secret)
    except errors.Problem:
        return None
    project = request.headers.get("x-project")
    if token is None or project is None or not token.may("admin"):
        return token
    return msgspec.structs.replace(token, project=project)


async def _look(cloud: Cloud, request: Request, project: str, request_id: str) -> Hit | None:
    """Return the fault that hits this request. A database that is away has faults of its own."""
    facts = _facts(Layer.API, request, project)
    whole = None
    if _is_watch(request.scope):
        whole = frozenset(_BEFORE)  # an endless answer can't be changed as a whole
    try:
        if not cloud.chaos.quiet(Layer.API):
            hit = await asyncio.to_thread(cloud.chaos.look, facts, request_id, whole)
            if hit is not None:
                return hit
        return await _at_admission(cloud, request, project, request_id)
    except errors.Unavailable:
        return None


_BEFORE: Final = (
    *("status", "html_502", "rate_limit", "latency", "hang", "reset_before"),
    *("auth_flap", "clock_skew_header"),
)


async def _at_admission(
    cloud: Cloud, request: Request, project: str, request_id: str
) -> Hit | None:
    """Let pool_exhausted and quota_zero refuse what would take an address or a quota."""
    path = request.url.path
    name = path.removeprefix("/v1/load-balancers/")
    new = request.method == "POST" and path in ("/v1/load-balancers", "/v1/addresses")
    put = request.method == "PUT" and name != path and "/" not in name
    if not (new or put) or cloud.chaos.quiet(Layer.PROVISION):
        return None

    def look() -> Hit | None:
        if put:
            with cloud.database.read() as connection:
                if load_balancers.find(connection, project, name) is not None:
                    return None
        facts = Facts(
            layer=Layer.PROVISION,
            project=project,
            method=request.method,
            path=path,
            operation="create",
            resource=name if put else "",
            labels={},
        )
        return cloud.chaos.look(facts, request_id, AT_ADMISSION)

    return await asyncio.to_thread(look)


def _facts(layer: Layer, request: Request, project: str) -> Facts:
    parts = request.url.path.split("/")  # "", v1, collection, name, …
    collection, _, verb = parts[2].partition(":")
    name, _, of_name = parts[3].partition(":") if len(parts) > 3 else ("", "", "")
    reading = "get" if name else "list"
    return Facts(
        layer=layer,
        project=project,
        method=request.method,
        path=request.url.path,
        operation=of_name or verb or _VERBS.get(request.method, reading),
        resource=name,
        labels=None if collection == "load-balancers" else {},
        user_agent=request.headers.get("user-agent", ""),
    )
