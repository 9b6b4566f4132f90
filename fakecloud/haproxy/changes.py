"""What to tell a running HAProxy so that it becomes another configuration, if that can be told.

Servers (added, removed, state, weight), allowed networks, limits of connections, rules and the
content of certificates change at run time and lose no connection. Everything else takes a new
generation of the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from fakecloud.haproxy import config, targets, values, words

# `srv_admin_state` of `show servers state`: forced, inherited and by-the-file maintenance,
# forced and inherited drain. Source: HAProxy management guide, section 9.3.
MOST_TOLD_BYTES: Final = 15_000
"""A command and what belongs to it must fit HAProxy's buffer of 16 KiB."""
_NOT_READY: Final = 0x01 | 0x02 | 0x08 | 0x10 | 0x20


class Swap(msgspec.Struct, frozen=True):
    """A new generation is needed; `reason` names the part that differs."""

    reason: str


class RuntimeChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Changes for the runtime interface; falsy when there are none.

    settle: let clients through who wait for what the predecessor remembered.
    """

    added: tuple[tuple[config.Backend, targets.Server], ...] = ()
    removed: tuple[tuple[config.Backend, targets.Server], ...] = ()
    changed: tuple[tuple[config.Backend, targets.Server, targets.Server], ...] = ()
    limits: tuple[config.Frontend, ...] = ()
    routes: tuple[config.Frontend, ...] = ()
    certificates: tuple[config.Certificate, ...] = ()
    source_ranges: tuple[words.Word, ...] | None = None
    settle: bool = False

    def __bool__(self) -> bool:
        """Return whether anything differs."""
        return self != RuntimeChanges()

    def beyond_commands(self) -> bool:
        """Return whether it takes more than `commands`, or a connection of their own."""
        lists = self.source_ranges is not None or self.settle
        return bool(self.limits or self.routes or self.certificates or lists)


def diff(old: config.Config, new: config.Config) -> RuntimeChanges | Swap:
    """Return how to get from `old` to `new`."""
    reason = _needs_a_process(old, new)
    if reason is not None:
        return Swap(reason)
    ports = list(zip(old.frontends, new.frontends, strict=True))
    added, removed, changed = [], [], []
    for before, after in zip(old.backends, new.backends, strict=True):
        had = {server.name: server for server in before.servers}
        wants = {server.name: server for server in after.servers}
        added += [(after, wants[name]) for name in wants if name not in had]
        removed += [(after, had[name]) for name in had if name not in wants]
        changed += [
            (after, had[name], wants[name])
            for name in wants
            if name in had and had[name] != wants[name]
        ]
    return RuntimeChanges(
        added=tuple(added),
        removed=tuple(removed),
        changed=tuple(changed),
        limits=tuple(b for a, b in ports if a.max_connections != b.max_connections),
        routes=tuple(b for a, b in ports if a.routes != b.routes),
        certificates=tuple(
            after
            for before, after in zip(old.certificates, new.certificates, strict=True)
            if before.fingerprint != after.fingerprint
        ),
        source_ranges=new.source_ranges if old.source_ranges != new.source_ranges else None,
        settle=new.settled and not old.settled,
    )


class Observation(Protocol):
    """What a process says it has.

    servers: `show servers state`, one mapping per server; ranges: the entries of `show acl`;
    limits: connections by frontend; routes: keys and values by frontend; fingerprints: by
    certificate.
    """

    @property
    def servers(self) -> list[Mapping[str, str]]:
        """Return the servers."""

    @property
    def ranges(self) -> list[str]:
        """Return the allowed networks."""

    @property
    def limits(self) -> dict[str, int]:
        """Return the limits."""

    @property
    def settled(self) -> bool:
        """Return whether clients are remembered."""

    @property
    def routes(self) -> Mapping[str, list[tuple[str, str]]]:
        """Return the rules."""

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Return what certificates are known by."""


def observed(assumed: config.Config, seen: Observation) -> config.Config:
    """Return `assumed` with what `seen` tells."""
    found: dict[str, list[targets.Server]] = {}
    for row in seen.servers:
        server = targets.Server(
            name=words.Word(row["srv_name"]),
            address=values.endpoint(row["srv_addr"], int(row["srv_port"])),
            weight=int(row["srv_uweight"]),
            ready=not int(row["srv_admin_state"]) & _NOT_READY,
        )
        found.setdefault(row["be_name"], []).append(server)
    backends = tuple(
        msgspec.structs.replace(
            backend,
            servers=tuple(sorted(found.get(backend.name, ()), key=lambda server: server.name)),
        )
        for backend in assumed.backends
    )
    frontends = tuple(
        msgspec.structs.replace(
            one,
            max_connections=seen.limits.get(one.name, 0),
            routes=tuple(
                sorted((words.MapKey(k), words.Word(v)) for k, v in seen.routes.get(one.name, ()))
            ),
        )
        for one in assumed.frontends
    )
    certificates = tuple(
        _certificate(one, seen.fingerprints.get(one.name, "")) for one in assumed.certificates
    )
    return msgspec.structs.replace(
        assumed,
        frontends=frontends,
        backends=backends,
        certificates=certificates,
        source_ranges=tuple(sorted(words.Word(network) for network in seen.ranges)),
        settled=seen.settled,
    )


