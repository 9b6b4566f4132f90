"""The servers of a target group: who takes new connections, and how many of them."""

from __future__ import annotations

import msgspec

from fakecloud import errors, model
from fakecloud.domain import fields
from fakecloud.haproxy import values, words


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A target. `ready` False: HAProxy's maintenance state, no new connection, old ones live."""

    name: words.Word
    address: words.Word
    weight: int
    ready: bool


def servers(group: model.TargetGroup, desired: model.Desired, where: str) -> tuple[Server, ...]:
    """Return the servers of `group` by name. Raises: Permanent that names the field."""
    serving = fields.serving(group, desired.down)
    weight_of = fields.weights(group, desired.weights)
    found: dict[str, Server] = {}
    for target in group.targets:
        ip = fields.address(target.ip, f"{where}.targets.ip")
        port = fields.number(target.port, 1, 65535, f"{where}.targets.port")
        name = values.server_name(ip, port)
        if name in found:
            raise errors.Permanent("config_invalid", f"{where}.targets has {ip}:{port} twice")
        found[name] = Server(
            name=name,
            address=values.endpoint(ip, port),
            weight=fields.number(weight_of(target), 0, 256, f"{where}.targets.weight"),
            ready=serving(target),
        )
    return tuple(found[name] for name in sorted(found))
