"""The door to the cloud: HTTP requests with typed answers and errors, and the watch stream.

Every request has a deadline. Errors are RFC 9457 problems; an answer that isn't (a proxy's HTML)
is judged by its status. The cloud's `retryable` decides, where it is given.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import httpx2
import msgspec

from ccm import errors, settings, streams
from ccm import metrics as metrics_
from ccm.cloud import documents

REQUEST_TIMEOUT_S = 10.0
HEARTBEAT_S = 1
"""How often the cloud is asked to say something on the stream."""
STREAM_IDLE_S = 4.0
STALE_FENCE = "stale_fence"
"""Longer silence is a stalled stream: it is opened again, so that drift is repaired within 5 s."""
MAX_CONNECTIONS = 64
MAX_PAGES = 1000


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One line of the watch stream; type ADDED | MODIFIED | DELETED | BOOKMARK.

    OPEN, the first of each stream, is ours: the cloud has accepted the watch.
    """

    type: str
    resource_version: str | int = ""
    kind: str = ""
    object: msgspec.Raw = msgspec.Raw(b"null")

    def load_balancer(self) -> documents.LoadBalancer:
        """Return the load balancer that the frame carries. Raises: msgspec.MsgspecError."""
        return _load_balancer_decoder.decode(self.object)


class _Problem(msgspec.Struct):
    status: int = 0
    code: str | int = ""
    title: str = ""
    detail: str = ""
    retryable: bool | None = None
    retry_after_ms: float | None = None
    errors: tuple[_FieldError, ...] | None = None


class _FieldError(msgspec.Struct):
    pointer: str = ""
    message: str = ""


class _Page(msgspec.Struct):
    items: tuple[documents.LoadBalancer, ...] = ()
    next_page_token: str | None = None


class _RoutePage(msgspec.Struct):
    items: tuple[documents.Route, ...] = ()
    next_page_token: str | None = None


class _DetailStatus(msgspec.Struct):
    targets: tuple[documents.TargetHealth, ...] = ()
    operation: str = ""


class _Detail(msgspec.Struct):
    status: _DetailStatus


class _MadeToken(msgspec.Struct):
    secret: str | None


_made_token_decoder = msgspec.json.Decoder(_MadeToken)
_detail_decoder = msgspec.json.Decoder(_Detail)
_operation_decoder = msgspec.json.Decoder(documents.Operation)
_load_balancer_decoder = msgspec.json.Decoder(documents.LoadBalancer)
_problem_decoder = msgspec.json.Decoder(_Problem)
_instance_decoder = msgspec.json.Decoder(documents.Instance)
_page_decoder = msgspec.json.Decoder(_Page)
_route_decoder = msgspec.json.Decoder(documents.Route)
_route_page_decoder = msgspec.json.Decoder(_RoutePage)
_frame_decoder = msgspec.json.Decoder(Frame)
_encoder = msgspec.json.Encoder()

T = TypeVar("T")
P = TypeVar("P", _Page, _RoutePage)


