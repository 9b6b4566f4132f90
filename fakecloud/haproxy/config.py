"""A load balancer as an HAProxy configuration: typed values in, text out.

Nothing that a user wrote is rendered. Sections and servers get generated names (f0, b0,
t10_0_0_1_30080), addresses and networks are parsed and written anew, numbers are checked for
their range, choices come from tables, and every single word passes `words.Word`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address, ip_network
from typing import Final, Literal

import msgspec

from fakecloud import errors, model
from fakecloud.haproxy import words

Kind = Literal["listener", "target_group", "target"]
DEFAULT_CONNECTIONS: Final = 2000
MAX_SECONDS: Final = 2_000_000  # HAProxy counts in 31 bits of milliseconds
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
    """Servers that share everything but their state and weight."""

    name: words.Word
    balance: words.Word
    connect_timeout_s: int
    idle_timeout_s: int
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


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All that a generation of HAProxy runs. No frontends: there is nothing to run."""

    frontends: tuple[Frontend, ...]
    backends: tuple[Backend, ...]
    source_ranges: tuple[words.Word, ...]
    max_connections: int
    drain_timeout_s: int

    def binds(self) -> frozenset[tuple[str, int]]:
        """Return every address and port that accepts connections."""
        return frozenset(bind for frontend in self.frontends for bind in frontend.binds)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two processes of one configuration.

    `ranges_file` and `spare_socket` are relative to the directory HAProxy is started in.
    """

    socket: words.Word
    ranges_file: words.Word
    spare_socket: words.Word | None = None
    run_as: tuple[int, int] | None = None


def build(desired: model.Desired, *, connections: int) -> Config:
    """Return the configuration of `desired`.

    connections: how many one process can hold (its file descriptors allow).
    Raises: Permanent "unsupported" for a wish that TCP load balancing doesn't cover,
    "config_invalid" for a value out of range; both name the field.
    """
    spec = desired.spec
    for refuse in (_refuse_listener, _refuse_group):
        refuse(spec)
    asked = sum(listener.max_connections or 0 for listener in spec.listeners)
    limit = min(connections, max(DEFAULT_CONNECTIONS, asked))
    backends = _backends(desired)
    return Config(
        frontends=tuple(_frontends(desired, backends, limit)) if spec.admin_up else (),
        backends=tuple(backends.values()),
        source_ranges=tuple(sorted({_network(value) for value in spec.source_ranges})),
        max_connections=limit,
        drain_timeout_s=max((g.drain_timeout_s for g in spec.target_groups), default=0),
    )


def probe_keys(spec: model.Spec) -> frozenset[model.ProbeKey]:
    """Return every probe whose result can change this load balancer."""
    keys = (model.probe_key(t, g.health_check) for g in spec.target_groups for t in g.targets)
    return frozenset(key for key in keys if key is not None)


def render(config: Config, place: Place) -> str:
    """Return the configuration file. The same arguments give the same bytes."""
    sections = [_global(config, place), _defaults()]
    sections += [_frontend(frontend, place) for frontend in config.frontends]
    sections += [_backend(backend) for backend in config.backends]
    return "\n".join(_section(section) for section in sections)


def render_ranges(config: Config) -> str:
    """Return the file of allowed networks, one a line; empty: nobody."""
    return "".join(f"{network}\n" for network in config.source_ranges)


def server_options(backend: Backend, server: Server) -> tuple[words.Word, ...]:
    """Return address and options of `server`, equal in the file and in `add server`."""
    options = words.line(server.address, "weight", server.weight)
    return (*options, backend.proxy_protocol) if backend.proxy_protocol else options


def _section(lines: Iterable[tuple[words.Word, ...]]) -> str:
    head, *body = lines
    return "".join([" ".join(head) + "\n", *("  " + " ".join(line) + "\n" for line in body)])


def _global(config: Config, place: Place) -> Iterator[tuple[words.Word, ...]]:
    line = words.line
    yield line("global")
    yield line("nbthread", 1)
    yield line("maxconn", config.max_connections)
    # Otherwise a second process on the same port would silently take part of the traffic.
    yield line("noreuseport")
    # Spares every process its own copy of the system's certificate authorities.
    yield line("httpclient.ssl.verify", "none")
    # The second one lies beside this file: a cleaned runtime directory doesn't take the control.
    spare = () if place.spare_socket is None else (f"unix@{place.spare_socket}",)
    for socket in (place.socket, *spare):
        options = ("mode", 600, "level", "admin", "expose-fd", "listeners")
        yield line("stats", "socket", socket, *options)
    yield line("hard-stop-after", "1h")
    if place.run_as is not None:
        uid, gid = place.run_as
        yield line("uid", uid)
        yield line("gid", gid)


def _defaults() -> Iterator[tuple[words.Word, ...]]:
    line = words.line
    yield line("defaults")
    yield line("mode", "tcp")
    yield line("no", "log")
    # Without it one connection in n waits out every retry on a target that died just now.
    yield line("option", "redispatch", 1)
    yield line("retries", 3)
    # Counts the bytes of connections that still live.
    yield line("option", "contstats")
    yield line("option", "clitcpka")
    yield line("option", "srvtcpka")
    yield line("timeout", "client-fin", "30s")
    yield line("timeout", "server-fin", "30s")


def _frontend(frontend: Frontend, place: Place) -> Iterator[tuple[words.Word, ...]]:
    line = words.line
    yield line("frontend", frontend.name)
    accept = ("accept-proxy",) if frontend.accept_proxy else ()
    for ip, port in frontend.binds:
        yield line("bind", endpoint(ip, port), *accept)
    yield line("maxconn", frontend.max_connections)
    yield line("timeout", "client", f"{frontend.idle_timeout_s}s")
    yield line("acl", "allowed", "src", "-f", place.ranges_file)
    # "connection" sees the peer; the address in a PROXY header is known from "session" on.
    layer = "session" if frontend.accept_proxy else "connection"
    yield line("tcp-request", layer, "reject", "unless", "allowed")
    yield line("default_backend", frontend.backend)


def _backend(backend: Backend) -> Iterator[tuple[words.Word, ...]]:
    line = words.line
    yield line("backend", backend.name)
    yield line("balance", backend.balance)
    if backend.balance == "source":
        # The map-based default can't take servers at run time and moves most clients.
        yield line("hash-type", "consistent")
    yield line("timeout", "connect", f"{backend.connect_timeout_s}s")
    yield line("timeout", "server", f"{backend.idle_timeout_s}s")
    if backend.affinity_s is not None:
        expire = f"{backend.affinity_s}s"
        yield line("stick-table", "type", "ipv6", "size", "50k", "expire", expire)
        yield line("stick", "on", "src")
    for server in backend.servers:
        state = () if server.ready else ("disabled",)
        yield line("server", server.name, *server_options(backend, server), *state)


def names(spec: model.Spec) -> dict[tuple[str, str], tuple[Kind, str]]:
    """Return what HAProxy's names mean: (proxy, server) to (kind, name), as in its statistics."""
    listeners = sorted(spec.listeners, key=lambda listener: listener.port)
    meaning: dict[tuple[str, str], tuple[Kind, str]] = {
        (f"f{index}", "FRONTEND"): ("listener", one.name) for index, one in enumerate(listeners)
    }
    groups = {group.name: group for group in spec.target_groups}
    used = sorted({(listener.target_group, listener.idle_timeout_s) for listener in listeners})
    for index, (name, _) in enumerate(used):
        meaning[f"b{index}", "BACKEND"] = ("target_group", name)
        for target in groups[name].targets:
            server = _server_name(_address(target.ip, "targets.ip"), target.port)
            meaning[f"b{index}", server] = ("target", f"{target.ip} port {target.port}")
    return meaning


