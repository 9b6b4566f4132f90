"""Successful answers, encoded once, and the shapes that several endpoints share."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec
from fastapi import Query
from pydantic import JsonValue
from starlette.responses import Response

from fakecloud import errors
from fakecloud.domain import documents
from fakecloud.model import LoadBalancer, Operation

LONGEST_RETRY_S: Final = 15

T = TypeVar("T", int, str)
_KEYS: dict[type, Any] = {
    int: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)],
    str: Annotated[str, msgspec.Meta(pattern="^[a-z0-9_-]{1,63}$")],
}

TIME: Final[dict[str, JsonValue]] = {"pattern": r"^\d{1,4}(\.\d{1,3})?s?$"}
"""What `seconds` takes, for the description."""

PageSize = Annotated[int, Query(ge=1, le=1000, description="items in one page")]
PageToken = Annotated[
    str | None, Query(max_length=200, description="next_page_token of the last page")
]

ANY_PROBLEM: dict[int | str, dict[str, Any]] = {
    "default": {"$ref": "#/components/responses/Problem"}
}


def refused(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that also refuses with these statuses.

    `description` adds those that follow from the route's shape: token, parameters, body.
    """
    return {one: {"$ref": f"#/components/responses/Problem{one}"} for one in statuses}


def json(
    content: object, status_code: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return a JSON response."""
    return Response(
        msgspec.json.encode(content), status_code, headers, media_type="application/json"
    )


def load_balancer(lb: LoadBalancer, status_code: int = 200) -> Response:
    """Return a load balancer with its entity tag and, while work is under way, where to look."""
    headers = {"etag": documents.etag(lb)}
    if status_code in (201, 202):
        headers["location"] = f"/v1/load-balancers/{lb.name}"
        headers["operation-location"] = f"/v1/operations/{lb.operation}"
        headers["retry-after"] = str(_retry_after(lb))
    return json(documents.load_balancer(lb), status_code, headers)


def _retry_after(lb: LoadBalancer) -> int:
    """Return half of the time that it will take, in whole seconds from 1 to 15."""
    if lb.ready_at is None:
        return 1
    return max(1, min(int((lb.ready_at - lb.asked_at).total_seconds() / 2), LONGEST_RETRY_S))


def operation(op: Operation, status_code: int = 200) -> Response:
    """Return an operation, with its place when it has only been accepted."""
    headers = {}
    if status_code == 202:
        headers = {"operation-location": f"/v1/operations/{op.id}", "retry-after": "1"}
    return json(documents.operation(op), status_code, headers)


def page(items: list[Any], next_key: object, resource_version: int) -> Response:
    """Return one page of a list."""
    token = None if next_key is None else encode_token(next_key)
    return json(
        {"items": items, "next_page_token": token, "resource_version": str(resource_version)}
    )


def batch(asked: Iterable[str], found: Mapping[str, Any], resource_version: int) -> Response:
    """Return the documents that were found, in the order asked for, and what is missing."""
    once = list(dict.fromkeys(asked))
    return json(
        {
            "items": [found[key] for key in once if key in found],
            "missing": [key for key in once if key not in found],
            "resource_version": str(resource_version),
        }
    )


def encode_token(key: object) -> str:
    """Return an opaque page token for a row key."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def decode_token(token: str | None, first: T) -> T:
    """Return the row key of a page token. Raises: InvalidPageToken."""
    if token is None:
        return first
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)
        key: T = msgspec.json.decode(raw, type=_KEYS[type(first)])
    except (ValueError, msgspec.MsgspecError):
        raise errors.InvalidPageToken(
            "page_token is not one that this list gave out; start without it"
        ) from None
    return key


def seconds(text: str | None, name: str, most: float) -> float:
    """Return the seconds of `25s` or `25`, 0 for None. Raises: InvalidParameter."""
    if text is None:
        return 0.0
    match = re.fullmatch(r"(\d{1,4}(?:\.\d{1,3})?)s?", text)
    if match is None or float(match[1]) > most:
        raise errors.InvalidParameter(f"{name}={text!r} is not a time such as 25s, at most {most}s")
    return float(match[1])
