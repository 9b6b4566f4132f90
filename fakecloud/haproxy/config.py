"""A desired load balancer as a typed HAProxy configuration; `rendering` makes text of it.

Nothing that a user wrote is rendered. Sections and servers get generated names (f0, b0,
t10_0_0_1_30080), addresses and networks are parsed and written anew, numbers are checked for
their range, choices come from tables, and every single word passes `words.Word`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from hashlib import blake2s
from typing import Final, Literal

import msgspec

from fakecloud import errors, model
from fakecloud.domain import fields, rules, tally
from fakecloud.domain.disturbances import Disturbance
from fakecloud.haproxy import targets, values, words

Mode = Literal["tcp", "http"]
Use = tuple[str, int, Mode, bool]
"""What has a backend of its own: a target group with an idle timeout in a mode, and whether its
cookie is for https alone."""
DEFAULT_CONNECTIONS: Final = 2000
ALGORITHMS: Final = {
    "round_robin": "roundrobin",
    "least_connections": "leastconn",
    "source_hash": "source",
}
TLS_VERSIONS: Final = {"1.2": "TLSv1.2", "1.3": "TLSv1.3"}
PROXY_PROTOCOL: Final = {"none": None, "v1": "send-proxy", "v2": "send-proxy-v2"}


class Cookie(msgspec.Struct, frozen=True, kw_only=True):
    """Clients return by a cookie for `timeout_s`; `key` makes it tell nothing of the server.

    secure: clients send it over https only.
    """

    timeout_s: int
    key: words.Word
    secure: bool = False


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """Servers that share everything but their state and weight.

    group: the target group, under the customer's name: never rendered, it tells which backends
    of two configurations mean the same. drain_timeout_s: so long may connections outlive their
    server's readiness; that is kept by us, HAProxy doesn't know it. source: servers see the
    client's address, and this is "any" of its family. through: a SOCKS4 proxy, which knows IPv4 only,
    on the way to them.
    """

    name: words.Word
    group: str
    mode: Mode
    balance: words.Word
    connect_timeout_s: int
    idle_timeout_s: int
    drain_timeout_s: int
    affinity_s: int | None
    cookie: Cookie | None
    proxy_protocol: words.Word | None
    servers: tuple[targets.Server, ...]
    source: words.Word | None = None
    through: words.Word | None = None


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate chain and its key under a name of ours.

    fingerprint: SHA-1 of the certificate in capital hexadecimal, as HAProxy tells it. pem None:
    all that is known of what a process has is its fingerprint.
    """

    name: words.Word
    pem: words.Pem | None
    fingerprint: str


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """TLS ends here. The first of `certificates` is for clients that name no known host."""

    certificates: tuple[words.Word, ...]
    min_version: words.Word


class Frontend(msgspec.Struct, frozen=True, kw_only=True):
    """A port on every address of the load balancer.

    routes: backend by host and path; everything else goes to `backend`. redirect_port: where
    clients are sent instead.
    """

    name: words.Word
    mode: Mode
    binds: tuple[tuple[str, int], ...]
    max_connections: int
    idle_timeout_s: int
    accept_proxy: bool
    backend: words.Word
    tls: Tls | None = None
    routes: tuple[tuple[words.MapKey, words.Word], ...] = ()
    redirect_port: int | None = None

    def endpoints(self) -> list[words.Word]:
        """Return every address and port in HAProxy's notation."""
        return [values.endpoint(ip, port) for ip, port in self.binds]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All that a generation of HAProxy runs. No frontends: there is nothing to run.

    settled: False while the process waits for what its predecessor remembers of clients.
    disturbance: faults that somebody asked for.
    """

    frontends: tuple[Frontend, ...]
    backends: tuple[Backend, ...]
    certificates: tuple[Certificate, ...]
    source_ranges: tuple[words.Word, ...]
    max_connections: int
    drain_timeout_s: int
    settled: bool = True
    disturbance: Disturbance = Disturbance()

    def remembers(self) -> bool:
        """Return whether any backend remembers which client uses which server."""
        return any(backend.affinity_s is not None for backend in self.backends)

    def is_transparent(self) -> bool:
        """Return whether any backend connects from the client's address."""
        return any(backend.source is not None for backend in self.backends)

    def binds(self) -> frozenset[tuple[str, int]]:
        """Return every address and port that accepts connections."""
        return frozenset(bind for frontend in self.frontends for bind in frontend.binds)