class Client:
    """Requests to one cloud. read: gives the token, again when the cloud says 401.

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
        self._http = httpx2.AsyncClient(
            base_url=f"{self.url}/v1",
            headers={"User-Agent": settings.USER_AGENT, "Accept": "application/json"}
            | ({"X-Project": project} if project else {}),
            timeout=httpx2.Timeout(REQUEST_TIMEOUT_S, connect=3.0),
            limits=httpx2.Limits(
                max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS
            ),
            verify=_trust(self.url, ca_file),
            trust_env=False,
        )

    async def get(self, name: str) -> documents.LoadBalancer | None:
        """Return the load balancer, None if the cloud has none of that name."""
        response = await self._send("GET", _path(name))
        if _is_absent(response):
            return None
        return _decode(_load_balancer_decoder, _checked(response))

    async def inspect(self, name: str) -> documents.Inspection | None:
        """Return all that the cloud tells of a load balancer, None if there is none."""
        response = await self._send("GET", _path(name))
        if _is_absent(response):
            return None
        body = _checked(response)
        status = _decode(_detail_decoder, body).status
        operation = None
        if status.operation:
            answer = await self._send("GET", f"/operations/{quote(status.operation, safe='')}")
            if not _is_absent(answer):
                operation = _decode(_operation_decoder, _checked(answer))
        found = _decode(_load_balancer_decoder, body)
        return documents.Inspection(found, status.targets, operation)

    async def list(self) -> tuple[documents.LoadBalancer, ...]:
        """Return all load balancers of the project."""
        pages = self._pages("/load-balancers", _page_decoder)
        return tuple([one async for page in pages for one in page.items])

    async def routes(self) -> tuple[documents.Route, ...]:
        """Return all routes of the project."""
        pages = self._pages("/routes", _route_page_decoder)
        return tuple([one async for page in pages for one in page.items])

    async def put_network(
        self, name: str, ranges: Collection[str], labels: Mapping[str, str], fence: str = ""
    ) -> None:
        """Create the network, or change its ranges."""
        path = f"/networks/{quote(name, safe='')}"
        body = _encoder.encode({"ranges": list(ranges), "labels": labels})
        _checked(await self._send("PUT", path, content=body, fence=fence))

    async def delete_network(self, name: str) -> None:
        """Delete the network; none is fine."""
        await self._delete(f"/networks/{quote(name, safe='')}")

    async def put_route(
        self, name: str, document: documents.RouteDocument, fence: str = ""
    ) -> documents.Route:
        """Create the route or lead it elsewhere; return it as it is now, PENDING at first."""
        path = f"/routes/{quote(name, safe='')}"
        response = await self._send("PUT", path, content=_encoder.encode(document), fence=fence)
        return _decode(_route_decoder, _checked(response))

    async def delete_route(self, name: str, fence: str = "") -> None:
        """Delete the route; none is fine."""
        await self._delete(f"/routes/{quote(name, safe='')}", fence)

    async def put(
        self, name: str, document: documents.Document, fence: str = ""
    ) -> documents.LoadBalancer:
        """Ask for `document`; return the load balancer as it is now, usually not ACTIVE yet.

        fence: whose leadership this is written under; the cloud refuses an older one's writes.
        """
        content = _encoder.encode(document)
        response = await self._send("PUT", _path(name), content=content, fence=fence)
        return _decode(_load_balancer_decoder, _checked(response))

    async def delete(self, name: str, fence: str = "") -> bool:
        """Ask for deletion. Return False if there is nothing to delete any more."""
        return await self._delete(_path(name), fence)

    async def instance(self, name: str) -> documents.Instance | None:
        """Return the instance of that name or id; None only if the cloud says there is none.

        Whatever else goes wrong is a CloudError: that it can't be told must not look like "gone".
        """
        response = await self._send("GET", f"/instances/{quote(name, safe='')}")
        if _is_absent(response):
            return None
        return _decode(_instance_decoder, _checked(response))

    async def put_inventory(
        self, cluster_uid: str, services: Collection[str], lease_s: int, fence: str = ""
    ) -> None:
        """Say which Services a cluster has, by their UIDs, and for how long that is believed."""
        body = {"services": list(services), "lease_s": lease_s}
        path = f"/clusters/{quote(cluster_uid, safe='')}/inventory"
        content = _encoder.encode(body)
        _checked(await self._send("PUT", path, content=content, fence=fence))

    async def ensure_project(self, project: str) -> None:
        """Make the project if there is none; needs an administrator's token."""
        path = f"/projects/{quote(project, safe='')}"
        if not _is_absent(response := await self._send("GET", path)):
            _checked(response)
            return
        _checked(await self._send("POST", "/projects", content=_encoder.encode({"id": project})))

    async def make_token(self, description: str) -> str:
        """Return the secret of a new token with a controller's rights."""
        body = _encoder.encode({"scopes": ["ccm"], "description": description})
        answer = await self._send("POST", "/tokens", content=body)
        secret = _decode(_made_token_decoder, _checked(answer)).secret
        if secret is None:
            raise errors.CloudBusy("no_secret", "the cloud shows no secret of the new token")
        return secret

    async def watch(self, since: str | None, kinds: str = "load_balancer") -> AsyncIterator[Frame]:
        """Yield OPEN, then frames of `kinds` until the connection ends.

        since None: the present state first, as ADDED frames up to the first BOOKMARK.
        Raises: CloudWatchExpired if `since` is too old; CloudError.
        """
        params = {"kinds": kinds, "heartbeat": f"{HEARTBEAT_S}s"}
        params |= {"initial": "true"} if since is None else {"since": since}
        timeout = httpx2.Timeout(REQUEST_TIMEOUT_S, connect=3.0, read=STREAM_IDLE_S)
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/x-ndjson"}
        try:
            async with self._http.stream(
                "GET", "/watch", params=params, headers=headers, timeout=timeout
            ) as response:
                self._count("WATCH", response.status_code)
                if response.status_code != 200:
                    await response.aread()
                    self._on_status(response)
                    _checked(response)
                yield Frame("OPEN")
                splitter = streams.LineSplitter()
                async for chunk in response.aiter_bytes():
                    for line in splitter.feed(chunk):
                        yield _frame(line)
                    await asyncio.sleep(0)
        except (httpx2.TransportError, OSError) as error:
            raise errors.CloudUnreachable(f"{self.url}: {_why(error)}") from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _pages(self, path: str, decoder: msgspec.json.Decoder[P]) -> AsyncIterator[P]:
        """Yield the pages of a list. Raises: CloudError, also for a list without an end."""
        params: dict[str, str] = {}
        for _ in range(MAX_PAGES):
            page = _decode(decoder, _checked(await self._send("GET", path, params=params)))
            yield page
            if not page.next_page_token:
                return
            params["page_token"] = page.next_page_token
        raise errors.CloudBusy("endless_list", f"{path}: more than {MAX_PAGES} pages")

    async def _delete(self, path: str, fence: str = "") -> bool:
        response = await self._send("DELETE", path, fence=fence)
        if _is_absent(response):
            return False
        _checked(response)
        return True

    async def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        fence: str = "",
    ) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self._token}"}
        if fence:
            headers["Fakecloud-Fence"] = fence
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            # The library's timeouts are per read; a server that drips must not hold a worker.
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                response = await self._http.request(
                    method, path, params=params, content=content, headers=headers
                )
        except (httpx2.TransportError, OSError, TimeoutError) as error:
            self._count(method, 0)
            raise errors.CloudUnreachable(f"{self.url}: {_why(error)}") from error
        self._count(method, response.status_code)
        self._latency.labels(method).observe(response.elapsed.total_seconds())
        self._on_status(response)
        return response

    def _on_status(self, response: httpx2.Response) -> None:
        if response.status_code != 401:
            return
        try:
            self._token = self._read()  # a rotated Secret
        except errors.ConfigError:
            return

    def _count(self, verb: str, status: int) -> None:
        self._requests.labels(verb, str(status) if status else "unreachable").inc()


