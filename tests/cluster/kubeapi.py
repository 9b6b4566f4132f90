"""The stand-ins' door to the API server: single requests, and a list that is kept up to date."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Protocol

import aiohttp
import msgspec

from tests.cluster import errors

Json = dict[str, Any]
MERGE_PATCH = "application/merge-patch+json"

_log = logging.getLogger("tests.cluster")
_REQUEST_TIMEOUT_S = 15.0
_CONNECT_TIMEOUT_S = 5.0
_WATCH_S = 300
_SILENCE_S = _WATCH_S + 30.0
_RETRY_S = 0.25
_CONNECTIONS = 32
_LARGEST_EVENT = 8 << 20


class ApiError(errors.ClusterError):
    """The API server refused a request; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Follower(Protocol):
    """Takes one kind's objects as they are and as they change. Must not block."""

    def replaced(self, objects: list[Json]) -> None:
        """These are all the objects there are (the first list, or one after a lost watch)."""

    def changed(self, event: str, item: Json) -> None:
        """`event` (ADDED, MODIFIED or DELETED) happened to `item`."""


class KubeApi:
    """An HTTP session with the API server; an async context manager."""

    def __init__(self, url: str, credentials: ssl.SSLContext) -> None:
        self._url = url
        self._credentials = credentials
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> KubeApi:
        connector = aiohttp.TCPConnector(ssl=self._credentials, limit=_CONNECTIONS)
        self._session = aiohttp.ClientSession(self._url, connector=connector)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> Json:
        """Return the answer to one request.

        Raises: ApiError for a status of 400 or more; aiohttp.ClientError or TimeoutError without
        an answer.
        """
        assert self._session is not None, "not entered"
        async with self._session.request(
            method,
            path,
            data=None if body is None else msgspec.json.encode(body),
            headers={"Content-Type": content_type},
            timeout=aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S),
        ) as response:
            content = await response.read()
        if response.status >= 400:
            raise ApiError(response.status, content.decode(errors="replace")[:500])
        parsed: Json = msgspec.json.decode(content)
        return parsed

    async def follow(self, path: str, follower: Follower) -> None:
        """Keep `follower` in step with the collection at `path`, for ever; heals by itself."""
        version = ""
        while True:
            try:
                if not version:
                    listed = await self.request("GET", path)
                    version = listed["metadata"]["resourceVersion"]
                    follower.replaced(listed["items"])
                async for event in self._watch(path, version):
                    item = event["object"]
                    if event["type"] == "ERROR":  # usually 410: the version is too old
                        version = ""
                        break
                    version = item["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        follower.changed(event["type"], item)
            except ApiError as error:
                _log.warning("%s: %s", path, error)
                version = ""
                await asyncio.sleep(_RETRY_S)
            except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as error:
                _log.info("%s: watch broke, goes on: %r", path, error)
                await asyncio.sleep(_RETRY_S)

    async def _watch(self, path: str, version: str) -> AsyncIterator[Json]:
        assert self._session is not None, "not entered"
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_S),
        }
        patience = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=_SILENCE_S
        )
        async with self._session.get(path, params=query, timeout=patience) as response:
            if response.status >= 400:
                raise ApiError(response.status, (await response.text())[:500])
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > _LARGEST_EVENT:
                    raise ApiError(response.status, "a watch event is larger than any object")
                for line in lines:
                    yield msgspec.json.decode(line)
