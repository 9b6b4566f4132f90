"""What the short requests make of a load balancer's spec: other targets, drained ones, an address.

Pure: spec in, spec out. Raises: ValidationFailed that points to what doesn't fit.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from fakecloud.errors import FieldError, ValidationFailed
from fakecloud.model import Address, AddressRequest, Spec, Target

replace = msgspec.structs.replace


def with_targets(spec: Spec, sets: Mapping[str, tuple[Target, ...]]) -> Spec:
    """Return `spec` with the targets of these groups replaced, all else as it was."""
    known = {group.name for group in spec.target_groups}
    for index, name in enumerate(sets):
        if name not in known:
            message = f"there is no target group {name!r}; there are: {', '.join(sorted(known))}"
            raise _invalid(f"/target_groups/{index}/name", message)
    groups = tuple(
        replace(group, targets=sets.get(group.name, group.targets)) for group in spec.target_groups
    )
    return replace(spec, target_groups=groups)


def drained(spec: Spec, node: str | None, endpoints: frozenset[tuple[str, int | None]]) -> Spec:
    """Return `spec` with targets drained: those on `node` or among `endpoints`, else all.

    endpoints: (ip, port), port None for every port of the ip.
    """
    everything = node is None and not endpoints

    def chosen(target: Target) -> bool:
        named = {(target.ip, target.port), (target.ip, None)} & endpoints
        return everything or bool(named) or (node is not None and target.node == node)

    if not any(chosen(t) for group in spec.target_groups for t in group.targets) and not everything:
        raise _invalid("/node" if node is not None else "/targets", "no target is named by this")
    groups = tuple(
        replace(group, targets=tuple(replace(t, drain=t.drain or chosen(t)) for t in group.targets))
        for group in spec.target_groups
    )
    return replace(spec, target_groups=groups)


def with_address(spec: Spec, address: Address) -> Spec:
    """Return `spec` asking for `address`: in place of an unnamed one of its family, or as well."""
    if any(request.ip == address.ip for request in spec.addresses):
        return spec
    wanted = AddressRequest(family=address.family, ip=address.ip, pool=address.pool)
    asked = list(spec.addresses)
    for index, request in enumerate(asked):
        if request.ip is None and request.family == address.family:
            asked[index] = wanted
            return replace(spec, addresses=tuple(asked))
    return replace(spec, addresses=(*asked, wanted))


def without_address(spec: Spec, address: Address) -> Spec:
    """Return `spec` not asking for `address`; its last one becomes any of the same pool."""
    left = tuple(request for request in spec.addresses if request.ip != address.ip)
    return replace(
        spec, addresses=left or (AddressRequest(family=address.family, pool=address.pool),)
    )


def _invalid(pointer: str, message: str) -> ValidationFailed:
    return ValidationFailed(
        f"{pointer}: {message}", errors=(FieldError(pointer, "invalid_reference", message),)
    )
