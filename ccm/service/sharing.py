"""One document out of the plans of Services that share a load balancer.

Who is there already stays, newcomers come in order of age; one that doesn't fit is told why and
has no part in it. The load balancer as a whole (addresses, pool, source ranges) is as the first
one has it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from ccm import errors
from ccm.cloud import documents
from ccm.kube import objects
from ccm.service import annotations as annotations_
from ccm.service import desired, ownership

_SIZES = ("lb-s", "lb-m", "lb-l")


@dataclass(frozen=True, slots=True)
class Member:
    """A Service that wants to share, and its plan."""

    service: objects.Service
    plan: desired.Plan


@dataclass(slots=True)
class Group:
    """Who shares, and why others don't."""

    members: list[Member] = field(default_factory=list)
    refused: list[tuple[Member, errors.Rejected]] = field(default_factory=list)


def name_of(key: str, owner: ownership.Ownership) -> str:
    """Return the name of the load balancer of a group; keys repeat over clusters."""
    digest = hashlib.sha256(f"{owner.cluster.uid}/{key}".encode()).hexdigest()
    return f"k8s-share-{digest[:24]}"


def share_of(service: objects.Service) -> str:
    """Return the group's key that a Service asks for, "" if it wants its own load balancer.

    Cheap, for indices; whether the Service can be served is decided by desired.build().
    """
    written = service.annotations
    for name in _SHARE_NAMES:
        if share := written.get(name, "").strip():
            return ownership.group_key(service.metadata.namespace, share)
    return ""


_SHARE_NAMES = (
    annotations_.SHARE.name,
    "metallb.io/allow-shared-ip",
    "metallb.universe.tf/allow-shared-ip",
)


def gather(wanting: list[Member], present: Mapping[str, str]) -> Group:
    """Return who of `wanting` can share. present: members as of now, key → UID."""
    group = Group()

    def order(one: Member) -> tuple[bool, str, str]:
        meta = one.service.metadata
        is_new = present.get(one.service.key) != meta.uid
        return (is_new, meta.creation_timestamp or "", meta.uid)

    for one in sorted(wanting, key=order):
        try:
            _check_fits(one, group.members)
        except errors.Rejected as rejected:
            group.refused.append((one, rejected))
        else:
            group.members.append(one)
    return group


def compose(key: str, members: list[Member], owner: ownership.Ownership) -> documents.Document:
    """Return the document of a group with at least one member."""
    plans = [one.plan.document for one in members]
    first = plans[0].spec
    addresses = {one.family: one for plan in reversed(plans) for one in plan.spec.addresses}
    asked = {one.family: one for plan in plans for one in plan.spec.addresses if one.ip}
    spec = msgspec.structs.replace(
        first,
        addresses=tuple(asked.get(family, addresses[family]) for family in sorted(addresses)),
        listeners=tuple(one for plan in plans for one in plan.spec.listeners),
        target_groups=tuple(one for plan in plans for one in plan.spec.target_groups),
        type=max((plan.spec.type for plan in plans), key=_SIZES.index),
    )
    namespace, _, share = key.removeprefix(ownership.GROUP).partition("/")
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    for plan in reversed(plans):
        labels |= plan.labels
        annotations |= plan.annotations
    for name in ("service", "service-uid"):
        labels.pop(name, None)
    labels |= {**owner.cluster.labels, "namespace": namespace, "share": share}
    return documents.Document(labels, spec, annotations)


def _check_fits(one: Member, members: list[Member]) -> None:
    """Raises: Rejected naming what is in the way, and who came first."""
    if not members:
        return
    wanted, first = one.plan.document.spec, members[0].plan.document.spec
    holder = members[0].service.key
    if wanted.source_ranges != first.source_ranges:
        raise _conflict(f"its source ranges differ from those of {holder}, and there is one list")
    if {each.pool for each in wanted.addresses} != {each.pool for each in first.addresses}:
        raise _conflict(f"its address pool differs from that of {holder}")
    for other in members:
        _check_addresses(one, other)
        _check_ports(one, other)


def _check_addresses(one: Member, other: Member) -> None:
    held = {each.family: each.ip for each in other.plan.document.spec.addresses if each.ip}
    for each in one.plan.document.spec.addresses:
        if each.ip and held.get(each.family, each.ip) != each.ip:
            raise _conflict(
                f"it asks for {each.ip}, but {other.service.key} for {held[each.family]}"
            )


def _check_ports(one: Member, other: Member) -> None:
    taken = {_port_key(each) for each in other.plan.document.spec.listeners}
    for each in one.plan.document.spec.listeners:
        if _port_key(each) in taken:
            protocol, port = _port_key(each)
            raise _conflict(f"port {port}/{protocol} belongs to {other.service.key} already")


def _port_key(listener: documents.Listener) -> tuple[str, int]:
    return ("UDP" if listener.protocol == "udp" else "TCP", listener.port)


def _conflict(why: str) -> errors.Rejected:
    return errors.Rejected("ShareConflict", f"can't share the load balancer: {why}")