def _trust(url: str, ca_file: Path | None) -> ssl.SSLContext | bool:
    if not url.startswith("https://"):
        # Without TLS there is nothing to verify, and the system's certificates take 3 MB.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise errors.ConfigError(f"--cloud-ca-file {ca_file}: {error}") from error


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


def problem_error(status: int, body: bytes, retry_after: str = "") -> errors.CloudError:
    """Return the error that a refused request raises, whatever its body looks like."""
    problem = _problem(body)
    if problem is None:
        # Not the cloud's own words: a proxy in between, or a server that is not a cloud.
        problem = _Problem(detail=f"HTTP {status} without a readable explanation", retryable=True)
    code = str(problem.code) or f"http_{status}"
    message = problem.detail or problem.title or f"HTTP {status}"
    fields = [f"{one.pointer}: {one.message}" for one in problem.errors or ()]
    if more := [one for one in fields[:5] if one not in message]:
        message = f"{message} ({'; '.join(more)})"
    wait_s = float(retry_after) if retry_after.isdigit() else None
    if wait_s is None and problem.retry_after_ms is not None:
        wait_s = problem.retry_after_ms / 1000
    kind = errors.CloudFenced if code == STALE_FENCE else _error_kind(status, problem.retryable)
    return kind(code, message, wait_s)


def _problem(body: bytes) -> _Problem | None:
    try:
        problem: _Problem = _problem_decoder.decode(body)
    except msgspec.MsgspecError:
        return None
    return problem if problem.code else None


def _is_absent(response: httpx2.Response) -> bool:
    """Say whether the cloud itself says that there is no such load balancer.

    A 404 of anything else in between must not look like "gone": a Service would be released and
    its load balancer, and its bill, would stay.
    """
    if response.status_code != 404:
        return False
    problem = _problem(response.content)
    return problem is not None and problem.code == "not_found"


def _error_kind(status: int, retryable: bool | None) -> type[errors.CloudError]:
    if status == 401:
        return errors.CloudUnauthenticated
    if status == 410:
        return errors.CloudWatchExpired
    if status == 507:
        return errors.CloudExhausted
    if retryable is None:
        retryable = status >= 500 or status in (408, 425, 429)
    return errors.CloudBusy if retryable else errors.CloudRefused


def _checked(response: httpx2.Response) -> bytes:
    if response.status_code >= 300:
        raise problem_error(
            response.status_code, response.content, response.headers.get("Retry-After", "")
        )
    return response.content


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise errors.CloudBusy("unreadable_answer", f"the cloud's answer: {error}") from error


def _frame(line: bytes) -> Frame:
    frame: Frame = _decode(_frame_decoder, line)
    if frame.type == "ERROR":
        body = bytes(frame.object)
        try:
            problem = _problem_decoder.decode(body)
            status = problem.status or int(problem.code)
        except (msgspec.MsgspecError, ValueError):
            status = 500
        raise problem_error(status, body)
    return frame


def _path(name: str) -> str:
    return f"/load-balancers/{quote(name, safe='')}"


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        return "no answer in time"
    text = " ".join(str(error).split())
    return text or type(error).__name__
