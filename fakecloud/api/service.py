"""The service itself: is it alive, is it ready, which version, what do its problems mean."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Iterator
from importlib.metadata import version
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse, PlainTextResponse
from starlette.responses import Response

from fakecloud import errors
from fakecloud.api import problems, replies
from fakecloud.api.context import BEARER, CloudParts, caller
from fakecloud.domain import failures

router = APIRouter(tags=["service"])

READY_TIMEOUT_S: Final = 2.0
_PROBLEMS: Final = {kind.code: kind for kind in problems.catalogue()}
_CODES: Final = sorted(_PROBLEMS.keys() | failures.MEANINGS.keys())


@router.get("/healthz", summary="Is the process alive", response_class=PlainTextResponse)
async def healthz() -> Response:
    """Say that the process answers."""
    return PlainTextResponse("ok\n")


@router.get(
    "/readyz",
    summary="Can requests be served",
    response_class=PlainTextResponse,
    responses={503: {"description": "no"}},
)
async def readyz(cloud: CloudParts) -> Response:
    """Say whether requests can be served: the database can be read and written, loops turn."""
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            trouble = await asyncio.to_thread(cloud.readiness.trouble)
    except TimeoutError:
        late = f"the database does not answer within {READY_TIMEOUT_S} s"
        trouble = cloud.readiness.noted or late
    stopped = ", ".join(cloud.stopped_loops())
    if stopped and trouble is None:
        trouble = f"stopped: {stopped}; what is asked for is not done until a restart"
    return PlainTextResponse("ok\n") if trouble is None else PlainTextResponse(f"{trouble}\n", 503)


@router.get("/version", summary="Version of this server")
async def show_version() -> Response:
    """Return the version of this server."""
    return replies.json({"version": version("fakecloud"), "api": "v1"})


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=PlainTextResponse,
    responses=replies.refused(401),
)
async def metrics(request: Request, cloud: CloudParts) -> Response:
    """Return Prometheus metrics; without a token only where the server listens on loopback."""
    if not cloud.loopback_only:
        await caller(request, BEARER)
    # In a thread: costs are read from the database.
    text = await asyncio.to_thread(cloud.metrics.text)
    return Response(text, media_type="text/plain; version=0.0.4")


@router.get(
    "/problems/{code}",
    summary="What a problem means",
    response_class=HTMLResponse,
    responses=replies.ANY_PROBLEM | replies.refused(404),
)
async def problem(
    code: Annotated[str, Path(json_schema_extra={"enum": [*_CODES]})],
) -> Response:
    """Explain the code of a refusal, or of a failed operation, to people."""
    if code not in _CODES:
        raise errors.NotFound(f"there is no problem {code!r}; known: {', '.join(_CODES)}")
    return HTMLResponse(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{code}</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:40em;margin:3em auto;padding:0 1em}"
        "code{background:#eee;padding:.1em .3em}</style>" + "".join(_meanings(code))
    )


def _meanings(code: str) -> Iterator[str]:
    kind = _PROBLEMS.get(code)
    if kind is not None:
        again = "Trying again may help." if kind.retryable else "Trying again as it is won't help."
        yield (
            f"<h1>{html.escape(kind.title)}</h1><p><code>{code}</code>, HTTP {kind.status}</p>"
            f"<p>{html.escape(kind.__doc__ or '')}</p><p>{again}</p>"
        )
    if code in failures.MEANINGS:
        yield (
            f"<h1>A load balancer couldn't be put into effect</h1><p><code>{code}</code>, in "
            "<code>error</code> of the operation and <code>status.last_error</code></p>"
            f"<p>{html.escape(failures.MEANINGS[code])}</p>"
        )
