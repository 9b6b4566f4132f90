"""The only wiring: settings to database, data plane, loops, HTTP server, and down again."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pwd
import random
import resource
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Final

import structlog
from fastapi import FastAPI

from fakecloud import serving, tokens
from fakecloud.addresses import Pool, parse_pool
from fakecloud.api import application
from fakecloud.api.context import Cloud
from fakecloud.billing import books
from fakecloud.clock import Clock, SystemClock
from fakecloud.errors import StartError
from fakecloud.haproxy.dataplane import HaproxyDataPlane
from fakecloud.health import Health
from fakecloud.load_balancers import LoadBalancers
from fakecloud.loops import Loops, Nudge
from fakecloud.metrics import Metrics
from fakecloud.model import State
from fakecloud.netlink import InterfaceAddresses
from fakecloud.pools import PooledAddresses
from fakecloud.prober import Prober
from fakecloud.provisioner import Provisioner
from fakecloud.settings import Settings
from fakecloud.store import events, load_balancers, operations
from fakecloud.store.database import Database
from fakecloud.watch import Hub

log = structlog.get_logger()

POLL_S: Final = 1.0
HEALTH_SAVE_S: Final = 0.5
HOUSEKEEPING_S: Final = 60.0
KEEP_OPERATIONS: Final = timedelta(days=30)
PROBE_WAIT_S: Final = 0.05
"""An owner on the link answers within 1 ms; a free address costs this long at every create."""


def runtime_dir(settings: Settings) -> Path:
    """Return a short directory for sockets; remembered, so that a later server finds them again.

    It must not depend on who starts the server next: XDG_RUNTIME_DIR differs between a login
    shell and a service manager.
    """
    if settings.runtime_dir is not None:
        return settings.runtime_dir
    note = settings.state_dir / "runtime_dir"
    with suppress(OSError, ValueError):
        remembered = Path(note.read_text().strip())
        if remembered.is_absolute():
            return remembered
    digest = hashlib.sha256(str(settings.state_dir.resolve()).encode()).hexdigest()[:8]
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    chosen = Path(base) / f"fakecloud-{os.getuid()}-{digest}"
    with suppress(OSError):  # an unwritable state directory is told of elsewhere
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        note.write_text(f"{chosen}\n")
    return chosen


def haproxy_user(settings: Settings) -> tuple[int, int] | None:
    """Return who the HAProxy processes are: nobody for a server that is root, else ourselves.

    Raises: StartError.
    """
    if os.getuid() != 0:
        return None
    if settings.haproxy_user is None:
        nobody = pwd.getpwnam("nobody")
        return nobody.pw_uid, nobody.pw_gid
    uid, _, gid = settings.haproxy_user.partition(":")
    if not (uid.isdigit() and gid.isdigit()):
        raise StartError(f"--haproxy-user {settings.haproxy_user!r} is not UID:GID")
    return int(uid), int(gid)


def parse_pools(settings: Settings) -> list[Pool]:
    """Return the pools; a name may have one of each family. Raises: StartError."""
    pools = [parse_pool(text) for text in settings.pool]
    seen: set[tuple[str, str]] = set()
    for pool in pools:
        if (pool.name, pool.family) in seen:
            raise StartError(f"--pool {pool.name}: there are two with {pool.family} addresses")
        seen.add((pool.name, pool.family))
    return pools


@contextmanager
def running(settings: Settings, clock: Clock | None = None) -> Iterator[FastAPI]:
    """Run the whole cloud but the HTTP server; give the application to serve.

    Load balancers go on running afterwards. Raises: StartError.
    """
    clock = clock or SystemClock()
    with ExitStack() as stack:
        settings.address()
        book = books.load(settings.price_book)
        pools = parse_pools(settings)
        database = Database(settings.database_url)
        stack.callback(database.close)
        database.migrate()
        authority = tokens.Authority(database, clock)
        nudge = Nudge()
        dataplane = HaproxyDataPlane(
            settings.state_dir,
            runtime_dir(settings),
            clock,
            haproxy=settings.haproxy,
            run_as=haproxy_user(settings),
        )
        stack.callback(dataplane.close)
        # Not before the data plane has locked the state directory: a server that is refused
        # there must not have touched another's token.
        tokens.ensure_admin(authority, database, settings.admin_token_file)
        health = Health(database, dataplane, clock)
        prober = Prober(clock, health.on_change, rng=random.Random())
        health.connect(prober)
        addresses = PooledAddresses(
            pools,
            {
                pool.interface: InterfaceAddresses(pool.interface, clock, probe_wait_s=PROBE_WAIT_S)
                for pool in pools
                if pool.interface is not None
            },
        )
        provisioner = Provisioner(
            database,
            dataplane,
            addresses,
            health,
            clock,
            owner=socket.gethostname(),
            lease_s=settings.lease_s,
            rng=random.Random(),
        )
        hub = Hub(database, max_watches=settings.max_watches)
        metrics = Metrics()

        with database.read() as connection:
            living = load_balancers.living(connection)
        unreachable = addresses.restore(living)
        health.register(lb for lb in living if lb.was_active)
        adoption = dataplane.adopt({lb.id for lb in living})
        log.info(
            "data_plane_adopted",
            adopted=len(adoption.adopted),
            restarted=len(adoption.restarted),
            orphans_removed=len(adoption.orphans_removed),
        )
        here = (adoption.adopted | adoption.restarted) - unreachable
        provisioner.recover([lb for lb in living if lb.was_active and lb.id not in here])

        database.on_commit(nudge.give)
        database.on_commit(hub.notify)
        loops = Loops(clock, metrics)
        stack.callback(loops.join, 5.0)
        for number in range(settings.workers):
            loops.start(f"provisioner-{number}", _provision(provisioner, nudge, metrics))
        loops.start("health-dataplane", lambda: _ignore(health.tell_dataplane(POLL_S)))
        loops.start("health-store", lambda: _save_health(health, clock, loops.stop))
        loops.start(
            "housekeeping", lambda: _keep_house(database, settings, clock, metrics, loops.stop)
        )

        cloud = Cloud(
            database=database,
            load_balancers=LoadBalancers(database, pools, clock),
            hub=hub,
            authority=authority,
            price_book=book,
            metrics=metrics,
            clock=clock,
            loopback_only=not (settings.insecure_listen or settings.tls_cert),
        )

        @asynccontextmanager
        async def beside(_app: FastAPI) -> AsyncIterator[None]:
            tasks = [
                asyncio.create_task(_kept_up("watch", hub.run, metrics)),
                asyncio.create_task(_kept_up("prober", prober.run, metrics)),
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        yield application.create(cloud, beside)


async def _kept_up(
    name: str, run: Callable[[], Coroutine[None, None, None]], metrics: Metrics
) -> None:
    """Run `run` until cancelled, again after any failure: watches and probes live by it."""
    while True:
        try:
            await run()
        except Exception:
            log.exception("loop_failed", loop=name)
            metrics.loop_failures.labels(name).inc()
            await asyncio.sleep(POLL_S)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; load balancers go on running. Raises: StartError."""
    os.umask(0o077)  # nothing that we make is for others to read
    _raise_file_limit()
    check(settings)
    host, port = settings.address()
    with serving.listen(host, port) as listener, running(settings) as app:
        serving.server(
            app,
            app.state.cloud.hub,
            max_watches=settings.max_watches,
            cert=settings.tls_cert,
            key=settings.tls_key,
        ).run_on(listener)


