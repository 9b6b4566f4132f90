"""What costs and serves nobody: decided from what is there, never acted upon.

Load balancers are judged by what the cloud itself sees. What a cluster still has is judged by its
inventory, which it keeps up by a lease; one that never sent any isn't judged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from fakecloud.model import LoadBalancer, OperatingState, State

RACE: Final = timedelta(seconds=60)
"""A Service may be younger than the inventory that doesn't have it."""


class Kind(StrEnum):
    """Why something is waste."""

    ORPHAN = "orphan"
    DUPLICATE = "duplicate"
    STUCK_DELETE = "stuck_delete"
    NO_TARGETS = "no_targets"
    NO_HEALTHY_TARGET = "no_healthy_target"
    IDLE = "idle"
    UNATTACHED_ADDRESS = "unattached_address"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """From when on something is waste.

    idle_connections: fewer in `idle` are no traffic. silent: how long after its lease ended a
    cluster counts as gone.
    """

    idle: timedelta = timedelta(days=7)
    idle_connections: int = 1
    unhealthy: timedelta = timedelta(hours=1)
    stuck: timedelta = timedelta(minutes=10)
    silent: timedelta = timedelta(minutes=15)


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What a cluster said: UIDs of its Services; moments of wall time, `seen` of business time."""

    services: Set[str]
    taken_at: datetime
    lease_until: datetime
    seen: datetime


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One reason why one load balancer is waste; since: business time, None if not known."""

    kind: Kind
    lb: LoadBalancer
    why: str
    since: datetime | None = None


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """Now, in business time and in wall time."""

    now: datetime
    wall: datetime


def findings(
    load_balancers: Sequence[LoadBalancer],
    connections: Mapping[str, int],
    inventories: Mapping[str, Known],
    at: Moment,
    policy: Policy,
) -> Iterator[Finding]:
    """Yield every reason, in the order of the load balancers.

    connections: how many each had within `policy.idle`, by id; none if it is missing.
    inventories: by the UID of the cluster.
    """
    spare = _duplicates(load_balancers)
    for lb in load_balancers:
        if lb.state is State.DELETING:
            yield from _stuck(lb, at, policy)
            continue
        yield from _orphan(lb, inventories, at, policy)
        if lb.id in spare:
            why = f"{spare[lb.id]} is for the same Service"
            yield Finding(kind=Kind.DUPLICATE, lb=lb, why=why)
        if lb.was_active and lb.spec.admin_up:
            yield from _useless(lb, connections.get(lb.id, 0), at.now, policy)


def _stuck(lb: LoadBalancer, at: Moment, policy: Policy) -> Iterator[Finding]:
    lasts = at.wall - lb.asked_at
    if lasts > policy.stuck:
        reason = f": {lb.last_error.message}" if lb.last_error else ""
        why = f"its deletion has lasted {_words(lasts)}{reason}"
        yield Finding(kind=Kind.STUCK_DELETE, lb=lb, why=why)


def _orphan(
    lb: LoadBalancer, inventories: Mapping[str, Known], at: Moment, policy: Policy
) -> Iterator[Finding]:
    known = inventories.get(lb.labels.get("cluster-uid", ""))
    if known is None:
        return
    silent = at.wall - known.lease_until
    if silent > policy.silent:
        why = f"its cluster hasn't been heard of for {_words(at.wall - known.taken_at)}"
        yield Finding(kind=Kind.ORPHAN, lb=lb, why=why, since=known.seen)
        return
    uid = lb.labels.get("service-uid")
    if uid and uid not in known.services and lb.asked_at < known.taken_at - RACE:
        yield Finding(kind=Kind.ORPHAN, lb=lb, why="its cluster has no such Service any more")


def _duplicates(load_balancers: Iterable[LoadBalancer]) -> dict[str, str]:
    """Return who is there besides another for the same Service, and that one's name.

    The one that the controller names after the Service is the right one, else the oldest.
    """
    groups: defaultdict[tuple[str, str], list[LoadBalancer]] = defaultdict(list)
    for lb in load_balancers:
        uid = lb.labels.get("service-uid")
        if uid and lb.state is not State.DELETING:
            groups[lb.labels.get("cluster-uid", ""), uid].append(lb)
    found: dict[str, str] = {}
    for (_, uid), group in groups.items():
        first, *rest = sorted(group, key=lambda lb: (lb.name != f"k8s-{uid}", lb.created_at, lb.pk))
        found |= {lb.id: first.name for lb in rest}
    return found


def _useless(
    lb: LoadBalancer, connections: int, now: datetime, policy: Policy
) -> Iterator[Finding]:
    age = now - lb.created_at
    if not any(group.targets for group in lb.spec.target_groups):
        if age > policy.unhealthy:
            yield Finding(kind=Kind.NO_TARGETS, lb=lb, why="it has no targets")
        return
    if lb.operating_state is OperatingState.OFFLINE:
        since = max((one.since for one in lb.targets if one.health == "unhealthy"), default=None)
        if since is not None and now - since > policy.unhealthy:
            why = f"no target has been healthy for {_words(now - since)}"
            yield Finding(kind=Kind.NO_HEALTHY_TARGET, lb=lb, why=why, since=since)
    if age >= policy.idle and connections < policy.idle_connections:
        why = f"{connections} connections in {_words(policy.idle)}"
        yield Finding(kind=Kind.IDLE, lb=lb, why=why, since=now - policy.idle)


def _words(lasts: timedelta) -> str:
    seconds = int(lasts.total_seconds())
    for name, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {name}"
    return f"{seconds} s"
