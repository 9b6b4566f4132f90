"""What the settings mean on this host: directories, users, pools, and the data plane of them."""

from __future__ import annotations

import hashlib
import os
import pwd
import resource
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Final

import msgspec

from fakecloud import files
from fakecloud.billing import books
from fakecloud.billing.prices import PriceBook
from fakecloud.clock import Clock
from fakecloud.dataplane.host import HostDataPlane
from fakecloud.dataplane.isolation import IsolatingDataPlane
from fakecloud.domain import profiles, ranges
from fakecloud.domain.addresses import Pool, automatic, parse_pool
from fakecloud.errors import Problem, StartError
from fakecloud.haproxy import process
from fakecloud.haproxy.dataplane import HaproxyDataPlane
from fakecloud.network import host_ports, transparency
from fakecloud.network.netlink import InterfaceAddresses
from fakecloud.network.pools import PooledAddresses
from fakecloud.network.route_table import KernelRoutes
from fakecloud.settings import Settings

LEAST_DEAD_S: Final = 3.0
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


def settle(settings: Settings, clock: Clock) -> Settings:
    """Return the settings with a range for each pool that was to find its own.

    A range is remembered in the state directory and stays while it is part of the interface's
    network: the addresses in use are from it.
    Raises: StartError, also when an option can't be used.
    """
    check(settings)
    if not any(map(automatic, settings.pool)):
        return settings
    note = settings.state_dir / "pool-ranges.json"
    known: dict[str, str] = {}
    with suppress(OSError, msgspec.MsgspecError):
        known = msgspec.json.decode(note.read_bytes(), type=dict[str, str])
    settled: list[str] = []
    for text in settings.pool:
        found = automatic(text)
        settled += [text] if found is None else _ranges(*found, known, clock)
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    files.write(note, msgspec.json.encode(known), durable=True)
    return settings.model_copy(update={"pool": tuple(settled)})


def _ranges(name: str, interface: str, known: dict[str, str], clock: Clock) -> Iterator[str]:
    """Yield the pools of an interface as texts, and note their ranges."""
    door = InterfaceAddresses(interface, clock, probe_wait_s=PROBE_WAIT_S)
    own = {one.version: one for one in reversed(door.networks())}
    if not own:
        raise StartError(f"--pool {name}: {interface} has no address, so there is no range in it")
    for version in sorted(own):
        key = f"{name}@{interface}/{version}"
        remembered = None
        with suppress(KeyError, ValueError):
            remembered = ip_network(known[key])
        known[key] = str(ranges.choose(own[version], door.anybody_in, remembered))
        yield f"{name}=interface:{known[key]}@{interface}"


def published_ports(settings: Settings) -> range:
    """Return the host ports to give to listeners, none unless told. Raises: StartError."""
    if settings.host_ports is None:
        return range(0)
    if not all(one.kind == "interface" for one in parse_pools(settings)):
        raise StartError(
            "--host-ports is for a server in a container that publishes them, with an interface pool"
        )
    return host_ports.parse(settings.host_ports)


def parse_pools(settings: Settings) -> list[Pool]:
    """Return the pools; a name may have one of each family. Raises: StartError."""
    found = [automatic(text) for text in settings.pool]
    if any(found) and not settings.uses_sqlite:
        raise StartError(
            "--pool …:auto: hosts that share a PostgreSQL need one range; give its CIDR"
        )
    pools = [parse_pool(text) for text, own in zip(settings.pool, found, strict=True) if not own]
    shared = any(pool.interface for pool in pools) and not settings.uses_sqlite
    if shared and settings.dead_after_s < LEAST_DEAD_S:
        raise StartError(
            f"--host-dead-s {settings.dead_after_s:g}: an interface pool on several hosts needs at "
            f"least {LEAST_DEAD_S:g}, as the kernel takes addresses off by whole seconds"
        )
    seen: set[tuple[str, str]] = set()
    for pool in pools:
        if (pool.name, pool.family) in seen:
            raise StartError(f"--pool {pool.name}: there are two with {pool.family} addresses")
        seen.add((pool.name, pool.family))
    return pools