def build(desired: model.Desired, *, connections: int, transparent: bool = False) -> Config:
    """Return the configuration of `desired`.

    connections: how many one process can hold (its file descriptors allow). transparent: it may
    connect from its clients' addresses.
    Raises: Permanent "unsupported" for a wish that HAProxy doesn't cover here, "config_invalid"
    for a value out of range or a certificate that isn't there; each names the field.
    """
    spec = desired.spec
    for wrong in (*rules.mistakes(spec), *([] if transparent else rules.opaque(spec))):
        code = "unsupported" if wrong.code == "unsupported" else "config_invalid"
        raise errors.Permanent(code, f"{wrong.pointer}: {wrong.message}")
    asked = sum(listener.max_connections or 0 for listener in _listeners(spec))
    limit = min(connections, max(DEFAULT_CONNECTIONS, asked))
    backends = _backends(desired)
    names = _certificate_names(spec)
    return Config(
        frontends=tuple(_frontends(desired, backends, names, limit)) if spec.admin_up else (),
        backends=tuple(backends.values()),
        certificates=tuple(_certificates(desired, names)),
        source_ranges=tuple(sorted({values.network(value) for value in spec.source_ranges})),
        max_connections=limit,
        drain_timeout_s=max((g.drain_timeout_s for g in spec.target_groups), default=0),
    )


def disturbed(whole: Config, disturbance: Disturbance, through: words.Word | None = None) -> Config:
    """Return the configuration with faults in it. through: what spoils the way to targets."""
    backends = (
        msgspec.structs.replace(one, through=through, source=None) if through else one
        for one in whole.backends
    )
    elsewhere = {"refuse": False, "expired": False, "deaf": False, "no_reload": False}
    return msgspec.structs.replace(
        whole,
        frontends=() if disturbance.refuse else whole.frontends,
        backends=tuple(backends),
        disturbance=msgspec.structs.replace(disturbance, **elsewhere, toxics=()),
    )


def server_options(backend: Backend, server: targets.Server) -> words.Line:
    """Return address and options of `server`, equal in the file and in `add server`."""
    options = words.line(server.address, "weight", server.weight)
    if backend.through is not None and not server.address.startswith("ipv6@"):
        options = (*options, *words.line("socks4", backend.through))
    return (*options, backend.proxy_protocol) if backend.proxy_protocol else options


def names(spec: model.Spec) -> dict[tuple[str, str], tuple[tally.Kind, str]]:
    """Return what HAProxy's names mean: (proxy, server) to (kind, name), as in its statistics."""
    listeners = _listeners(spec)
    meaning: dict[tuple[str, str], tuple[tally.Kind, str]] = {
        (f"f{index}", "FRONTEND"): ("listener", one.name) for index, one in enumerate(listeners)
    }
    groups = {group.name: group for group in spec.target_groups}
    for index, (name, *_) in enumerate(_uses(spec)):
        meaning[f"b{index}", "BACKEND"] = ("target_group", name)
        for target in groups[name].targets:
            server = values.server_name(fields.address(target.ip, "targets.ip"), target.port)
            meaning[f"b{index}", server] = ("target", f"{target.ip} port {target.port}")
    return meaning


def _listeners(spec: model.Spec) -> list[model.Listener]:
    """Return the listeners that are HAProxy's: UDP is somebody else's."""
    ours = (listener for listener in spec.listeners if listener.protocol != "udp")
    return sorted(ours, key=lambda listener: listener.port)


def _mode(listener: model.Listener) -> Mode:
    return "tcp" if listener.protocol == "tcp" else "http"


def _uses(spec: model.Spec) -> list[Use]:
    """Return what has a backend: HAProxy keeps there what we have at the listener."""
    by_cookie = {group.name for group in spec.target_groups if group.affinity.kind == "cookie"}
    return sorted(
        {
            _use(group, listener, by_cookie)
            for listener in _listeners(spec)
            for group in (listener.target_group, *(one.target_group for one in listener.routes))
        }
    )


def _use(group: str, listener: model.Listener, by_cookie: Collection[str]) -> Use:
    secure = listener.protocol == "https" and group in by_cookie
    return group, listener.idle_timeout_s, _mode(listener), secure


def _frontends(
    desired: model.Desired,
    backends: dict[Use, Backend],
    certificates: dict[str, words.Word],
    limit: int,
) -> Iterator[Frontend]:
    ips = sorted(fields.address(address.ip, "addresses") for address in desired.addresses)
    if not ips:
        return
    listeners = _listeners(desired.spec)
    https = sorted(one.port for one in listeners if one.protocol == "https")
    redirect_port = 443 if 443 in https or not https else https[0]
    by_cookie = {one.name for one in desired.spec.target_groups if one.affinity.kind == "cookie"}
    for index, listener in enumerate(listeners):
        where = f"listeners[{listener.name!r}]"
        port = fields.number(listener.port, 1, 65535, f"{where}.port")
        wish = listener.max_connections or limit
        yield Frontend(
            name=words.Word(f"f{index}"),
            mode=_mode(listener),
            binds=(*((ip, port) for ip in ips), *_host_binds(desired, listener.name)),
            max_connections=fields.number(wish, 1, 10_000_000, f"{where}.max_connections"),
            idle_timeout_s=values.seconds(listener.idle_timeout_s, f"{where}.idle_timeout_s"),
            accept_proxy=listener.accept_proxy_protocol,
            backend=backends[_use(listener.target_group, listener, by_cookie)].name,
            tls=_tls(listener.tls, certificates) if listener.tls else None,
            routes=tuple(
                sorted(
                    (
                        _key(route, where),
                        backends[_use(route.target_group, listener, by_cookie)].name,
                    )
                    for route in listener.routes
                )
            ),
            redirect_port=redirect_port if listener.redirect_https else None,
        )


