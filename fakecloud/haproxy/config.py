"""A desired load balancer as a typed HAProxy configuration; `rendering` makes text of it.

Nothing that a user wrote is rendered. Sections and servers get generated names (f0, b0,
t10_0_0_1_30080), addresses and networks are parsed and written anew, numbers are checked for
their range, choices come from tables, and every single word passes `words.Word`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from fakecloud import errors, model, tally
from fakecloud.haproxy import values, words

DEFAULT_CONNECTIONS: Final = 2000
ALGORITHMS: Final = {
    "round_robin": "roundrobin",
    "least_connections": "leastconn",
    "source_hash": "source",
}
PROXY_PROTOCOL: Final = {"none": None, "v1": "send-proxy", "v2": "send-proxy-v2"}


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A target. `ready` False: HAProxy's maintenance state, no new connection, old ones live."""

    name: words.Word
    address: words.Word
    weight: int
    ready: bool


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """Servers that share everything but their state and weight.

    group: the target group, under the customer's name: never rendered, it tells which backends
    of two configurations mean the same. drain_timeout_s: so long may connections outlive their
    server's readiness; that is kept by us, HAProxy doesn't know it.
    """

    name: words.Word
    group: str
    balance: words.Word
    connect_timeout_s: int
    idle_timeout_s: int
    drain_timeout_s: int
    affinity_s: int | None
    proxy_protocol: words.Word | None
    servers: tuple[Server, ...]


class Frontend(msgspec.Struct, frozen=True, kw_only=True):
    """A port on every address of the load balancer."""

    name: words.Word
    binds: tuple[tuple[str, int], ...]
    max_connections: int
    idle_timeout_s: int
    accept_proxy: bool
    backend: words.Word

    def endpoints(self) -> list[words.Word]:
        """Return every address and port in HAProxy's notation."""
        return [values.endpoint(ip, port) for ip, port in self.binds]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All that a generation of HAProxy runs. No frontends: there is nothing to run.

    settled: False while the process waits for what its predecessor remembers of clients.
    """

    frontends: tuple[Frontend, ...]
    backends: tuple[Backend, ...]
    source_ranges: tuple[words.Word, ...]
    max_connections: int
    drain_timeout_s: int
    settled: bool = True

    def remembers(self) -> bool:
        """Return whether any backend remembers which client uses which server."""
        return any(backend.affinity_s is not None for backend in self.backends)

    def binds(self) -> frozenset[tuple[str, int]]:
        """Return every address and port that accepts connections."""
        return frozenset(bind for frontend in self.frontends for bind in frontend.binds)


def build(desired: model.Desired, *, connections: int) -> Config:
    """Return the configuration of `desired`.

    connections: how many one process can hold (its file descriptors allow).
    Raises: Permanent "unsupported" for a wish that TCP load balancing doesn't cover,
    "config_invalid" for a value out of range; both name the field.
    """
    spec = desired.spec
    for refuse in (_refuse_listener, _refuse_group):
        refuse(spec)
    asked = sum(listener.max_connections or 0 for listener in _listeners(spec))
    limit = min(connections, max(DEFAULT_CONNECTIONS, asked))
    backends = _backends(desired)
    return Config(
        frontends=tuple(_frontends(desired, backends, limit)) if spec.admin_up else (),
        backends=tuple(backends.values()),
        source_ranges=tuple(sorted({values.network(value) for value in spec.source_ranges})),
        max_connections=limit,
        drain_timeout_s=max((g.drain_timeout_s for g in spec.target_groups), default=0),
    )


def probe_keys(spec: model.Spec) -> frozenset[model.ProbeKey]:
    """Return every probe whose result can change this load balancer."""
    keys = (model.probe_key(t, g.health_check) for g in spec.target_groups for t in g.targets)
    return frozenset(key for key in keys if key is not None)


def server_options(backend: Backend, server: Server) -> tuple[words.Word, ...]:
    """Return address and options of `server`, equal in the file and in `add server`."""
    options = words.line(server.address, "weight", server.weight)
    return (*options, backend.proxy_protocol) if backend.proxy_protocol else options


def names(spec: model.Spec) -> dict[tuple[str, str], tuple[tally.Kind, str]]:
    """Return what HAProxy's names mean: (proxy, server) to (kind, name), as in its statistics."""
    listeners = _listeners(spec)
    meaning: dict[tuple[str, str], tuple[tally.Kind, str]] = {
        (f"f{index}", "FRONTEND"): ("listener", one.name) for index, one in enumerate(listeners)
    }
    groups = {group.name: group for group in spec.target_groups}
    used = sorted({(listener.target_group, listener.idle_timeout_s) for listener in listeners})
    for index, (name, _) in enumerate(used):
        meaning[f"b{index}", "BACKEND"] = ("target_group", name)
        for target in groups[name].targets:
            server = values.server_name(values.address(target.ip, "targets.ip"), target.port)
            meaning[f"b{index}", server] = ("target", f"{target.ip} port {target.port}")
    return meaning


def _listeners(spec: model.Spec) -> list[model.Listener]:
    """Return the listeners that are HAProxy's: UDP is somebody else's."""
    ours = (listener for listener in spec.listeners if listener.protocol != "udp")
    return sorted(ours, key=lambda listener: listener.port)


