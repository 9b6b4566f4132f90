"""Requests and streams to the API server.

kubernetes.aio gives configuration, authentication and TLS. Its typed lists, watches and leader
election are not used: they hang or spin on faults that this package has tests for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
import yaml
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import api_client, configuration

from ccm import clock as clocks
from ccm import errors, settings
from ccm import metrics as metrics_

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
JSON = "application/json"

READ_BUFFER_BYTES = 2**21
"""As the library has it: one event of a watch can be longer than aiohttp's own buffer."""

_EXEC_TOKEN_CHECK_S = 60
# What the loader raises for files whose parts have unexpected types.
_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError)


class _Status(msgspec.Struct):
    code: int = 0
    reason: str = ""
    message: str = ""


_status_decoder = msgspec.json.Decoder(_Status)


def api_error(
    http_status: int, body: bytes, headers: Mapping[str, str] | None = None
) -> errors.KubeError:
    """Return the error for a refused request; a body that isn't a Status is no obstacle."""
    try:
        status = _status_decoder.decode(body)
    except msgspec.MsgspecError:
        status = _Status(message=body[:200].decode("utf-8", "replace").strip())
    code = status.code or http_status
    wait = (headers or {}).get("Retry-After", "")
    retry_after_s = float(wait) if wait.isdigit() else None
    match code:
        case 404:
            kind: type[errors.KubeError] = errors.KubeNotFound
        case 409:
            kind = errors.KubeConflict
        case 410:
            kind = errors.KubeGone
        case _:
            kind = errors.KubeError
    return kind(code, status.reason, status.message, retry_after_s)


class Transport:
    """One connection pool to one API server. Close it at the end."""

    def __init__(
        self,
        config: configuration.Configuration,
        refresh: asyncio.Task[None] | None = None,
        metrics: metrics_.Metrics | None = None,
        clock: clocks.Clock | None = None,
    ) -> None:
        """refresh: keeps the credentials fresh; metrics, clock: None for a look that is not kept."""
        self._metrics = metrics or metrics_.Metrics()
        self._clock = clock or clocks.SystemClock()
        self._api = api_client.ApiClient(config)
        self._api.user_agent = settings.USER_AGENT
        # The library's own session reads ~/.netrc for each request, in a thread, and what it
        # finds there contradicts the token.
        rest = self._api.rest_client
        rest.proxy = config.proxy or _proxy_for(config.host)
        rest.pool_manager = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=config.connection_pool_maxsize, ssl=rest.ssl_context
            ),
            read_bufsize=READ_BUFFER_BYTES,
        )
        self._refresh = refresh
        self.url: str = config.host
        self._host = urlsplit(self.url).netloc

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
        timeout_s: float = 10.0,
    ) -> bytes:
        """Return the body of a successful answer.

        Raises: KubeError by status; KubeUnreachable if there is no whole answer in time.
        """
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(5.0, timeout_s))
        try:
            response = await self._call(method, path, params, body, content_type, timeout)
            data: bytes = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise errors.KubeUnreachable(f"{self.url}: {_why(error)}") from error
        if response.status >= 300:
            raise api_error(response.status, data, response.headers)
        return data

    @asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str], *, idle_s: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give the chunks of an endless answer; the body of the `with` reads them.

        idle_s: silence after which the connection counts as dead.
        Raises: KubeError by status; KubeUnreachable on any break, also while reading.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=idle_s)
        try:
            wrapped = await self._call("GET", path, params, None, JSON, timeout)
            response: aiohttp.ClientResponse = wrapped.response
            try:
                if response.status != 200:
                    raise api_error(response.status, await response.read(), response.headers)
                yield response.content.iter_any()
            finally:
                response.close()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise errors.KubeUnreachable(f"{self.url}: {_why(error)}") from error

    async def close(self) -> None:
        """Close the connections."""
        if self._refresh:
            self._refresh.cancel()
            await asyncio.gather(self._refresh, return_exceptions=True)
        await self._api.close()

    async def _call(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        content_type: str,
        timeout: aiohttp.ClientTimeout,
    ) -> Any:
        headers = {"Accept": JSON}
        if body is not None:
            headers["Content-Type"] = content_type
        # The body goes around it: what is sent is plain, and a look at each value takes time.
        method, url, headers, _, _ = await self._api.param_serialize(
            method,
            path,
            query_params=list((params or {}).items()),
            header_params=headers,
            auth_settings=["BearerToken"],
        )
        began, code = self._clock.monotonic(), "<error>"  # as client-go calls it
        try:
            response = await self._api.call_api(
                method, url, headers, body, _request_timeout=timeout
            )
            code = str(response.status)
            return response
        finally:
            self._metrics.rest_requests.labels(code, method, self._host).inc()
            took_s = self._clock.monotonic() - began
            self._metrics.rest_latency.labels(method, self._host).observe(took_s)


async def connect(
    kubeconfig: Path | None,
    metrics: metrics_.Metrics | None = None,
    clock: clocks.Clock | None = None,
) -> Transport:
    """Return a transport configured from `kubeconfig`, or from the pod's service account.

    Nothing is asked of the server yet. Raises: ConfigError if the configuration is unusable.
    """
    config = configuration.Configuration()
    config.connection_pool_maxsize = 64
    refresh: asyncio.Task[None] | None = None
    try:
        if kubeconfig is not None:
            _check_kubeconfig(kubeconfig)
            loader = await kube_config.load_kube_config(
                config_file=str(kubeconfig), client_configuration=config, persist_config=False
            )
            refresh = asyncio.create_task(
                kube_config.refresh_token(loader, config, _EXEC_TOKEN_CHECK_S)
            )
        elif "KUBERNETES_SERVICE_HOST" in os.environ:
            kube_config.load_incluster_config(client_configuration=config)
        else:
            raise errors.ConfigError("give --kubeconfig, or run inside a cluster")
        return Transport(config, refresh, metrics, clock)
    except (kube_config.ConfigException, OSError, *_MALFORMED) as error:
        if refresh:
            refresh.cancel()
        where = f"kubeconfig {kubeconfig}" if kubeconfig else "service account of the pod"
        raise errors.ConfigError(f"{where}: {_why(error)}") from error


def _proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for `url`, as client-go does."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


def _check_kubeconfig(file: Path) -> None:
    """Say what is wrong in plain words; the library's own are about its inside."""
    found = yaml.safe_load(file.read_text("utf-8"))
    if not isinstance(found, dict) or "clusters" not in found:
        raise errors.ConfigError(f"kubeconfig {file}: not a kubeconfig, it has no clusters")
    if not found.get("current-context"):
        raise errors.ConfigError(f"kubeconfig {file}: current-context is not set")


def _why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
