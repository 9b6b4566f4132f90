"""The secure port: health for everybody, metrics for this machine and for who may read them.

Paths as other controller managers have them: /healthz and /livez (is the process sound),
/readyz (is it of use), each with ?verbose and ?exclude=; /metrics and /metrics/slis; /configz.
From a loopback address nothing more is asked; else paths that aren't always allowed need a
bearer token whose owner may GET them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec
import structlog
from aiohttp import web

from ccm import errors
from ccm import metrics as metrics_
from ccm import settings as settings_

Check = Callable[[], str]
"""Returns what is wrong, "" if nothing is."""

CERTIFICATE_TIMEOUT_S = 30.0
CONFIG_GROUP: Final = "cloudcontrollermanager.config.k8s.io"
"""Under which upstream's controller managers show their configuration."""

_log = structlog.get_logger()


class Access(Protocol):
    """Says who may read what."""

    async def status(self, token: str, path: str) -> int:
        """Return 200, 401 or 403. Raises: KubeError when that can't be told."""


class Server:
    """Answers on the secure port from start() to stop()."""

    def __init__(
        self,
        settings: settings_.Settings,
        metrics: metrics_.Metrics,
        live: Mapping[str, Check],
        ready: Mapping[str, Check],
        access: Access,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._live = live
        self._ready = ready
        self._access = access
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen, if a port is set. Raises: ConfigError if that is impossible."""
        settings = self._settings
        if not settings.secure_port:
            return
        app = web.Application(client_max_size=1024, middlewares=[self._guard])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/livez", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._scrape)
        app.router.add_get("/metrics/slis", self._scrape_slis)
        app.router.add_get("/configz", self._configz)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        context = await _tls_context(settings)
        site = web.TCPSite(
            self._runner, settings.bind_address, settings.secure_port, ssl_context=context
        )
        try:
            await site.start()
        except OSError as error:
            raise errors.ConfigError(
                f"cannot listen on {settings.bind_address}:{settings.secure_port}: "
                f"{error.strerror or error}; choose another --secure-port, or 0 for none"
            ) from error

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path in self._settings.always_allow_paths or _is_loopback(request.remote):
            return await handler(request)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return _refused(401, "send the header 'Authorization: Bearer TOKEN'")
        try:
            status = await self._access.status(token.strip(), request.path)
        except errors.KubeError as error:
            _log.warning("access_not_reviewed", path=request.path, error=str(error))
            return _refused(503, "the API server can't say now who may read this")
        if status != 200:
            return _refused(status, "this token is not valid, or may not get this path")
        return await handler(request)

    async def _healthz(self, request: web.Request) -> web.Response:
        return self._report(self._live, request)

    async def _readyz(self, request: web.Request) -> web.Response:
        return self._report({**self._live, **self._ready}, request)

    async def _scrape(self, request: web.Request) -> web.Response:
        return _exposition(self._metrics.render())

    async def _scrape_slis(self, request: web.Request) -> web.Response:
        return _exposition(self._metrics.render_slis())

    async def _configz(self, request: web.Request) -> web.Response:
        """Answer what this process was told; the settings name files of secrets, never a secret."""
        body = msgspec.json.encode({CONFIG_GROUP: self._settings}, enc_hook=str)
        return web.Response(body=body, content_type="application/json")

    def _report(self, checks: Mapping[str, Check], request: web.Request) -> web.Response:
        left_out = set(request.query.getall("exclude", []))
        wrong = {name: check() for name, check in checks.items() if name not in left_out}
        kind = request.path.strip("/")
        for name, why in wrong.items():
            self._metrics.health.labels(name, kind).set(0 if why else 1)
            status = "error" if why else "success"
            self._metrics.health_checks.labels(name, kind, status).inc()
        is_well = not any(wrong.values())
        if is_well and "verbose" not in request.query:
            return web.Response(text="ok")
        body = "".join(
            f"[-]{name} failed: {why}\n" if why else f"[+]{name} ok\n"
            for name, why in wrong.items()
        )
        return web.Response(status=200 if is_well else 500, text=body)


def _refused(status: int, why: str) -> web.Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return web.Response(status=status, text=f"{why}\n", headers=headers)


def _exposition(body: bytes) -> web.Response:
    headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    return web.Response(body=body, headers=headers)


def _is_loopback(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False


async def _tls_context(settings: settings_.Settings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if settings.tls_cert_file and settings.tls_key_file:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
            return context
        # The ssl module reads certificates from files only.
        with tempfile.TemporaryDirectory(prefix="fakecloud-ccm-") as folder:
            file = Path(folder, "tls.pem")
            file.touch(mode=0o600)
            file.write_bytes(await _self_signed())
            context.load_cert_chain(file)
    except (OSError, TimeoutError, ssl.SSLError) as error:
        raise errors.ConfigError(f"certificate of the secure port: {error}") from error
    return context


async def _self_signed() -> bytes:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ccm.certificate", stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(CERTIFICATE_TIMEOUT_S):
            pem, _ = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
        raise
    return pem
