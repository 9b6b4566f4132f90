"""The annotations of a Service: name, type, default, bounds and meaning, as one typed table.

The reference for people (docs/annotations.md) is written from it. What isn't in the table but
looks like it gets the nearest valid spelling; a malformed value refuses the Service, because
guessing could leave it open, or dearer, than was meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from ccm import errors
from ccm.service import values

PREFIX: Final = "fakecloud.dev/"
HOST_PORTS: Final = PREFIX + "host-ports"
"""Written by the controller: which ports of the machine lead to the Service's, 80/tcp=20000,…"""
HOURLY_COST: Final = PREFIX + "hourly-cost"
"""Written by the controller: the price of the load balancer by itself, 0.0275 USD."""
WRITTEN: Final = {
    HOST_PORTS: "ports of the machine around the cloud's container, such as `80/tcp=20000`",
    HOURLY_COST: "price of its load balancer by itself, without traffic, such as `0.0275 USD`; "
    "not on Services that share one, nor with `--no-hourly-cost`",
}
"""What the controller writes itself, and what it means."""
FAULTS: Final = "chaos.fakecloud.dev/"
"""Passed on to the cloud, which then disturbs this load balancer; it checks them itself."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Annotation(Generic[T]):
    """One row of the table. default_words: what stands in the reference for the default."""

    name: str
    kind: values.Kind[T]
    default: T
    meaning: str
    default_words: str = ""


_DNS: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)+"
_NAME: Final = r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?"
_PORT: Final = r"\*|[1-9]\d{0,4}|[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?"
_PORTS: Final = values.Texts(_PORT, "ports by number or name, separated by commas, or *")
_NO_TEXT: Final[tuple[str, ...]] = ()
_NO_PAIRS: Final[tuple[tuple[str, str], ...]] = ()


def _ours(
    name: str, kind: values.Kind[T], default: T, meaning: str, words: str = ""
) -> Annotation[T]:
    return Annotation(PREFIX + name, kind, default, meaning, words)


ADDRESSES = _ours(
    "addresses",
    values.Addresses(),
    _NO_TEXT,
    "addresses to ask for; wins over spec.loadBalancerIP",
    "any free one",
)
POOL = _ours(
    "pool", values.Text(_NAME, "the name of a pool"), "default", "address pool of the cloud"
)
TYPE = _ours("type", values.Choice(("lb-s", "lb-m", "lb-l")), "lb-s", "size, and so the price")
LABELS = _ours(
    "labels",
    values.Pairs(),
    _NO_PAIRS,
    "labels of the load balancer, to group the bill by",
    "none",
)
SHARE = _ours(
    "share",
    values.Text(r"[!-~]{1,253}", "a text without spaces"),
    "",
    "Services of a namespace with the same key share one load balancer and its address",
    "not shared",
)
HOSTNAME = _ours(
    "hostname",
    values.Text(_DNS, "a DNS name with a dot, such as web.example.com"),
    "",
    "published in status instead of the addresses",
    "addresses",
)
IP_MODE = _ours(
    "ip-mode",
    values.Choice(("Proxy", "VIP")),
    "Proxy",
    "VIP lets kube-proxy short-circuit traffic from pods past the load balancer",
)
PROXY_PROTOCOL = _ours(
    "proxy-protocol",
    values.Choice(("none", "v1", "v2")),
    "none",
    "header that tells the pods the client's address; they must expect it",
)
ACCEPT_PROXY_PROTOCOL = _ours(
    "accept-proxy-protocol",
    values.Boolean(),
    False,
    "clients send the header, for example another load balancer in front",
)
PRESERVE_CLIENT_IP = _ours(
    "preserve-client-ip",
    values.Boolean(),
    None,
    "connect to the targets from the client's own address; where the controller runs with "
    "--transparent",
    "true with externalTrafficPolicy Local",
)
ALGORITHM = _ours(
    "algorithm",
    values.Choice(("round_robin", "least_connections", "source_hash")),
    "round_robin",
    "how a target is chosen",
)
IDLE_TIMEOUT = _ours(
    "idle-timeout", values.Seconds(1, 86400), 350, "silence after which a connection is closed"
)
MAX_CONNECTIONS = _ours(
    "max-connections",
    values.Integer(1, 40000),
    None,
    "connections at a time per port; more wait",
    "the type's",
)
CONNECT_TIMEOUT = _ours("connect-timeout", values.Seconds(1, 60), 2, "time to reach a target")
DRAIN_TIMEOUT = _ours(
    "drain-timeout",
    values.Seconds(0, 3600),
    300,
    "how long connections to a removed target may last",
)
FAIL_OPEN = _ours("fail-open", values.Boolean(), False, "send to all targets when none is healthy")
HTTP_PORTS = _ours(
    "http-ports",
    _PORTS,
    _NO_TEXT,
    "ports served as HTTP (X-Forwarded-For, cookies); others are TCP",
    "none",
)
HTTPS_PORTS = _ours(
    "https-ports", _PORTS, _NO_TEXT, "ports where TLS ends; needs certificates", "none"
)
TLS_PORTS = _ours(
    "tls-ports",
    _PORTS,
    _NO_TEXT,
    "ports where TLS ends and what is inside goes on as TCP; needs certificates",
    "none",
)
APP_PROTOCOL = _ours(
    "use-app-protocol",
    values.Boolean(),
    False,
    "a port's appProtocol http or https decides, as http-ports and https-ports do",
)
CERTIFICATES = _ours(
    "certificates",
    values.Texts(_NAME, "names of certificates, separated by commas"),
    _NO_TEXT,
    "certificates of the cloud for https-ports and tls-ports",
    "none",
)
TLS_MIN_VERSION = _ours(
    "tls-min-version", values.Choice(("1.2", "1.3")), "1.2", "oldest TLS that clients may use"
)
REDIRECT_HTTPS = _ours(
    "redirect-https", values.Boolean(), False, "http-ports answer with a redirect to https"
)
STICKY_COOKIE = _ours(
    "sticky-cookie",
    values.Seconds(1, 86400),
    None,
    "a cookie of this life brings a client of an HTTP port back to its target",
    "none",
)
NODE_SELECTOR = _ours(
    "node-selector",
    values.Pairs(),
    _NO_PAIRS,
    "only nodes with these labels get traffic",
    "every node",
)
HEALTH_PROTOCOL = _ours(
    "health-check-protocol",
    values.Choice(("http", "tcp", "none")),
    None,
    "how targets are probed; not with externalTrafficPolicy Local, where nodes say it",
    "http on kube-proxy",
)
HEALTH_PORT = _ours(
    "health-check-port",
    values.Integer(1, 65535),
    None,
    "port that is probed",
    "10256, or the target's own with tcp",
)
HEALTH_PATH = _ours(
    "health-check-path",
    values.Text(r"/[!-~]{0,1023}", "a path that begins with /"),
    None,
    "path that is asked for",
    "/healthz",
)
HEALTH_INTERVAL = _ours(
    "health-check-interval", values.Seconds(1, 60), 2, "time between two probes"
)
HEALTH_TIMEOUT = _ours("health-check-timeout", values.Seconds(1, 60), 2, "time for an answer")
HEALTH_RISE = _ours("health-check-rise", values.Integer(1, 10), 2, "good answers to come back")
HEALTH_FALL = _ours("health-check-fall", values.Integer(1, 10), 2, "bad answers to go out")
HEALTH_STATUS = _ours(
    "health-check-status", values.Integer(100, 599), 200, "HTTP status of a good answer"
)
SOURCE_RANGES = Annotation(
    "service.beta.kubernetes.io/load-balancer-source-ranges",
    values.Networks(),
    _NO_TEXT,
    "who may connect; ignored if spec.loadBalancerSourceRanges is set",
    "everybody",
)

TABLE: Final[tuple[Annotation[Any], ...]] = (
    ADDRESSES,
    POOL,
    TYPE,
    LABELS,
    SHARE,
    HOSTNAME,
    IP_MODE,
    PROXY_PROTOCOL,
    ACCEPT_PROXY_PROTOCOL,
    PRESERVE_CLIENT_IP,
    ALGORITHM,
    IDLE_TIMEOUT,
    MAX_CONNECTIONS,
    CONNECT_TIMEOUT,
    DRAIN_TIMEOUT,
    FAIL_OPEN,
    HTTP_PORTS,
    HTTPS_PORTS,
    TLS_PORTS,
    APP_PROTOCOL,
    CERTIFICATES,
    TLS_MIN_VERSION,
    REDIRECT_HTTPS,
    STICKY_COOKIE,
    NODE_SELECTOR,
    HEALTH_PROTOCOL,
    HEALTH_PORT,
    HEALTH_PATH,
    HEALTH_INTERVAL,
    HEALTH_TIMEOUT,
    HEALTH_RISE,
    HEALTH_FALL,
    HEALTH_STATUS,
    SOURCE_RANGES,
)

_BY_NAME: Final = {one.name: one for one in TABLE}
_SHORT_NAMES: Final = [
    one.name.removeprefix(PREFIX) for one in TABLE if one.name.startswith(PREFIX)
]


@dataclass(frozen=True, slots=True)
class Advice:
    """Something that has no effect. reason: of the event; text: what, and what helps."""

    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the annotations of one Service ask for. advice: what was not understood."""

    given: Mapping[str, Any] = field(default_factory=dict)
    advice: tuple[Advice, ...] = ()

    def get(self, wanted: Annotation[T]) -> T:
        """Return the value, or the default."""
        value: T = self.given.get(wanted.name, wanted.default)
        return value

    def has(self, wanted: Annotation[Any]) -> bool:
        """Return whether the annotation is there."""
        return wanted.name in self.given