def route_table(pools: list[Pool], stack: ExitStack) -> KernelRoutes | None:
    """Return this host's table of routes; None without interface pools: nothing is behind it."""
    interfaces = {pool.interface for pool in pools if pool.interface is not None}
    if not interfaces:
        return None
    table = KernelRoutes(interfaces)
    stack.callback(table.close)
    return table


def price_book(settings: Settings) -> PriceBook:
    """Return the prices to charge by. Raises: StartError when there is no such book."""
    try:
        return books.load(settings.price_book)
    except Problem as error:
        raise StartError(f"--price-book: {error}") from None


def set_limits() -> None:
    """Let this process make files for itself alone, and hold as many as it may."""
    os.umask(0o077)
    # Every load balancer and every connection holds a descriptor; the usual 1024 are soon gone.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def check(settings: Settings) -> None:
    """Look at every option before anything is touched. Raises: StartError that names it."""
    settings.address()
    parse_pools(settings)
    published_ports(settings)
    price_book(settings)
    haproxy_user(settings)
    try:
        profiles.find(settings.profile)
    except profiles.UnknownProfile as error:
        raise StartError(f"--profile: {error}") from None
    if settings.tls_cert is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                settings.tls_cert, settings.tls_key
            )
        except (OSError, ssl.SSLError) as error:
            raise StartError(
                f"--tls-cert {settings.tls_cert}, --tls-key {settings.tls_key}: {error}"
            ) from None


def addresses(pools: list[Pool], clock: Clock) -> PooledAddresses:
    """Return what puts addresses on this host's interfaces. Raises: StartError."""
    names = {pool.interface for pool in pools if pool.interface is not None}
    doors = {
        name: InterfaceAddresses(name, clock, probe_wait_s=PROBE_WAIT_S) for name in sorted(names)
    }
    return PooledAddresses(pools, doors, clock)


def host_data_plane(
    settings: Settings,
    pools: list[Pool],
    clock: Clock,
    on_crash: Callable[[str], None] | None = None,
) -> HostDataPlane:
    """Return what runs load balancers as processes of this host. Raises: StartError."""
    user = haproxy_user(settings)
    if settings.transparent:
        _become_transparent(settings, pools, changes_user=user is not None)
    return HostDataPlane(
        *(settings.state_dir, runtime_dir(settings), clock),
        haproxy=settings.haproxy,
        run_as=user,
        on_crash=on_crash,
        transparent=settings.transparent,
    )


def data_plane(
    settings: Settings,
    pools: list[Pool],
    clock: Clock,
    on_crash: Callable[[str], None],
    stack: ExitStack,
) -> HostDataPlane | IsolatingDataPlane:
    """Return what runs load balancers; with containers if a pool asks for them. Raises: StartError."""
    host = host_data_plane(settings, pools, clock, on_crash)
    inside = [pool for pool in pools if pool.docker_network is not None]
    if not inside:
        return host
    sockets, user = runtime_dir(settings), haproxy_user(settings)
    # 0.1 s and 10 MB: paid only by a server that has a docker pool.
    from fakecloud.dataplane.containers import Containers, Engine

    with ExitStack() as undo:
        undo.callback(host.close)
        engine = Engine(settings.docker_socket)
        stack.callback(engine.close)
        state = settings.state_dir.resolve() / "containers"
        launcher = Containers(
            engine,
            clock,
            networks=[(pool.network, pool.docker_network or "") for pool in inside],
            image=settings.docker_image,
            state=state,
            runtime=sockets.absolute(),
            user=user,
        )
        contained = HaproxyDataPlane(
            *(state, sockets, clock), haproxy=launcher, run_as=user, on_crash=on_crash
        )
        undo.pop_all()
    return IsolatingDataPlane(host, contained, inside)


def _become_transparent(settings: Settings, pools: list[Pool], *, changes_user: bool) -> None:
    """Prepare this host for connections from clients' addresses. Raises: StartError."""
    interfaces = sorted({pool.interface for pool in pools if pool.interface is not None})
    haproxy = process.program_version(process.find_program(settings.haproxy))
    transparency.check(interfaces, haproxy, changes_user=changes_user)
    for interface in interfaces:
        transparency.take_answers(interface)
