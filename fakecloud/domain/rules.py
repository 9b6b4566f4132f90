"""What the parts of a spec must have to do with each other.

Limits of single fields are the wire models'; here is what takes two of them to see. The API
refuses by these rules, and the data plane looks once more before it builds anything. Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from fakecloud.errors import FieldError
from fakecloud.model import Family, Listener, Route, Spec, TargetGroup

HTTP = ("http", "https")


def mistakes(spec: Spec) -> list[FieldError]:
    """Return everything in `spec` that can't be, each with the pointer of its field."""
    return [*_ports(spec), *_references(spec), *_listeners(spec), *_groups(spec)]


def opaque(spec: Spec) -> list[FieldError]:
    """Return what a cloud can't do that connects to targets from its own addresses only."""
    message = "not offered by this cloud (serve --transparent); use send_proxy_protocol, or http"
    return [
        FieldError(f"/spec/target_groups/{index}/preserve_client_ip", "unsupported", message)
        for index, group in enumerate(spec.target_groups)
        if group.preserve_client_ip
    ]


def certificates_of(spec: Spec) -> frozenset[str]:
    """Return the names of the certificates that `spec` needs."""
    return frozenset(name for one in spec.listeners if one.tls for name in one.tls.certificates)


def _ports(spec: Spec) -> Iterator[FieldError]:
    """TCP and UDP have each their own ports; one listener may have each of them."""
    seen: set[tuple[bool, int]] = set()
    for index, one in enumerate(spec.listeners):
        key = (one.protocol == "udp", one.port)
        if key in seen:
            layer = "UDP" if one.protocol == "udp" else "TCP"
            message = f"another listener has {layer} port {one.port}"
            yield _wrong(f"/spec/listeners/{index}/port", message)
        seen.add(key)


def _references(spec: Spec) -> Iterator[FieldError]:
    groups = {group.name for group in spec.target_groups}
    for index, one in enumerate(spec.listeners):
        where = f"/spec/listeners/{index}"
        named = [(f"{where}/target_group", one.target_group)]
        named += [
            (f"{where}/routes/{number}/target_group", route.target_group)
            for number, route in enumerate(one.routes)
        ]
        for pointer, name in named:
            if name not in groups:
                message = f"there is no target group {name!r} in target_groups"
                yield FieldError(pointer, "invalid_reference", message)


def _listeners(spec: Spec) -> Iterator[FieldError]:
    for index, one in enumerate(spec.listeners):
        where = f"/spec/listeners/{index}"
        yield from _tls(one, where)
        if one.routes and (one.protocol not in HTTP or one.redirect_https):
            yield _wrong(f"{where}/routes", "only listeners that serve http or https have rules")
        if one.redirect_https and one.protocol != "http":
            yield _wrong(f"{where}/redirect_https", "only http can be redirected to https")
        if one.accept_proxy_protocol and one.protocol == "udp":
            message = "not offered for udp"
            yield FieldError(f"{where}/accept_proxy_protocol", "unsupported", message)
        yield from _routes(one.routes, f"{where}/routes")


def _tls(one: Listener, where: str) -> Iterator[FieldError]:
    if one.tls is None:
        if one.protocol == "https":
            yield _wrong(f"{where}/tls", "https needs tls with at least one certificate")
        return
    if one.protocol not in ("tcp", "https"):
        yield _wrong(f"{where}/tls", f"{one.protocol} has no tls; use https, or tcp")
    if not one.tls.certificates:
        yield _wrong(f"{where}/tls/certificates", "tls needs at least one certificate")
    if len(set(one.tls.certificates)) < len(one.tls.certificates):
        yield _wrong(f"{where}/tls/certificates", "a certificate is there twice")


def _routes(routes: tuple[Route, ...], where: str) -> Iterator[FieldError]:
    seen: set[tuple[str, str]] = set()
    for index, route in enumerate(routes):
        if route.host is None and route.path_prefix is None:
            yield _wrong(f"{where}/{index}", "a rule needs a host or a path_prefix")
        key = ((route.host or "").lower(), (route.path_prefix or "").strip("/"))
        if key in seen:
            yield _wrong(f"{where}/{index}", "another rule has this host and path_prefix")
        seen.add(key)


def _groups(spec: Spec) -> Iterator[FieldError]:
    protocols: defaultdict[str, set[str]] = defaultdict(set)
    for one in spec.listeners:
        for name in (one.target_group, *(route.target_group for route in one.routes)):
            protocols[name].add(one.protocol)
    for index, group in enumerate(spec.target_groups):
        where = f"/spec/target_groups/{index}"
        yield from _group(group, protocols[group.name], where)
        if group.preserve_client_ip:
            yield from _transparent(spec, group, protocols[group.name], where)


def _group(group: TargetGroup, protocols: set[str], where: str) -> Iterator[FieldError]:
    if group.affinity.kind == "cookie" and protocols - set(HTTP):
        message = "a cookie needs http or https, but a listener of another protocol uses this group"
        yield _wrong(f"{where}/affinity/kind", message)
    if group.weights_from == "health_header" and group.health_check.protocol != "http":
        message = "only an http health_check has a header to say a weight in"
        yield _wrong(f"{where}/weights_from", message)
    if group.send_proxy_protocol != "none" and "udp" in protocols:
        message = "not offered for udp, and a udp listener uses this group"
        yield FieldError(f"{where}/send_proxy_protocol", "unsupported", message)


def _transparent(
    spec: Spec, group: TargetGroup, protocols: set[str], where: str
) -> Iterator[FieldError]:
    """A connection from the client's address has the client's family on both sides."""
    where = f"{where}/preserve_client_ip"
    families = {one.family for one in spec.addresses} | {_family(one.ip) for one in group.targets}
    if "udp" in protocols:
        message = "not offered for udp, and a udp listener uses this group"
        yield FieldError(where, "unsupported", message)
    elif len(families) > 1:
        yield _wrong(where, "addresses and targets must all be of one family, ipv4 or ipv6")


def _family(ip: str) -> Family:
    return "ipv6" if ":" in ip else "ipv4"


def _wrong(pointer: str, message: str) -> FieldError:
    return FieldError(pointer, "invalid", message)
