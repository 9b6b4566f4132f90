"""Values of a document, looked at once more before they may reach a configuration.

The API has refused what is wrong already; whatever comes another way stops here. Raises:
Permanent "config_invalid" that names the field.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final

from fakecloud import errors
from fakecloud.haproxy import words

REMEMBERED: Final = 16_384
"""Load balancers share their targets: a node that changes is looked at for each of them."""
MAX_SECONDS: Final = 2_000_000  # HAProxy counts in 31 bits of milliseconds


@lru_cache(REMEMBERED)
def address(value: str, where: str) -> str:
    """Return an IP address in canonical form."""
    try:
        ip = ip_address(value)
    except ValueError:
        raise errors.Permanent("config_invalid", f"{where} is not an IP address") from None
    if ip.version == 6 and ip.scope_id:
        raise errors.Permanent("config_invalid", f"{where} has a zone; leave it out")
    return str(ip)


@lru_cache(REMEMBERED)
def network(value: str) -> words.Word:
    """Return a network in canonical form."""
    try:
        return words.Word(str(ip_network(value, strict=False)))
    except ValueError:
        raise errors.Permanent("config_invalid", "source_ranges has no network in it") from None


def seconds(value: int, where: str) -> int:
    """Return a time that HAProxy can count."""
    return number(value, 1, MAX_SECONDS, where)


def number(value: int, low: int, high: int, where: str) -> int:
    """Return a number from `low` to `high`."""
    if not low <= value <= high:
        raise errors.Permanent("config_invalid", f"{where} must be between {low} and {high}")
    return value


def endpoint(ip: str, port: int) -> words.Word:
    """Return `ip` and `port` in HAProxy's notation; `ip` is a canonical address."""
    return words.Word(f"ipv6@{ip}:{port}" if ":" in ip else f"{ip}:{port}")


def server_name(ip: str, port: int) -> words.Word:
    """Return the name of the server at a canonical address: the same in every configuration."""
    return words.Word(f"t{ip.replace('.', '_').replace(':', '_')}_{port}")
