"""The stream of changes, as JSON lines or server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query
from fastapi.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from fakecloud import errors
from fakecloud.api import (
    addresses,
    certificates,
    instances,
    lists,
    networks,
    operations,
    replies,
    routes,
)
from fakecloud.api.context import CHECKED, Caller, Cloud, CloudParts, needs
from fakecloud.api.watch_views import View
from fakecloud.domain import filters
from fakecloud.watch.hub import Frame, Hub, Watcher, bookmark

router = APIRouter(
    tags=["watch"], dependencies=[*CHECKED, needs("watch")], responses=replies.ANY_PROBLEM
)

KINDS: Final = frozenset(
    {"load_balancer", "operation", "address", "certificate", "instance", "network", "route"}
)
_LISTED: Final = (
    lists.LOAD_BALANCERS,
    operations.KIND,
    addresses.KIND,
    certificates.KIND,
    instances.KIND,
    networks.KIND,
    routes.KIND,
)
_ROOTS: Final = tuple(dict.fromkeys(root for kind in _LISTED for root in kind.roots))
JSON_LINES: Final = "application/x-ndjson"
EVENT_STREAM: Final = "text/event-stream"


def _line(frame: Frame) -> str:
    return frame.text + "\n"


def _sse(frame: Frame) -> str:
    # Without an id a client that loses the connection inside the first snapshot resumes from
    # where it was before, instead of from one object's version, which would skip the others.
    id = f"id: {frame.resource_version}\n" if frame.resumable else ""
    return f"{id}event: {frame.type}\ndata: {frame.text}\n\n"


class _Stream(StreamingResponse):
    """A stream that gives back its subscription however it ends."""

    def __init__(self, content: AsyncIterator[str], media_type: str, held: ExitStack) -> None:
        super().__init__(
            content,
            media_type=media_type,
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)


@router.get(
    "/watch",
    summary="Stream every change",
    response_class=StreamingResponse,
    responses={
        200: {"content": {JSON_LINES: {}, EVENT_STREAM: {}}},
        **replies.refused(410),
    },
)
async def watch(
    cloud: CloudParts,
    caller: Caller,
    kinds: Annotated[str, Query(description="comma separated")] = "load_balancer,operation",
    since: Annotated[int | None, Query(ge=0, lt=1 << 63, description="a resource_version")] = None,
    initial: Annotated[bool, Query(description="begin with everything that exists")] = False,
    label_selector: lists.SelectorText = None,
    fields: lists.FieldsText = None,
    heartbeat: Annotated[
        str | None,
        Query(description="bookmarks at least that often", json_schema_extra=replies.TIME),
    ] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = JSON_LINES,
    last_event_id: Annotated[int | None, Header(ge=0, lt=1 << 63)] = None,
) -> StreamingResponse:
    """Stream every change after `since` (default: now), once and in order.

    Each line is {"type": ADDED|MODIFIED|DELETED|BOOKMARK|ERROR, "resource_version", "kind",
    "object"}. 410 when `since` is too old: list again, or watch with `initial=true`.

    With `label_selector` an object that begins to match comes as ADDED, and one that no longer
    does (or of which it isn't known whether it did) as DELETED. `fields` leaves id and name in.
    """
    heartbeat_s = max(replies.seconds(heartbeat, "heartbeat", 300) or 15.0, 0.1)
    if initial and since is not None:
        raise errors.InvalidParameter("give `since` or `initial=true`, not both")
    if last_event_id is not None:  # a client that lost the connection asks for the same URL again
        since, initial = last_event_id, False
    selector = filters.parse_selector(label_selector)
    view = View(selector, filters.parse_fields(fields, _ROOTS))
    most = await run_in_threadpool(_most, cloud, caller.project)
    held = ExitStack()
    with held:
        subscribed = cloud.hub.subscribed(caller.project, _kinds(kinds), since, most)
        watcher = held.enter_context(subscribed)
        first = await _first(cloud.hub, watcher, initial, since)
        as_events = EVENT_STREAM in accept
        frames = _frames(watcher, first, heartbeat_s, view, _sse if as_events else _line)
        return _Stream(frames, EVENT_STREAM if as_events else JSON_LINES, held.pop_all())


def _most(cloud: Cloud, project: str) -> int | None:
    """Return how many watches a project may hold, None: any number."""
    with cloud.database.read() as connection:
        return cloud.quotas.find(connection, project, "watches").limit


async def _first(hub: Hub, watcher: Watcher, initial: bool, start: int | None) -> list[Frame]:
    if initial:
        return await hub.snapshot(watcher)
    return [] if start is None else await hub.history(watcher, start)


async def _frames(
    watcher: Watcher,
    first: Iterable[Frame],
    heartbeat_s: float,
    view: View,
    text: Callable[[Frame], str],
) -> AsyncIterator[str]:
    def shown(batch: Iterable[Frame]) -> str:
        return "".join(text(seen) for frame in batch if (seen := view.show(frame)) is not None)

    loop = asyncio.get_running_loop()
    # An empty line says that the stream stands, before anything has happened.
    yield shown(first) or "\n"
    said = loop.time()
    async for batch in watcher.frames(heartbeat_s):
        lines = shown(batch)
        if not lines and loop.time() - said >= heartbeat_s:
            # Much happens and nothing of it is wanted: still say how far it is.
            lines = text(bookmark(batch[-1].resource_version))
        if lines:
            said = loop.time()
            yield lines


def _kinds(text: str) -> frozenset[str]:
    kinds = frozenset(text.split(","))
    if not kinds <= KINDS:
        unknown = ", ".join(sorted(kinds - KINDS))
        raise errors.InvalidParameter(f"kinds={unknown!r} is not among {', '.join(sorted(KINDS))}")
    return kinds
