"""One pool of connections to the cloud: requests with a deadline, lists, and endless answers."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Final, Protocol, TypeVar

import aiohttp
import msgspec

from ccm import errors, settings
from ccm import metrics as metrics_
from ccm.cloud import answers

REQUEST_TIMEOUT_S: Final = 10.0
CONNECT_TIMEOUT_S: Final = 3.0
MAX_CONNECTIONS: Final = 64
MAX_PAGES: Final = 1000


class Page(Protocol):
    """A part of a list."""

    @property
    def next_page_token(self) -> str | None:
        """Return where the next one begins, None at the end."""


P = TypeVar("P", bound=Page)


class Connection:
    """Requests to one cloud, with a token. read: gives the token, again when the cloud says 401.

    ca_file: whom to trust for https, None: whom the system trusts. project: for an
    administrator's token, "" = the token's own.
    """

    def __init__(
        self,
        url: str,
        read: Callable[[], str],
        metrics: metrics_.Metrics,
        ca_file: Path | None = None,
        project: str = "",
    ) -> None:
        self._read = read
        self._token = read()
        self._requests = metrics.cloud_requests
        self._latency = metrics.cloud_latency
        self.url = url.rstrip("/")
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=_trust(ca_file)),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": settings.USER_AGENT, "Accept": "application/json"}
            | ({"X-Project": project} if project else {}),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def pages(self, path: str, decoder: msgspec.json.Decoder[P]) -> AsyncIterator[P]:
        """Yield the pages of a list. Raises: CloudError, also for a list without an end."""
        params: dict[str, str] = {}
        for _ in range(MAX_PAGES):
            body = answers.checked(await self.send("GET", path, params=params))
            page = answers.decode(decoder, body)
            yield page
            if not page.next_page_token:
                return
            params["page_token"] = page.next_page_token
        raise errors.CloudBusy("endless_list", f"{path}: more than {MAX_PAGES} pages")

    async def delete(self, path: str, fence: str = "") -> bool:
        """Delete what is there. Return False if nothing is. Raises: CloudError."""
        response = await self.send("DELETE", path, fence=fence)
        if answers.is_absent(response):
            return False
        answers.checked(response)
        return True

    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        fence: str = "",
    ) -> answers.Answer:
        """Return the answer, whatever it is. Raises: CloudUnreachable if there is none in time.

        What can be repeated is sent once more if the connection breaks before an answer: it may
        have been a kept one that the cloud had closed.
        """
        headers = {"Authorization": f"Bearer {self._token}"}
        if fence:
            headers["Fakecloud-Fence"] = fence
        if content is not None:
            headers["Content-Type"] = "application/json"
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            async with self._http.request(
                method,
                self._at(path),
                params=params,
                data=content,
                headers=headers,
                allow_redirects=False,
                timeout=_timeout(total=REQUEST_TIMEOUT_S),
            ) as response:
                answer = await _read(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._count(method, 0)
            raise errors.CloudUnreachable(f"{self.url}: {_why(error)}") from error
        self._count(method, answer.status)
        self._latency.labels(method).observe(loop.time() - began_s)
        self._on_status(answer.status)
        return answer

    async def stream(
        self, path: str, params: Mapping[str, str], *, idle_s: float
    ) -> AsyncIterator[bytes]:
        """Yield b"" once the cloud has agreed, then the chunks of an endless answer.

        idle_s: silence after which the connection counts as dead. Raises: CloudError.
        """
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/x-ndjson"}
        try:
            async with self._http.get(
                self._at(path),
                params=params,
                headers=headers,
                allow_redirects=False,
                timeout=_timeout(sock_read=idle_s),
            ) as response:
                self._count("WATCH", response.status)
                if response.status != 200:
                    self._on_status(response.status)
                    answers.checked(await _read(response))
                yield b""
                async for chunk in response.content.iter_any():
                    yield chunk
                    await asyncio.sleep(0)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise errors.CloudUnreachable(f"{self.url}: {_why(error)}") from error

    def _at(self, path: str) -> str:
        return f"{self.url}/v1{path}"

    def _on_status(self, status: int) -> None:
        if status != 401:
            return
        try:
            self._token = self._read()  # a rotated Secret
        except errors.ConfigError:
            return

    def _count(self, verb: str, status: int) -> None:
        self._requests.labels(verb, str(status) if status else "unreachable").inc()


def read_token(file: Path) -> str:
    """Return the token in `file`. Raises: ConfigError naming the file."""
    try:
        token = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise errors.ConfigError(f"--cloud-token-file {file}: {reason}") from error
    if not token:
        raise errors.ConfigError(f"--cloud-token-file {file}: the file is empty")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise errors.ConfigError(f"--cloud-token-file {file}: not a token, one line of ASCII")
    return token


def _trust(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise errors.ConfigError(f"--cloud-ca-file {ca_file}: {error}") from error


def _timeout(
    *, total: float | None = None, sock_read: float | None = None
) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total, sock_connect=CONNECT_TIMEOUT_S, sock_read=sock_read)


async def _read(response: aiohttp.ClientResponse) -> answers.Answer:
    retry_after = response.headers.get("Retry-After", "")
    return answers.Answer(response.status, await response.read(), retry_after)


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(
        error.os_error, ConnectionError
    ):
        return os.strerror(error.os_error.errno or 0)
    return " ".join(str(error).split()) or type(error).__name__
