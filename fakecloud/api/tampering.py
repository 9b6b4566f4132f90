"""What faults do to answers: bodies that lie or are broken, and streams that stall or repeat."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fakecloud.api import envelope, problems, reordering
from fakecloud.api.context import Cloud
from fakecloud.clock import rfc3339
from fakecloud.domain.faults import Facts, Hit
from fakecloud.errors import Unavailable, WatchExpired
from fakecloud.store import events
from fakecloud.store.database import Connection, Database
from fakecloud.watch import hub as watch

OF_READS: Final = frozenset({"stale_read", "omit_from_list"})
"""What only changes the answers to reads that succeeded."""


async def change(
    database: Database, project: str, hit: Hit, start: Message, body: bytes
) -> tuple[Message, bytes]:
    """Return the answer as the fault makes it; one that has no body stays as it is."""
    kind = hit.action.type
    if not body:
        return start, body
    if kind == "wrong_content_type":
        return with_header(start, b"content-type", b"text/html; charset=utf-8"), body
    if kind == "malformed_json":
        body = body[:-1] + b",}"
    elif kind == "omit_from_list":
        body = _without_some(body, hit)
    elif kind == "stale_read":
        body = await asyncio.to_thread(_older, database, project, hit.action.versions or 1, body)
        start = _without_header(start, b"etag")
    return with_header(start, b"content-length", str(len(body)).encode()), body


def with_members(answer: Response, changes: dict[str, Any]) -> Response:
    """Return a problem with some members changed, status and Retry-After with them."""
    document = msgspec.json.decode(bytes(answer.body)) | changes
    headers = {
        k: v for k, v in answer.headers.items() if k not in ("content-length", "retry-after")
    }
    if document["status"] == 401:
        headers["www-authenticate"] = "Bearer"
    if document["retry_after_ms"] is not None:
        headers["retry-after"] = str(document["retry_after_ms"] // 1000)
    return Response(msgspec.json.encode(document), document["status"], headers)


async def whole(app: ASGIApp, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
    """Return the start and the body of what the handlers answer."""
    start: Message = {}
    chunks: list[bytes] = []

    async def keep(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        else:
            chunks.append(message.get("body", b""))

    await app(scope, receive, keep)
    return start, b"".join(chunks)


def with_skewed_time(message: Message, skew_s: float) -> Message:
    """Return an answer's start with a Fakecloud-Time that is wrong by so many seconds."""
    if message["type"] != "http.response.start":
        return message
    name = b"fakecloud-time"
    true = next((value for known, value in message["headers"] if known == name), None)
    if true is None:
        return message
    wrong = datetime.fromisoformat(true.decode()) + timedelta(seconds=skew_s)
    return with_header(message, name, rfc3339(wrong).encode())


def _without_some(body: bytes, hit: Hit) -> bytes:
    document = msgspec.json.decode(body)
    if not isinstance(document, dict) or not isinstance(document.get("items"), list):
        return body
    share = 1.0 if hit.action.probability is None else hit.action.probability
    document["items"] = [
        item
        for number, item in enumerate(document["items"])
        if hit.draw(str(item.get("name", number))) >= share
    ]
    return msgspec.json.encode(document)


def _older(database: Database, project: str, versions: int, body: bytes) -> bytes:
    """Return the body with each object as it was so many changes ago; new ones aren't in lists."""
    document = msgspec.json.decode(body)
    if not isinstance(document, dict):
        return body
    with database.read() as connection:
        if isinstance(document.get("items"), list):
            before = (_before(connection, project, versions, one) for one in document["items"])
            document["items"] = [one for one in before if one is not None]
            return msgspec.json.encode(document)
        return msgspec.json.encode(_before(connection, project, versions, document) or document)


def _before(
    connection: Connection, project: str, versions: int, document: dict[str, Any]
) -> dict[str, Any] | None:
    status = document.get("status")
    id = status.get("id") if isinstance(status, dict) else document.get("id")
    held = status if isinstance(status, dict) else document
    version = held.get("resource_version")
    if id is None or not str(version).isdecimal():
        return document
    text = events.earlier(connection, project, str(id), int(str(version)), versions)
    return None if text is None else msgspec.json.decode(text)


def with_header(start: Message, name: bytes, value: bytes) -> Message:
    """Return the start of an answer with a header in the place of any of that name."""
    others = _without_header(start, name)["headers"]
    return {**start, "headers": [*others, (name, value)]}


def _without_header(start: Message, name: bytes) -> Message:
    return {**start, "headers": [pair for pair in start["headers"] if pair[0].lower() != name]}


class Cut(Protocol):
    """Ends a connection."""

    async def now(self) -> None:
        """Reset it."""


class _Ended(Exception):
    """The fault has ended the stream; the handler is to stop."""