def _server_name(ip: str, port: int) -> words.Word:
    return words.Word(f"t{ip.replace('.', '_').replace(':', '_')}_{port}")


def endpoint(ip: str, port: int) -> words.Word:
    """Return `ip` and `port` in HAProxy's notation; `ip` is a canonical address."""
    return words.Word(f"ipv6@{ip}:{port}" if ":" in ip else f"{ip}:{port}")


def _frontends(
    desired: model.Desired, backends: dict[tuple[str, int], Backend], limit: int
) -> Iterator[Frontend]:
    ips = sorted(_address(address.ip, "addresses") for address in desired.addresses)
    if not ips:
        return
    listeners = sorted(desired.spec.listeners, key=lambda listener: listener.port)
    for index, listener in enumerate(listeners):
        where = f"listeners[{listener.name!r}]"
        port = _number(listener.port, 1, 65535, f"{where}.port")
        wish = listener.max_connections or limit
        yield Frontend(
            name=words.Word(f"f{index}"),
            binds=tuple((ip, port) for ip in ips),
            max_connections=_number(wish, 1, 10_000_000, f"{where}.max_connections"),
            idle_timeout_s=_seconds(listener.idle_timeout_s, f"{where}.idle_timeout_s"),
            accept_proxy=listener.accept_proxy_protocol,
            backend=backends[listener.target_group, listener.idle_timeout_s].name,
        )


