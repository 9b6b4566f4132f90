"""What the cloud sells and where: types of load balancers with their limits, regions and zones.

The limits of `lb-s` are those of Hetzner's lb11; the bigger ones follow its price list
(https://docs.hetzner.cloud/reference/cloud#load-balancer-types, read 2026-11-23).
"""

from __future__ import annotations

from typing import Final

import msgspec

from fakecloud.errors import FieldError, LimitExceeded
from fakecloud.model import Spec


class LoadBalancerType(msgspec.Struct, frozen=True, kw_only=True):
    """A size of load balancer: the most that one may have."""

    name: str
    description: str
    max_listeners: int
    max_targets: int
    max_certificates: int
    max_connections: int


class Region(msgspec.Struct, frozen=True, kw_only=True):
    """A place with its zones."""

    name: str
    description: str
    zones: tuple[str, ...]


TYPES: Final = (
    LoadBalancerType(
        name="lb-s",
        description="small",
        max_listeners=5,
        max_targets=25,
        max_certificates=10,
        max_connections=10_000,
    ),
    LoadBalancerType(
        name="lb-m",
        description="medium",
        max_listeners=15,
        max_targets=75,
        max_certificates=25,
        max_connections=20_000,
    ),
    LoadBalancerType(
        name="lb-l",
        description="large",
        max_listeners=30,
        max_targets=150,
        max_certificates=50,
        max_connections=40_000,
    ),
)
REGIONS: Final = (
    Region(name="local-1", description="this machine", zones=("local-1a", "local-1b")),
)


def check(spec: Spec) -> None:
    """Let a spec pass that its type can carry. Raises: LimitExceeded that names the limit."""
    kind = next(one for one in TYPES if one.name == spec.type)
    targets = sum(len(group.targets) for group in spec.target_groups)
    certificates = {name for one in spec.listeners if one.tls for name in one.tls.certificates}
    for pointer, metric, number, most in (
        ("/spec/listeners", "max_listeners", len(spec.listeners), kind.max_listeners),
        ("/spec/target_groups", "max_targets", targets, kind.max_targets),
        ("/spec/listeners", "max_certificates", len(certificates), kind.max_certificates),
    ):
        if number > most:
            message = f"{number} is more than {metric} of type {kind.name}, which is {most}"
            raise LimitExceeded(
                f"{pointer}: {message}; take a larger type",
                errors=(FieldError(pointer, "limit_exceeded", message),),
                metric=metric,
                limit=most,
            )
