"""Fields of a spec for a data plane: checked once more and written anew, and what follows of them.

The API has refused what is wrong already; whatever comes another way stops here. Raises:
Permanent "config_invalid" or "unsupported" that names the field.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network

from fakecloud import errors, model


def address(value: str, where: str) -> str:
    """Return an IP address in canonical form."""
    try:
        ip = ip_address(value)
    except ValueError:
        raise errors.Permanent("config_invalid", f"{where} is not an IP address") from None
    if ip.version == 6 and ip.scope_id:
        raise errors.Permanent("config_invalid", f"{where} has a zone; leave it out")
    if ip.version == 6 and ip.ipv4_mapped:
        # HAProxy makes IPv4 of it, and what it says it runs isn't what it was told.
        raise errors.Permanent("config_invalid", f"{where} must be {ip.ipv4_mapped}, as IPv4")
    return str(ip)


def network(value: str) -> str:
    """Return a network in canonical form."""
    try:
        return str(ip_network(value, strict=False))
    except ValueError:
        raise errors.Permanent("config_invalid", "source_ranges has no network in it") from None


def number(value: int, low: int, high: int, where: str) -> int:
    """Return a number from `low` to `high`."""
    if not low <= value <= high:
        raise errors.Permanent("config_invalid", f"{where} must be between {low} and {high}")
    return value


def refuse(where: str, wished: dict[str, bool]) -> None:
    """Refuse the fields of `where` that are wished for: the data plane has no such thing."""
    for field, is_wished in wished.items():
        if is_wished:
            raise errors.Permanent(
                "unsupported", f"{where}.{field}: not offered by this data plane; leave it out"
            )


def probe_keys(spec: model.Spec) -> frozenset[model.ProbeKey]:
    """Return every probe whose result can change this load balancer."""
    keys = (model.probe_key(t, g.health_check) for g in spec.target_groups for t in g.targets)
    return frozenset(key for key in keys if key is not None)


def told(
    desired: model.Desired,
    down: frozenset[model.ProbeKey],
    weights: frozenset[model.ProbeWeight],
) -> tuple[frozenset[model.ProbeKey], frozenset[model.ProbeWeight]]:
    """Return those of `down` and `weights` that are about targets of `desired`."""
    keys = probe_keys(desired.spec)
    return down & keys, frozenset(one for one in weights if one.key in keys)


def weights(
    group: model.TargetGroup, said: frozenset[model.ProbeWeight]
) -> Callable[[model.Target], int]:
    """Return what weight each target has: its own word, where the group asks for it."""
    if group.weights_from == "none":
        return lambda target: target.weight
    by_key = {one.key: one.weight for one in said}

    def weight_of(target: model.Target) -> int:
        key = model.probe_key(target, group.health_check)
        return target.weight if key is None else by_key.get(key, target.weight)

    return weight_of


def serving(
    group: model.TargetGroup, down: frozenset[model.ProbeKey]
) -> Callable[[model.Target], bool]:
    """Return who takes new connections: not draining, and probed well unless all fail open."""

    def healthy(target: model.Target) -> bool:
        return model.probe_key(target, group.health_check) not in down

    eligible = [target for target in group.targets if not target.drain]
    open_anyway = group.fail_open and not any(healthy(target) for target in eligible)
    return lambda target: not target.drain and (open_anyway or healthy(target))