def _backends(desired: model.Desired) -> dict[tuple[str, int], Backend]:
    """Return one backend per target group and idle timeout in use: HAProxy has it there."""
    spec = desired.spec
    groups = {group.name: group for group in spec.target_groups}
    used = sorted({(listener.target_group, listener.idle_timeout_s) for listener in spec.listeners})
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
        affinity_s = _seconds(group.affinity.timeout_s, f"{where}.affinity.timeout_s")
    header = PROXY_PROTOCOL[group.send_proxy_protocol]
    return Backend(
        name=words.Word(f"b{index}"),
        balance=words.Word(ALGORITHMS[group.algorithm]),
        connect_timeout_s=_seconds(group.connect_timeout_s, f"{where}.connect_timeout_s"),
        idle_timeout_s=_seconds(idle_timeout_s, "idle_timeout_s"),
        affinity_s=affinity_s,
        proxy_protocol=words.Word(header) if header else None,
        servers=_servers(group, desired, where),
    )


def _servers(group: model.TargetGroup, desired: model.Desired, where: str) -> tuple[Server, ...]:
    serving = _serving(group, desired.down)
    weight_of = _weights(group, desired.weights)
    servers: dict[str, Server] = {}
    for target in group.targets:
        ip = _address(target.ip, f"{where}.targets.ip")
        port = _number(target.port, 1, 65535, f"{where}.targets.port")
        name = _server_name(ip, port)
        if name in servers:
            raise errors.Permanent("config_invalid", f"{where}.targets has {ip}:{port} twice")
        servers[name] = Server(
            name=name,
            address=endpoint(ip, port),
            weight=_number(weight_of(target), 0, 256, f"{where}.targets.weight"),
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
    ports = [listener.port for listener in spec.listeners]
    if len(set(ports)) < len(ports):
        raise errors.Permanent("config_invalid", "listeners has a port twice")
    groups = {group.name for group in spec.target_groups}
    for listener in spec.listeners:
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


def _address(value: str, where: str) -> str:
    try:
        ip = ip_address(value)
    except ValueError:
        raise errors.Permanent("config_invalid", f"{where} is not an IP address") from None
    if ip.version == 6 and ip.scope_id:
        raise errors.Permanent("config_invalid", f"{where} has a zone; leave it out")
    return str(ip)


def _network(value: str) -> words.Word:
    try:
        return words.Word(str(ip_network(value, strict=False)))
    except ValueError:
        raise errors.Permanent("config_invalid", "source_ranges has no network in it") from None


def _seconds(value: int, where: str) -> int:
    return _number(value, 1, MAX_SECONDS, where)


def _number(value: int, low: int, high: int, where: str) -> int:
    if not low <= value <= high:
        raise errors.Permanent("config_invalid", f"{where} must be between {low} and {high}")
    return value
