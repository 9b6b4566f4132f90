"""How values of other controllers' annotations become values of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ccm.service import annotations as ours
from ccm.service import values

AWS: Final = "service.beta.kubernetes.io/aws-load-balancer-"


@dataclass(slots=True)
class Reading:
    """One annotation being translated. siblings: all of the Service; notes: what is lost."""

    text: str
    siblings: Mapping[str, str]
    notes: list[str]


Convert = Callable[[Reading], dict[str, str]]


def same(one: ours.Annotation[Any]) -> tuple[str, Convert]:
    """Take the value as it is."""
    return one.name, lambda it: {one.name: it.text}


def mapped(one: ours.Annotation[Any], words: Mapping[str, str]) -> tuple[str, Convert]:
    """Translate words; "" stands for nothing to do."""

    def convert(it: Reading) -> dict[str, str]:
        if it.text not in words:
            raise ValueError("one of " + ", ".join(words))
        return {one.name: words[it.text]} if words[it.text] else {}

    return one.name, convert


def when_true(one: ours.Annotation[Any], text: str) -> tuple[str, Convert]:
    """Set `text` if the value is true."""
    return (
        f"{one.name}: {text}",
        lambda it: {one.name: text} if values.Boolean().read(it.text) else {},
    )


def seconds(one: ours.Annotation[Any], per_second: int = 1) -> tuple[str, Convert]:
    """Durations; out of our bounds, the nearest that we have is taken and said."""
    kind = one.kind
    assert isinstance(kind, values.Seconds), one.name

    def convert(it: Reading) -> dict[str, str]:
        wanted = values.Seconds(0, 10**9).read(it.text) // per_second
        taken = min(max(wanted, kind.least), kind.most)
        if taken != wanted:
            it.notes.append(f"{wanted} s is out of bounds here; {taken} s is used")
        return {one.name: str(taken)}

    return one.name, convert


def count(one: ours.Annotation[Any]) -> tuple[str, Convert]:
    """Take a number; out of our bounds, the nearest that we have is taken and said."""
    kind = one.kind
    assert isinstance(kind, values.Integer), one.name

    def convert(it: Reading) -> dict[str, str]:
        wanted = values.Integer(0, 10**8).read(it.text)
        taken = min(max(wanted, kind.least), kind.most)
        if taken != wanted:
            it.notes.append(f"{wanted} is out of bounds here; {taken} is used")
        return {one.name: str(taken)}

    return one.name, convert


def unsupported(why: str) -> tuple[str, Convert]:
    """Say that the annotation has no effect, and why."""

    def convert(it: Reading) -> dict[str, str]:
        it.notes.append(f"has no effect, {why}")
        return {}

    return f"reported: {why}", convert


def granted(why: str) -> tuple[str, Convert]:
    """Take the annotation as fulfilled."""
    return f"nothing to do: {why}", lambda _: {}


def health_protocol(it: Reading) -> dict[str, str]:
    """Translate the protocol of probes."""
    protocol = it.text.lower()
    if protocol in ("https", "ssl", "tls"):
        it.notes.append(f"probes without TLS; {protocol} becomes tcp")
        protocol = "tcp"
    return {ours.HEALTH_PROTOCOL.name: protocol}


def health_port(it: Reading) -> dict[str, str]:
    """Translate the port of probes."""
    return {} if it.text == "traffic-port" else {ours.HEALTH_PORT.name: it.text}


def status(it: Reading) -> dict[str, str]:
    """Translate statuses that count as good: the first of them."""
    first = it.text.replace("-", ",").split(",")[0].strip()
    code = first.replace("?", "0") if first.endswith("??") else first
    if code != it.text:
        it.notes.append(f"only one status counts as good here: {code}")
    return {ours.HEALTH_STATUS.name: code}


def protocol(it: Reading) -> dict[str, str]:
    """Translate a protocol for all ports."""
    match it.text.lower():
        case "http":
            return {ours.HTTP_PORTS.name: "*"}
        case "https" | "http2":
            return {ours.HTTPS_PORTS.name: "*"}
        case "tcp" | "udp":
            return {}
        case _:
            raise ValueError("one of tcp, udp, http, https, http2")


def certificates(it: Reading) -> dict[str, str]:
    """Take names of certificates; identifiers of another cloud are reported."""
    if "/" in it.text or ":" in it.text:
        it.notes.append(
            f"names a certificate of another cloud; upload it here and name it in "
            f"{ours.CERTIFICATES.name}"
        )
        return {}
    return {ours.CERTIFICATES.name: it.text}


def cookie(ttl: str, default_s: str, on: str) -> Convert:
    """Set a cookie's life from the annotation `ttl` where the value is `on`."""

    def convert(it: Reading) -> dict[str, str]:
        if it.text != on:
            return {}
        return {ours.STICKY_COOKIE.name: it.siblings.get(ttl, default_s)}

    return convert


