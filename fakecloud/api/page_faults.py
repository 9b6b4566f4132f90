"""Pages of a list that overlap or leave a gap, as where things move while somebody pages."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope

from fakecloud.api import tampering


async def answer(app: ASGIApp, scope: Scope, receive: Receive, kind: str) -> tuple[Message, bytes]:
    """Return a page whose `next_page_token` leads to the wrong place.

    dup_page: to the second half of this page, so that it is seen twice. skip_page: to the page
    after the next. What is no list, the last page, and for dup_page one of a single item stay.
    """
    start, body = await tampering.whole(app, scope, receive)
    page = _page(start, body)
    if page is None or page["next_page_token"] is None:
        return start, body
    if kind == "skip_page":
        other = await _ask(app, scope, page_token=page["next_page_token"])
    elif len(page["items"]) > 1:
        other = await _ask(app, scope, page_size=str(len(page["items"]) // 2))
    else:
        other = None
    if other is None:
        return start, body
    body = msgspec.json.encode(page | {"next_page_token": other["next_page_token"]})
    return tampering.with_header(start, b"content-length", str(len(body)).encode()), body


async def _ask(app: ASGIApp, scope: Scope, **parameters: str) -> dict[str, Any] | None:
    """Return another page of the same list, None if there is none."""
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"))) | parameters
    again = {**scope, "query_string": urlencode(query).encode(), "state": dict(scope["state"])}
    return _page(*await tampering.whole(app, again, _nothing))


async def _nothing() -> Message:
    """Receive the end of an empty body."""
    return {"type": "http.request", "body": b"", "more_body": False}


def _page(start: Message, body: bytes) -> dict[str, Any] | None:
    if start.get("status") != 200 or not body:
        return None
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    is_page = isinstance(document, dict) and {"items", "next_page_token"} <= document.keys()
    return document if is_page else None