def read(written: Mapping[str, str]) -> Wishes:
    """Return what `written` asks for. Raises: Rejected for a value that can't be read."""
    given: dict[str, Any] = {}
    advice = []
    for name, text in sorted(written.items()):
        known = _BY_NAME.get(name)
        if known is not None:
            given[name] = _value(known, text)
        elif name.startswith(PREFIX) and name not in WRITTEN:
            advice.append(_unknown(name))
    return Wishes(given, tuple(advice))


def without_ours(written: Mapping[str, str]) -> dict[str, None] | None:
    """Return the change that takes away what the controller wrote, None if there is nothing."""
    return {name: None for name in WRITTEN if name in written} or None


def for_the_cloud(written: Mapping[str, str]) -> dict[str, str]:
    """Return what the cloud itself is to read; it refuses what it doesn't understand."""
    return {key: value for key, value in written.items() if key.startswith(FAULTS)}


def _value(known: Annotation[T], text: str) -> T:
    try:
        return known.kind.read(text.strip())
    except ValueError as error:
        shown = text if len(text) <= 60 else f"{text[:60]}…"
        raise errors.Rejected(
            "InvalidAnnotation", f"annotation {known.name} must be {error}, not {shown!r}"
        ) from error


def _unknown(name: str) -> Advice:
    meant = values.nearest(name.removeprefix(PREFIX), _SHORT_NAMES)
    hint = f"did you mean {PREFIX}{meant}?" if meant else "see docs/annotations.md"
    return Advice("UnknownAnnotation", f"annotation {name} is not known and has no effect; {hint}")
