"""Errors as problem+json (RFC 9457): the framework's own, the database's and ours alike."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from fakecloud import errors
from fakecloud.errors import FieldError, Problem

log = structlog.get_logger()

MEDIA_TYPE: Final = "application/problem+json"
_METHODS: Final = ("GET", "PUT", "POST", "PATCH", "DELETE")


def catalogue(root: type[Problem] = Problem) -> Iterator[type[Problem]]:
    """Yield every kind of problem that the cloud raises."""
    for kind in root.__subclasses__():
        yield kind
        yield from catalogue(kind)


def response(problem: Problem, request_id: str) -> Response:
    """Return the answer that tells a caller what was wrong and what to do."""
    body: dict[str, Any] = {
        "type": f"/problems/{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": _sendable(problem.detail),
        "code": problem.code,
        "request_id": request_id,
        "retryable": problem.retryable,
        "retry_after_ms": None if problem.retry_after_s is None else problem.retry_after_s * 1000,
        "errors": [
            {"pointer": _sendable(e.pointer), "code": e.code, "message": _sendable(e.message)}
            for e in problem.errors
        ],
    }
    headers = {"x-request-id": request_id}
    if problem.retry_after_s is not None:
        headers["retry-after"] = str(problem.retry_after_s)
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    extra = dict(problem.extra)
    if "allow" in extra:
        headers["allow"] = extra.pop("allow")
    return Response(
        msgspec.json.encode(body | extra),
        status_code=problem.status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


def _sendable(text: str) -> str:
    """Return text that came from a request so that it fits an answer: short, valid Unicode."""
    text = text if len(text) <= 1000 else text[:1000] + "…"
    return text.encode("utf-8", "replace").decode()


def answer(request: Request, problem: Problem) -> Response:
    """Return the answer to a refused request; the audit record reads its code from the state."""
    request.state.problem = problem.code
    return response(problem, request_id(request))


def request_id(request: Request) -> str:
    """Return the id of this request: the caller's, if it is a sane one, else a new one."""
    known: str | None = getattr(request.state, "request_id", None)
    if known is not None:
        return known
    given = request.headers.get("x-request-id", "")
    if 0 < len(given) <= 64 and given.isascii() and given.replace("-", "").isalnum():
        request.state.request_id = given
        return given
    made: str = "req_" + secrets.token_hex(8)
    request.state.request_id = made
    return made


def install(app: FastAPI) -> None:
    """Make `app` answer every error as problem+json."""

    def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return answer(request, error)

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer(request, _validation(error))

    def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return answer(request, _framework(request, error))

    def unexpected(request: Request, error: Exception) -> Response:
        id = request_id(request)
        log.error("request_failed", request_id=id, path=request.url.path, exc_info=error)
        return response(errors.Internal(f"unexpected; the server's log has more under {id}"), id)

    app.add_exception_handler(Problem, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(Exception, unexpected)


def _framework(request: Request, error: HTTPException) -> Problem:
    path = request.url.path
    if error.status_code == 404:
        return errors.RouteNotFound(f"there is no endpoint {path}; see /docs")
    if error.status_code == 405:
        allow = ", ".join(allowed(request))
        return errors.MethodNotAllowed(
            f"{request.method} is not for {path}, which takes {allow}", allow=allow
        )
    return errors.MalformedJson(str(error.detail))


def allowed(request: Request) -> list[str]:
    """Return every method of the request's path; the framework names those of one route only."""
    found = [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]
    return [*found, "HEAD"] if "GET" in found else found  # see `heads`


def _validation(error: RequestValidationError) -> Problem:
    found = error.errors()
    first = found[0]
    if first["type"] == "json_invalid":
        position = first["loc"][-1]
        reason = first.get("ctx", {}).get("error", "")
        return errors.MalformedJson(f"the body is not JSON at character {position}: {reason}")
    if first["loc"][0] in ("query", "path", "header"):
        name = first["loc"][-1]
        return errors.InvalidParameter(
            f"{first['loc'][0]} parameter {name!r}: {first['msg']}",
            errors=(FieldError(str(name), str(first["type"]), str(first["msg"])),),
        )
    fields = tuple(_field(one) for one in found[:20])
    detail = "; ".join(f"{f.pointer or 'the body'}: {f.message}" for f in fields[:3])
    more = len(found) - 3
    return errors.ValidationFailed(
        detail + (f"; and {more} more" if more > 0 else ""), errors=fields
    )


def _field(error: Any) -> FieldError:
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in error["loc"][1:])
    pointer = "".join(f"/{part}" for part in parts)
    message = str(error["msg"]).removeprefix("Value error, ")
    return FieldError(pointer, str(error["type"]), message)
