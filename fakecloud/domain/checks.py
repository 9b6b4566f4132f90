"""Health checks as values: what to send, what an answer is, when a target's health changes.

Pure; `prober` does the sending and keeps the time.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final
from urllib.parse import quote

import msgspec

from fakecloud import model

_FASTEST_S = 0.25
MAX_WEIGHT: Final = 256  # HAProxy's own limit
_FIELDS: Final = re.compile(
    rb"\r\n(connection|content-length|transfer-encoding|x-load-balancing-endpoint-weight)"
    rb"[ \t]*:[ \t]*([^\r\n]*)",
    re.IGNORECASE,
)


class ProbeResult(msgspec.Struct, frozen=True, gc=False):
    """What is known of a target. `healthy` None: no answer yet.

    `reason`: of the last answer that agreed with `healthy`: http_<status>, tcp_connected,
    connection_refused, connection_reset, connection_closed, no_route, timeout, bad_response,
    connect_failed; without an answer not_probed, or prober_exhausted when this process has no
    file descriptor left. `since`: when `healthy` last changed, aware UTC. `weight`: what the
    last good answer said in X-Load-Balancing-Endpoint-Weight (kube-proxy: how many endpoints of
    the Service are on the node, KEP-3836), 256 at most; None: nothing.
    """

    healthy: bool | None
    reason: str
    since: datetime
    weight: int | None = None


class Head(msgspec.Struct, frozen=True, gc=False):
    """A response's head. `size` in bytes; `body` bytes follow (None: until the peer closes)."""

    status: int
    size: int
    body: int | None
    weight: int | None = None


class BadResponse(ValueError):
    """The peer doesn't speak HTTP/1."""


def judge(
    known: ProbeResult,
    contrary: int,
    ok: bool,
    reason: str,
    check: model.HealthCheck,
    now: datetime,
    weight: int | None = None,
) -> tuple[ProbeResult, int]:
    """Return the result after one more answer, and how many answers in a row contradict it.

    The first answer decides at once; later `rise` or `fall` contrary ones in a row are needed.
    """
    if not ok:
        weight = known.weight
    if known.healthy == ok:
        if known.reason == reason and known.weight == weight:
            return known, 0
        return ProbeResult(ok, reason, known.since, weight), 0
    if known.healthy is None or contrary + 1 >= (check.rise if ok else check.fall):
        return ProbeResult(ok, reason, now, weight), 0
    return known, contrary + 1


def delay_s(check: model.HealthCheck, contrary: int) -> float:
    """Return seconds between two turns: a quarter of the interval while a result is in doubt."""
    if not contrary:
        return float(check.interval_s)
    return max(_FASTEST_S, check.interval_s / 4)


def parse_head(data: bytes) -> Head | None:
    """Return the head of the final response at the start of `data`, None if it isn't all there.

    Interim 1xx responses before it are skipped and counted in its size. Raises BadResponse.
    """
    start = 0
    while True:
        if not data.startswith(b"HTTP/1."[: len(data) - start], start):
            raise BadResponse
        end = data.find(b"\r\n\r\n", start)
        if end < 0:
            return None
        code = data[start + 9 : start + 12]
        if not code.isdigit() or data[start + 8 : start + 9] != b" ":
            raise BadResponse
        if code[0] != ord("1"):
            status = int(code)
            fields = {
                name.lower(): value.strip() for name, value in _FIELDS.findall(data, start, end)
            }
            body = _body_bytes(data[start + 7 : start + 8], fields, status)
            weight = _number(fields.get(b"x-load-balancing-endpoint-weight", b""))
            if weight is not None:
                weight = min(weight, MAX_WEIGHT)
            return Head(status, end + 4, body, weight)
        start = end + 4


def _body_bytes(minor: bytes, fields: dict[bytes, bytes], status: int) -> int | None:
    """Return how many body bytes precede the next response, None if the connection ends here."""
    connection = fields.get(b"connection", b"").lower()
    keeps = b"close" not in connection if minor == b"1" else b"keep-alive" in connection
    if not keeps or b"transfer-encoding" in fields:
        return None
    if status in (204, 304):
        return 0
    return _number(fields.get(b"content-length", b""))


def _number(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) < 10 else None


def request(key: model.ProbeKey) -> bytes:
    """Return the HTTP request of a check; nothing in `path` can add a line or a header."""
    path = quote(key.check.path, safe="/?%:@!$&'()*+,;=-._~")
    host = f"[{key.ip}]" if ":" in key.ip else key.ip
    return (
        f"GET /{path.removeprefix('/')} HTTP/1.1\r\nHost: {host}:{key.port}\r\n"
        "User-Agent: fakecloud-prober\r\nAccept: */*\r\n\r\n"
    ).encode("ascii")
