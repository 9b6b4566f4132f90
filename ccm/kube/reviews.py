"""Delegated authentication and authorization: the API server says who asks, and what they may.

As k8s.io/apiserver's delegating options do: TokenReview, then SubjectAccessReview for the path.
Answers are kept for a short while, so that a scrape costs the API server nothing most times.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ccm import clock as clocks
from ccm import errors
from ccm.kube import transport as transports

KEEP_S: Final = 10.0
"""As upstream's caches of both reviews."""
MOST: Final = 1024
AT_ONCE: Final = 4
"""Reviews under way: somebody who guesses tokens keeps nobody else from the API server."""


class _User(msgspec.Struct, frozen=True):
    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, Any] = {}


class _TokenStatus(msgspec.Struct, frozen=True):
    authenticated: bool = False
    user: _User = _User()


class _TokenReview(msgspec.Struct, frozen=True):
    status: _TokenStatus = _TokenStatus()


class _AccessStatus(msgspec.Struct, frozen=True):
    allowed: bool = False


class _AccessReview(msgspec.Struct, frozen=True):
    status: _AccessStatus = _AccessStatus()


_token_decoder = msgspec.json.Decoder(_TokenReview)
_access_decoder = msgspec.json.Decoder(_AccessReview)


class Reviewer:
    """Asks the API server. Raises: KubeError when it can't say."""

    def __init__(
        self,
        transport: transports.Transport,
        clock: clocks.Clock,
        authorizer: transports.Transport | None = None,
    ) -> None:
        """transport: to who knows tokens; authorizer: to who knows rights, None: the same."""
        self._transport = transport
        self._authorizer = authorizer or transport
        self._clock = clock
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._known: OrderedDict[bytes, tuple[float, int]] = OrderedDict()

    async def status(self, token: str, path: str) -> int:
        """Return 200 if the token's owner may GET `path`, 403 if not, 401 for a strange token."""
        key = hashlib.sha256(f"{path}\0{token}".encode("utf-8", "replace")).digest()
        now = self._clock.monotonic()
        until, known = self._known.get(key, (0.0, 0))
        if now < until:
            return known
        async with self._slots:
            found = await self._ask(token, path)
        self._known[key] = (now + KEEP_S, found)
        self._known.move_to_end(key)
        while len(self._known) > MOST:
            self._known.popitem(last=False)
        return found

    async def _ask(self, token: str, path: str) -> int:
        status = (await self._token(token)).status
        if not status.authenticated:
            return 401
        return 200 if await self._may(status.user, path) else 403

    async def _token(self, token: str) -> _TokenReview:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "metadata": {},
            "spec": {"token": token},
        }
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        answer = await _post(self._transport, path, body)
        found: _TokenReview = _decode(_token_decoder, answer)
        return found

    async def _may(self, user: _User, path: str) -> bool:
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": {
                "nonResourceAttributes": {"path": path, "verb": "get"},
                "user": user.username,
                "uid": user.uid,
                "groups": list(user.groups),
                "extra": user.extra,
            },
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        answer = await _post(self._authorizer, path, body)
        found: _AccessReview = _decode(_access_decoder, answer)
        return found.status.allowed


async def _post(transport: transports.Transport, path: str, body: Mapping[str, Any]) -> bytes:
    return await transport.request("POST", path, body=body, timeout_s=5.0)


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise errors.KubeUnreachable(f"a review's answer: {error}") from error