def _frontends(
    desired: model.Desired, backends: dict[tuple[str, int], Backend], limit: int
) -> Iterator[Frontend]:
    ips = sorted(values.address(address.ip, "addresses") for address in desired.addresses)
    if not ips:
        return
    for index, listener in enumerate(_listeners(desired.spec)):
        where = f"listeners[{listener.name!r}]"
        port = values.number(listener.port, 1, 65535, f"{where}.port")
        wish = listener.max_connections or limit
        yield Frontend(
            name=words.Word(f"f{index}"),
            binds=tuple((ip, port) for ip in ips),
            max_connections=values.number(wish, 1, 10_000_000, f"{where}.max_connections"),
            idle_timeout_s=values.seconds(listener.idle_timeout_s, f"{where}.idle_timeout_s"),
            accept_proxy=listener.accept_proxy_protocol,
            backend=backends[listener.target_group, listener.idle_timeout_s].name,
        )


def _backends(desired: model.Desired) -> dict[tuple[str, int], Backend]:
    """Return one backend per target group and idle timeout in use: HAProxy has it there."""
    spec = desired.spec
    groups = {group.name: group for group in spec.target_groups}
    listeners = _listeners(spec)
    used = sorted({(listener.target_group, listener.idle_timeout_s) for listener in listeners})
    return {
        (name, idle_timeout_s): _group(index, groups[name], idle_timeout_s, desired)
        for index, (name, idle_timeout_s) in enumerate(used)
    }


def _group(
    index: int, group: model.TargetGroup, idle_timeout_s: int, desired: model.Desired
) -> Backend:
    where = f"target_groups[{group.name!r}]"
    affinity_s = None
    if group.affinity.kind == "client_ip":
        affinity_s = values.seconds(group.affinity.timeout_s, f"{where}.affinity.timeout_s")
    header = PROXY_PROTOCOL[group.send_proxy_protocol]
    return Backend(
        name=words.Word(f"b{index}"),
        group=group.name,
        balance=words.Word(ALGORITHMS[group.algorithm]),
        connect_timeout_s=values.seconds(group.connect_timeout_s, f"{where}.connect_timeout_s"),
        idle_timeout_s=values.seconds(idle_timeout_s, "idle_timeout_s"),
        drain_timeout_s=values.number(
            group.drain_timeout_s, 0, values.MAX_SECONDS, f"{where}.drain_timeout_s"
        ),
        affinity_s=affinity_s,
        proxy_protocol=words.Word(header) if header else None,
        servers=_servers(group, desired, where),
    )


def _servers(group: model.TargetGroup, desired: model.Desired, where: str) -> tuple[Server, ...]:
    serving = _serving(group, desired.down)
    weight_of = _weights(group, desired.weights)
    servers: dict[str, Server] = {}
    for target in group.targets:
        ip = values.address(target.ip, f"{where}.targets.ip")
        port = values.number(target.port, 1, 65535, f"{where}.targets.port")
        name = values.server_name(ip, port)
        if name in servers:
            raise errors.Permanent("config_invalid", f"{where}.targets has {ip}:{port} twice")
        servers[name] = Server(
            name=name,
            address=values.endpoint(ip, port),
            weight=values.number(weight_of(target), 0, 256, f"{where}.targets.weight"),
            ready=serving(target),
        )
    return tuple(servers[name] for name in sorted(servers))


def _weights(
    group: model.TargetGroup, weights: frozenset[model.ProbeWeight]
) -> Callable[[model.Target], int]:
    """Return what weight each target has: its own word, where the group asks for it."""
    if group.weights_from == "none":
        return lambda target: target.weight
    said = {one.key: one.weight for one in weights}

    def weight_of(target: model.Target) -> int:
        key = model.probe_key(target, group.health_check)
        return target.weight if key is None else said.get(key, target.weight)

    return weight_of


def _serving(
    group: model.TargetGroup, down: frozenset[model.ProbeKey]
) -> Callable[[model.Target], bool]:
    """Return who takes new connections: not draining, and probed well unless all fail open."""

    def healthy(target: model.Target) -> bool:
        return model.probe_key(target, group.health_check) not in down

    eligible = [target for target in group.targets if not target.drain]
    open_anyway = group.fail_open and not any(healthy(target) for target in eligible)
    return lambda target: not target.drain and (open_anyway or healthy(target))


def _refuse_listener(spec: model.Spec) -> None:
    ports = [listener.port for listener in _listeners(spec)]
    if len(set(ports)) < len(ports):
        raise errors.Permanent("config_invalid", "listeners has a port twice")
    groups = {group.name for group in spec.target_groups}
    for listener in _listeners(spec):
        where = f"listeners[{listener.name!r}]"
        refused = {
            "protocol": listener.protocol != "tcp",
            "tls": listener.tls is not None,
            "routes": bool(listener.routes),
            "redirect_https": listener.redirect_https,
        }
        _refuse(where, refused)
        if listener.target_group not in groups:
            raise errors.Permanent(
                "config_invalid", f"{where}.target_group names no group of target_groups"
            )


def _refuse_group(spec: model.Spec) -> None:
    for group in spec.target_groups:
        refused = {
            "affinity.kind": group.affinity.kind == "cookie",
            "preserve_client_ip": group.preserve_client_ip,
        }
        _refuse(f"target_groups[{group.name!r}]", refused)


def _refuse(where: str, refused: dict[str, bool]) -> None:
    for field, wished in refused.items():
        if wished:
            raise errors.Permanent(
                "unsupported", f"{where}.{field}: not offered by this data plane; leave it out"
            )