def _host_binds(desired: model.Desired, listener: str) -> Iterator[tuple[str, int]]:
    """Yield where the machine around the container sends what is for the listener."""
    for one in desired.host_ports:
        if one.listener == listener and one.transport == "tcp":
            yield "0.0.0.0", fields.number(one.port, 1024, 65535, "host_ports")  # noqa: S104 - the container's own


def _tls(tls: model.Tls, certificates: dict[str, words.Word]) -> Tls:
    return Tls(
        certificates=tuple(certificates[name] for name in tls.certificates),
        min_version=words.Word(TLS_VERSIONS[tls.min_version]),
    )


def _key(route: model.Route, where: str) -> words.MapKey:
    """Return the key of a rule: a path matches whole parts, so it ends where a part ends."""
    path = (route.path_prefix or "").strip("/")
    host = (route.host or "*").lower()
    try:
        return words.MapKey(f"{host}/{path}/" if path else f"{host}/")
    except ValueError:
        raise errors.Permanent(
            "config_invalid", f"{where}.routes has a host or path that can't be routed"
        ) from None


def _certificate_names(spec: model.Spec) -> dict[str, words.Word]:
    """Return our names of the certificates in use, by the customer's."""
    used = {name for one in _listeners(spec) if one.tls for name in one.tls.certificates}
    return {name: words.Word(f"c{index}") for index, name in enumerate(sorted(used))}


def _certificates(desired: model.Desired, names: dict[str, words.Word]) -> Iterator[Certificate]:
    given = {one.name: one for one in desired.certificates}
    for name, ours in names.items():
        if name not in given:
            raise errors.Permanent("config_invalid", f"there is no certificate {name!r}")
        try:
            pem = words.Pem(given[name].pem)
        except ValueError:
            raise errors.Permanent(
                "config_invalid", f"certificate {name!r} is not PEM that can be used"
            ) from None
        yield Certificate(name=ours, pem=pem, fingerprint=given[name].fingerprint)


def _backends(desired: model.Desired) -> dict[Use, Backend]:
    groups = {group.name: group for group in desired.spec.target_groups}
    return {
        use: _backend(index, groups[use[0]], use, desired)
        for index, use in enumerate(_uses(desired.spec))
    }


def _backend(index: int, group: model.TargetGroup, use: Use, desired: model.Desired) -> Backend:
    where = f"target_groups[{group.name!r}]"
    _, idle_timeout_s, mode, secure = use
    remembered_s = values.seconds(group.affinity.timeout_s, f"{where}.affinity.timeout_s")
    header = PROXY_PROTOCOL[group.send_proxy_protocol]
    by_cookie = group.affinity.kind == "cookie"
    return Backend(
        name=words.Word(f"b{index}"),
        group=group.name,
        mode=mode,
        balance=words.Word(ALGORITHMS[group.algorithm]),
        connect_timeout_s=values.seconds(group.connect_timeout_s, f"{where}.connect_timeout_s"),
        idle_timeout_s=values.seconds(idle_timeout_s, "idle_timeout_s"),
        drain_timeout_s=fields.number(
            group.drain_timeout_s, 0, values.MAX_SECONDS, f"{where}.drain_timeout_s"
        ),
        affinity_s=remembered_s if group.affinity.kind == "client_ip" else None,
        cookie=Cookie(timeout_s=remembered_s, key=_cookie_key(desired), secure=secure)
        if by_cookie
        else None,
        proxy_protocol=words.Word(header) if header else None,
        servers=targets.servers(group, desired, where),
        source=_any_of(desired) if group.preserve_client_ip else None,
    )


def _any_of(desired: model.Desired) -> words.Word:
    """Return "any address" of the load balancer's family; `rules` sees to it that it has one."""
    families = {address.family for address in desired.addresses}
    return words.Word("::" if families == {"ipv6"} else "0.0.0.0")  # noqa: S104 - not listened on


def _cookie_key(desired: model.Desired) -> words.Word:
    """Return what makes cookies mean something here only; the same in every process."""
    return words.Word(blake2s(desired.lb_id.encode(), digest_size=16).hexdigest())