class Stream:
    """A watch under faults. Each rule looks at it once: at the start, or when it is made later.

    A hit lasts until the stream or the rule ends.
    """

    def __init__(self, cloud: Cloud, facts: Facts, request_id: str, send: Send, cut: Cut) -> None:
        self._cloud = cloud
        self._chaos = cloud.chaos
        self._facts = facts
        self._request_id = request_id
        self._send = send
        self._cut = cut
        self._looked: set[str] = set()
        self._version = -1
        self._hit: Hit | None = None
        self._held: Message | None = None
        self._sent = 0
        self._streams = False
        self._since_hit = 0
        self._back: list[bytes] = []  # frames that wait for others to overtake them

    async def run(self, app: Callable[[Send], Awaitable[None]]) -> None:
        """Let `app` answer through the faults."""
        try:
            await app(self._out)
        except* _Ended:
            pass

    async def _out(self, message: Message) -> None:
        await self._look()
        if message["type"] == "http.response.start":
            self._held = message  # until the first frames say whether the status stays
            return
        if self._held is not None:
            start, self._held = self._held, None
            if self._ends_before(start):
                await self._refuse()
            self._streams = start["status"] == 200
            await self._send(self._marked(start))
        body = message.get("body", b"")
        more = message.get("more_body", False)
        if self._hit is not None and self._streams:
            body = await self._disturbed(body, self._hit)
        elif self._back:
            body = b"".join(self._back) + body
            self._back = []
        self._sent += 1
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _look(self) -> None:
        if self._hit is not None and not self._chaos.lives(self._hit.rule_id):
            self._hit = None
        if self._hit is not None or self._version == self._chaos.version:
            return
        self._version = self._chaos.version
        for rule in self._chaos.candidates(self._facts):
            if rule.id in self._looked:
                continue
            self._looked.add(rule.id)
            try:
                self._hit = await asyncio.to_thread(self._chaos.try_rule, rule, self._request_id)
            except Unavailable:
                return
            if self._hit is not None:
                self._since_hit = 0
                return

    def _ends_before(self, start: Message) -> bool:
        hit = self._hit
        if hit is None or start["status"] != 200:
            return False
        return hit.action.type == "expire" and not hit.action.after_n

    async def _refuse(self) -> None:
        """Answer 410 in place of a stream."""
        assert self._hit is not None
        answer = problems.response(
            WatchExpired(f"fault {self._hit.rule_id} was injected; list again"), self._request_id
        )
        mark = (b"x-fault-injected", self._hit.rule_id.encode())
        headers = [*answer.raw_headers, mark, *envelope.always(self._cloud)]
        await self._send(
            {"type": "http.response.start", "status": answer.status_code, "headers": headers}
        )
        await self._send({"type": "http.response.body", "body": bytes(answer.body)})
        raise _Ended

    def _marked(self, start: Message) -> Message:
        if self._hit is None:
            return start
        mark = (b"x-fault-injected", self._hit.rule_id.encode())
        return {**start, "headers": [*start["headers"], mark]}

    async def _disturbed(self, body: bytes, hit: Hit) -> bytes:
        """Return what is sent in place of `body`: whole frames, as the handler gave them."""
        action = hit.action
        if action.type == "delay":
            await asyncio.sleep(hit.seconds())
            return body
        end = b"\n\n" if b"\ndata: " in body or body.startswith((b"id: ", b"event: ")) else b"\n"
        frames = [frame for frame in body.split(end) if frame.strip()]
        if action.type == "duplicate":
            return b"".join(frame + end for frame in frames for _ in range(2)) or body
        if action.type == "no_bookmarks":
            kept = [frame for frame in frames if not _is_bookmark(frame)]
            return b"".join(frame + end for frame in kept) or (b"" if self._sent else b"\n")
        if action.type == "reorder_across_objects":
            out, back = reordering.turn([*self._back, *(frame + end for frame in frames)], hit)
            self._back = back
            return b"".join(out) or (b"" if self._sent else b"\n")
        return await self._ended(action.type, action.after_n or 0, frames, end)

    async def _ended(self, kind: str, after_n: int, frames: list[bytes], end: bytes) -> bytes:
        """Send frames up to the limit of the fault, then disconnect, expire or fall silent."""
        kept: list[bytes] = []
        for frame in frames:
            if self._since_hit >= after_n:
                break
            kept.append(frame)
            self._since_hit += not _is_bookmark(frame)
        body = b"".join(frame + end for frame in kept)
        if len(kept) == len(frames) and self._since_hit < after_n:
            return body or b"\n"
        if kind == "silent_stall":
            return body
        if body:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
        if kind == "disconnect":
            await self._cut.now()
        else:
            line = watch.expired(0).text.encode()
            line = b"event: ERROR\ndata: " + line if end == b"\n\n" else line
            await self._send({"type": "http.response.body", "body": line + end})
        raise _Ended


def _is_bookmark(frame: bytes) -> bool:
    return b'{"type":"BOOKMARK"' in frame