def check(settings: Settings) -> None:
    """Look at every option before anything is touched. Raises: StartError that names it."""
    settings.address()
    parse_pools(settings)
    books.load(settings.price_book)
    haproxy_user(settings)
    if settings.tls_cert is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                settings.tls_cert, settings.tls_key
            )
        except (OSError, ssl.SSLError) as error:
            raise StartError(
                f"--tls-cert {settings.tls_cert}, --tls-key {settings.tls_key}: {error}"
            ) from None


def _raise_file_limit() -> None:
    """Every load balancer and every connection holds a descriptor; the usual 1024 are soon gone."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _provision(provisioner: Provisioner, nudge: Nudge, metrics: Metrics) -> Callable[[], None]:
    def turn() -> None:
        seen = nudge.count
        with metrics.step_seconds.time():
            worked = provisioner.step()
        if worked:
            metrics.steps.inc()
        else:
            nudge.wait(seen, POLL_S)

    return turn


def _ignore(_result: object) -> None:
    """Make a turn of a call that returns something."""


def _save_health(health: Health, clock: Clock, stop: Event) -> None:
    health.save()
    clock.wait(stop, HEALTH_SAVE_S)


def _keep_house(
    database: Database, settings: Settings, clock: Clock, metrics: Metrics, stop: Event
) -> None:
    """Forget old history; count what lives."""
    with database.write() as connection:
        events.trim(connection, settings.event_history)
        operations.forget(connection, clock.now() - KEEP_OPERATIONS)
    with database.read() as connection:
        counts = load_balancers.count_by_state(connection)
    for state in State:
        metrics.load_balancers.labels(state.value).set(counts.get(state, 0))
    clock.wait(stop, HOUSEKEEPING_S)
