"""A desired load balancer as a relay's configuration, and what its counters mean. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2s
from ipaddress import ip_address
from typing import Final

from fakecloud import errors, model
from fakecloud.domain import fields, tally
from fakecloud.udp import wire

DEFAULT_SESSIONS: Final = 16_384
"""As many as a relay holds unless listeners ask for more; about 1 kB each, and as much in the kernel."""
MAX_SECONDS: Final = 2_000_000


def build(desired: model.Desired, *, sessions: int) -> wire.Config:
    """Return what a relay does for `desired`; without listeners there is nothing to run.

    sessions: how many one process can hold (its file descriptors allow).
    Raises: Permanent "unsupported" for what has no meaning over UDP, "config_invalid" for a value
    out of range; both name the field.
    """
    spec = desired.spec
    listeners = listeners_of(spec) if spec.admin_up else []
    _refuse(listeners, spec)
    used = {listener.target_group for listener in listeners}
    asked = sum(listener.max_connections or 0 for listener in listeners)
    limit = min(sessions, max(DEFAULT_SESSIONS, asked))
    groups = sorted((_group(g, desired) for g in spec.target_groups if g.name in used), key=_name)
    ips = sorted((fields.address(one.ip, "addresses") for one in desired.addresses), key=_order)
    return wire.Config(
        listeners=tuple(_doors(listeners, tuple(ips), limit, desired)) if ips else (),
        groups=tuple(groups),
        ranges=tuple(sorted({fields.network(value) for value in spec.source_ranges})),
        limit=limit,
    )


def listeners_of(spec: model.Spec) -> list[model.Listener]:
    """Return the listeners that are relayed, by port."""
    ours = (listener for listener in spec.listeners if listener.protocol == "udp")
    return sorted(ours, key=lambda listener: listener.port)


def names(spec: model.Spec) -> dict[tuple[str, str], tuple[tally.Kind, str]]:
    """Return what a relay's lines of counters mean: (listener or group, target) to (kind, name)."""
    listeners = listeners_of(spec)
    meaning: dict[tuple[str, str], tuple[tally.Kind, str]] = {
        (_listener_name(one.port), ""): ("listener", one.name) for one in listeners
    }
    meaning |= {(_host_name(one.port), ""): ("listener", one.name) for one in listeners}
    used = {listener.target_group for listener in listeners}
    for group in spec.target_groups:
        if group.name in used:
            for target in group.targets:
                row = _group_name(group.name), f"{ip_address(target.ip)}@{target.port}"
                meaning[row] = ("target", f"{target.ip} port {target.port}")
    return meaning


def _doors(
    listeners: list[model.Listener], ips: tuple[str, ...], limit: int, desired: model.Desired
) -> Iterator[wire.Listener]:
    """Yield each listener, and once more where the machine around the container sends to it."""
    published = {one.listener: one.port for one in desired.host_ports if one.transport == "udp"}
    for listener in listeners:
        yield _listener(listener, ips, limit)
        if listener.name in published:
            port = fields.number(published[listener.name], 1024, 65535, "host_ports")
            inside = _listener(listener, ("0.0.0.0",), limit)  # noqa: S104 - the container's own
            inside.name, inside.port = _host_name(listener.port), port
            yield inside


def _listener(listener: model.Listener, ips: tuple[str, ...], limit: int) -> wire.Listener:
    where = f"listeners[{listener.name!r}]"
    wish = listener.max_connections or limit
    return wire.Listener(
        name=_listener_name(listener.port),
        port=fields.number(listener.port, 1, 65535, f"{where}.port"),
        group=_group_name(listener.target_group),
        idle_s=fields.number(listener.idle_timeout_s, 1, MAX_SECONDS, f"{where}.idle_timeout_s"),
        limit=fields.number(wish, 1, 10_000_000, f"{where}.max_connections"),
        ips=ips,
    )


def _group(group: model.TargetGroup, desired: model.Desired) -> wire.Group:
    where = f"target_groups[{group.name!r}]"
    affinity_s = 0
    if group.affinity.kind == "client_ip":
        wish = group.affinity.timeout_s
        affinity_s = fields.number(wish, 1, MAX_SECONDS, f"{where}.affinity.timeout_s")
    serving = fields.serving(group, desired.down)
    weight_of = fields.weights(group, desired.weights)
    targets: dict[str, wire.Target] = {}
    for target in group.targets:
        one = wire.Target(
            ip=fields.address(target.ip, f"{where}.targets.ip"),
            port=fields.number(target.port, 1, 65535, f"{where}.targets.port"),
            weight=fields.number(weight_of(target), 0, 256, f"{where}.targets.weight"),
            ready=serving(target),
        )
        if one.name in targets:
            twice = f"{where}.targets has {one.ip} port {one.port} twice"
            raise errors.Permanent("config_invalid", twice)
        targets[one.name] = one
    return wire.Group(
        name=_group_name(group.name),
        balance=group.algorithm,
        affinity_s=affinity_s,
        drain_s=fields.number(group.drain_timeout_s, 0, MAX_SECONDS, f"{where}.drain_timeout_s"),
        targets=tuple(targets[name] for name in sorted(targets)),
    )


def _refuse(listeners: list[model.Listener], spec: model.Spec) -> None:
    ports = [listener.port for listener in listeners]
    if len(set(ports)) < len(ports):
        raise errors.Permanent("config_invalid", "listeners has a UDP port twice")
    groups = {group.name: group for group in spec.target_groups}
    for listener in listeners:
        where = f"listeners[{listener.name!r}]"
        fields.refuse(
            where,
            {
                "accept_proxy_protocol": listener.accept_proxy_protocol,
                "tls": listener.tls is not None,
                "routes": bool(listener.routes),
                "redirect_https": listener.redirect_https,
            },
        )
        group = groups.get(listener.target_group)
        if group is None:
            reason = f"{where}.target_group names no group of target_groups"
            raise errors.Permanent("config_invalid", reason)
        fields.refuse(
            f"target_groups[{group.name!r}] (of the UDP listener {listener.name!r})",
            {
                "affinity.kind": group.affinity.kind == "cookie",
                "send_proxy_protocol": group.send_proxy_protocol != "none",
                "preserve_client_ip": group.preserve_client_ip,
            },
        )


def _listener_name(port: int) -> str:
    return f"u{port}"


def _host_name(port: int) -> str:
    return f"h{port}"


def _group_name(name: str) -> str:
    return f"g{blake2s(name.encode(), digest_size=6).hexdigest()}"


def _name(group: wire.Group) -> str:
    return group.name


def _order(ip: str) -> tuple[int, int]:
    parsed = ip_address(ip)
    return parsed.version, int(parsed)
