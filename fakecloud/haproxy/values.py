"""Fields of a spec in HAProxy's notation. Raises: Permanent "config_invalid" as `fields` does."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from fakecloud.domain import fields
from fakecloud.haproxy import words

REMEMBERED: Final = 16_384
"""Load balancers share their targets: a node that changes is looked at for each of them."""
MAX_SECONDS: Final = 2_000_000  # HAProxy counts in 31 bits of milliseconds


@lru_cache(REMEMBERED)
def network(value: str) -> words.Word:
    """Return a network in canonical form."""
    return words.Word(fields.network(value))


def seconds(value: int, where: str) -> int:
    """Return a time that HAProxy can count."""
    return fields.number(value, 1, MAX_SECONDS, where)


def endpoint(ip: str, port: int) -> words.Word:
    """Return `ip` and `port` in HAProxy's notation; `ip` is a canonical address."""
    return words.Word(f"ipv6@{ip}:{port}" if ":" in ip else f"{ip}:{port}")


def place(endpoint: words.Word) -> tuple[str, int]:
    """Return address and port of what `endpoint` has written."""
    ip, _, port = endpoint.removeprefix("ipv6@").rpartition(":")
    return ip, int(port)


def server_name(ip: str, port: int) -> words.Word:
    """Return the name of the server at a canonical address: the same in every configuration."""
    return words.Word(f"t{ip.replace('.', '_').replace(':', '_')}_{port}")