def read_elsewhere(by: str) -> tuple[str, Convert]:
    """Leave it to the annotation `by`, which reads this one too."""
    return f"with {by.rpartition('/')[2]}", lambda _: {}


def aws_backend(it: Reading) -> dict[str, str]:
    """Translate what listeners speak with targets."""
    if it.text.lower() in ("tcp", "ssl"):
        return {}
    if it.text.lower() not in ("http", "https"):
        raise ValueError("one of tcp, ssl, http, https")
    return {ours.HTTP_PORTS.name: "*"}


def aws_ssl_ports(it: Reading) -> dict[str, str]:
    """Translate where TLS ends; what is inside is HTTP only if the backends speak HTTP."""
    inside = it.siblings.get(f"{AWS}backend-protocol", "tcp").lower()
    one = ours.HTTPS_PORTS if inside.startswith("http") else ours.TLS_PORTS
    return {one.name: it.text}


def aws_proxy_protocol(it: Reading) -> dict[str, str]:
    """Translate * into the version that the load balancer's type speaks."""
    if it.text != "*":
        raise ValueError("*")
    kind = it.siblings.get(f"{AWS}type", "")
    # A classic load balancer speaks version 1, a network load balancer version 2.
    return {ours.PROXY_PROTOCOL.name: "v2" if kind.startswith(("nlb", "external")) else "v1"}


AWS_ATTRIBUTES: Final[dict[str, tuple[ours.Annotation[Any], dict[str, str]]]] = {
    "preserve_client_ip.enabled": (ours.PRESERVE_CLIENT_IP, {"true": "true", "false": "false"}),
    "proxy_protocol_v2.enabled": (ours.PROXY_PROTOCOL, {"true": "v2", "false": "none"}),
}


def aws_attributes(it: Reading) -> dict[str, str]:
    """Translate key=value attributes of a target group."""
    found = {}
    for key, text in values.Pairs().read(it.text):
        if key == "deregistration_delay.timeout_seconds":
            found[ours.DRAIN_TIMEOUT.name] = text
        elif key in AWS_ATTRIBUTES:
            one, words = AWS_ATTRIBUTES[key]
            if text not in words:
                raise ValueError(f"{key}=true or {key}=false")
            found[one.name] = words[text]
        else:
            it.notes.append(f"attribute {key} has no effect")
    return found


def aws_draining(it: Reading) -> dict[str, str]:
    """Translate whether connections are drained at all."""
    return {} if values.Boolean().read(it.text) else {ours.DRAIN_TIMEOUT.name: "0"}


def do_size(it: Reading) -> dict[str, str]:
    """Translate a number of nodes into a type."""
    units = values.Integer(1, 200).read(it.text)
    return {ours.TYPE.name: "lb-s" if units == 1 else "lb-m" if units < 4 else "lb-l"}


def do_allow(it: Reading) -> dict[str, str]:
    """Translate cidr:… and ip:… rules."""
    parts = [part.partition(":") for part in values.split(it.text)]
    if not parts or any(kind not in ("cidr", "ip") for kind, _, _ in parts):
        raise ValueError("cidr:… and ip:… separated by commas")
    return {ours.SOURCE_RANGES.name: ",".join(text for _, _, text in parts)}


def openstack_limit(it: Reading) -> dict[str, str]:
    """Translate a limit; -1 is none."""
    return {} if it.text == "-1" else {ours.MAX_CONNECTIONS.name: it.text}


def openstack_monitor(it: Reading) -> dict[str, str]:
    """Translate whether targets are probed at all."""
    return {} if values.Boolean().read(it.text) else {ours.HEALTH_PROTOCOL.name: "none"}