def commands(changes: RuntimeChanges) -> list[words.Line]:
    """Return the commands for servers and limits of `changes`, in order.

    A removed server goes into maintenance first and is deleted if nothing uses it; else the
    deletion is refused and has to be asked again later.
    """
    told: list[words.Line] = []
    for backend, server in changes.added:
        options = config.server_options(backend, server)
        told.append((*words.line("add", "server", server_id(backend, server)), *options))
    # HAProxy 2.6 makes no cookie for a server that is added, until it is told to make them.
    for name in sorted({backend.name for backend, _ in changes.added if backend.cookie}):
        told.append(words.line("enable", "dynamic-cookie", "backend", name))
    told += [state(backend, one, ready=True) for backend, one in changes.added if one.ready]
    for backend, before, after in changes.changed:
        if before.weight != after.weight:
            name = server_id(backend, after)
            told.append(words.line("set", "server", name, "weight", after.weight))
        if before.ready != after.ready:
            told.append(state(backend, after, ready=after.ready))
    for backend, server in changes.removed:
        told.append(state(backend, server, ready=False))
        told.append(delete(backend, server))
    for frontend in changes.limits:
        limit = frontend.max_connections
        told.append(words.line("set", "maxconn", "frontend", frontend.name, limit))
    return told


def server_id(backend: config.Backend, server: targets.Server) -> words.Word:
    """Return how commands name a server."""
    return words.Word(f"{backend.name}/{server.name}")


def state(backend: config.Backend, server: targets.Server, *, ready: bool) -> words.Line:
    """Return the command that lets a server take new connections, or none."""
    wish = "ready" if ready else "maint"
    return words.line("set", "server", server_id(backend, server), "state", wish)


def delete(backend: config.Backend, server: targets.Server) -> words.Line:
    """Return the command that forgets a server; refused while connections use it."""
    return words.line("del", "server", server_id(backend, server))


def cut(backend: config.Backend, server: targets.Server) -> words.Line:
    """Return the command that ends every connection to a server."""
    return words.line("shutdown", "sessions", "server", server_id(backend, server))


def _renewable(old: tuple[config.Certificate, ...], new: tuple[config.Certificate, ...]) -> bool:
    """Return whether a process can be told to use `new`: it tells no more than fingerprints."""
    if [one.name for one in old] != [one.name for one in new]:
        return False
    return all(
        len(after.pem or "") <= MOST_TOLD_BYTES
        if before.fingerprint != after.fingerprint
        else before.pem in (None, after.pem)
        for before, after in zip(old, new, strict=True)
    )


def _certificate(assumed: config.Certificate, fingerprint: str) -> config.Certificate:
    if fingerprint == assumed.fingerprint:
        return assumed
    return msgspec.structs.replace(assumed, pem=None, fingerprint=fingerprint)


def _needs_a_process(old: config.Config, new: config.Config) -> str | None:
    """Return the first thing that can't be told to a running process."""
    if [_still(one) for one in old.frontends] != [_still(one) for one in new.frontends]:
        return "frontends"
    pairs = zip(old.frontends, new.frontends, strict=True)
    # A listener whose limit is reached and then raised hangs HAProxy 2.6 for good (2.6.12, seen).
    raised = any(after.max_connections > before.max_connections for before, after in pairs)
    shapes = [[_shape(backend) for backend in of.backends] for of in (old, new)]
    # HAProxy takes no server at run time that is reached through a proxy.
    spoiled = any(backend.through and _more(old, backend) for backend in new.backends)
    differs = {
        "max_connections of a listener": raised,
        "max_connections": old.max_connections != new.max_connections,
        "fault": spoiled or old.disturbance != new.disturbance,
        "backends": shapes[0] != shapes[1],
        "certificates": not _renewable(old.certificates, new.certificates),
    }
    return next((reason for reason, found in differs.items() if found), None)


def _more(old: config.Config, backend: config.Backend) -> bool:
    """Return whether `backend` has a server that it didn't have."""
    had = {
        server.name for one in old.backends if one.name == backend.name for server in one.servers
    }
    return any(server.name not in had for server in backend.servers)


def _shape(backend: config.Backend) -> config.Backend:
    return msgspec.structs.replace(backend, servers=(), drain_timeout_s=0)


def _still(frontend: config.Frontend) -> config.Frontend:
    """Return `frontend` as far as it takes a new process to change it."""
    some = ((words.MapKey("*/"), frontend.backend),)
    return msgspec.structs.replace(
        frontend, max_connections=0, routes=some if frontend.routes else ()
    )
