"""The conditions that say where a Service stands, after KEP-4631.

LoadBalancerProvisioning: is the cloud at work; LoadBalancerServing: does the load balancer serve.
Beside these two, facts: Reachable, SourceIPPreserved, and LoadBalancerPortsError while there is
one (KEP-1435). Conditions of others are kept as they are.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from ccm.kube import objects

PROVISIONING: Final = "LoadBalancerProvisioning"
SERVING: Final = "LoadBalancerServing"
REACHABLE: Final = "Reachable"
SOURCE_IP_PRESERVED: Final = "SourceIPPreserved"
PORTS_ERROR: Final = "LoadBalancerPortsError"

FACTS: Final = frozenset({REACHABLE, SOURCE_IP_PRESERVED, PORTS_ERROR})
OURS: Final = FACTS | {PROVISIONING, SERVING}


class Stage(StrEnum):
    """Where a Service stands."""

    IN_PROGRESS = "InProgress"
    COMPLETE = "Complete"
    UNSUPPORTED = "Unsupported"
    INFRASTRUCTURE = "Infrastructure"


def advance(
    current: tuple[objects.Condition, ...],
    stage: Stage,
    message: str,
    now: str,
    *,
    is_serving: bool,
    facts: tuple[objects.Condition, ...] | None = None,
) -> tuple[objects.Condition, ...]:
    """Return the whole list of conditions for a Service at `stage`.

    is_serving: the load balancer serves, perhaps by an older configuration. facts: all that are
    true now; None leaves them as they are. now: RFC 3339; a condition whose status stays keeps
    its transition time.
    """
    at_work = stage is Stage.IN_PROGRESS
    waiting_reason = "Provisioning" if at_work else stage.value
    serving_reason = "Serving" if is_serving else waiting_reason
    ours = (
        objects.Condition(PROVISIONING, status(at_work), stage.value, message),
        objects.Condition(SERVING, status(is_serving), serving_reason, message),
    )
    kept = {one.type: one for one in current}
    if facts is None:
        facts = tuple(one for one in current if one.type in FACTS)
    dated = tuple(_dated(one, kept.get(one.type), now) for one in (*ours, *facts))
    return without_ours(current) + dated


def without_ours(current: tuple[objects.Condition, ...]) -> tuple[objects.Condition, ...]:
    """Return the conditions of others."""
    return tuple(one for one in current if one.type not in OURS)


def status(is_true: bool) -> str:
    """Return the status of a condition that is certain."""
    return "True" if is_true else "False"


def _dated(new: objects.Condition, old: objects.Condition | None, now: str) -> objects.Condition:
    is_same = old is not None and old.status == new.status and old.last_transition_time
    return msgspec.structs.replace(
        new,
        last_transition_time=old.last_transition_time if old and is_same else now,
        observed_generation=old.observed_generation if old else 0,
    )
