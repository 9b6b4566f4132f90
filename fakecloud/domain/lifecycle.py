"""THE state machine of a load balancer: (state, event) to state. Nothing else decides a state.

    (new) ──► PENDING ──CLAIMED──► PROVISIONING ──APPLIED──► ACTIVE
                 ▲  └──GAVE_UP──┐      │  │ ▲                 │ ▲
                 └────FAILED────┼──────┘  └─┘APPLIED_OLDER    │ │ APPLIED
                                ▼                 SPEC_CHANGED│ │
              ERROR ◄──GAVE_UP── (PROVISIONING, UPDATING)     ▼ │
                └──SPEC_CHANGED, RETRIED──► UPDATING, or PENDING if it never was active
    any but DELETED ──DELETE_ASKED──► DELETING ──REMOVED──► DELETED

An update is accepted in every living state: the generation grows, the state says how far the data
plane is. While UPDATING or ERROR after having been active, the last good configuration serves.
Transitions T1 to T16 of the cloud's contract; T13 (nothing changed) and T14 (health) don't move
the state.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from fakecloud.model import State

MAX_ATTEMPTS: Final = 8
DEADLINE_S: Final = 900
ERROR_RETRY_S: Final = 300


class Event(StrEnum):
    """What can happen to a load balancer."""

    CLAIMED = "claimed"  # a worker holds the lease and begins
    APPLIED = "applied"  # the data plane runs the newest generation
    APPLIED_OLDER = "applied_older"  # the data plane runs a generation that is not the newest
    FAILED = "failed"  # this attempt failed, the next may not
    GAVE_UP = "gave_up"  # permanent, or too many attempts, or too late
    SPEC_CHANGED = "spec_changed"  # the customer wants something else
    RETRIED = "retried"  # a failed one is taken up again
    HOST_LOST = "host_lost"  # its data plane is gone and must be made again
    DELETE_ASKED = "delete_asked"
    REMOVED = "removed"  # process, ports and addresses are gone


LIVING: Final = frozenset(State) - {State.DELETING, State.DELETED}
TRANSITIONAL: Final = frozenset({State.PENDING, State.PROVISIONING, State.UPDATING, State.DELETING})

_TABLE: Final[dict[tuple[State, Event], State]] = {
    (State.PENDING, Event.CLAIMED): State.PROVISIONING,  # T2
    (State.PENDING, Event.GAVE_UP): State.ERROR,  # T5
    (State.PENDING, Event.SPEC_CHANGED): State.PENDING,
    (State.PROVISIONING, Event.CLAIMED): State.PROVISIONING,  # its worker died, another took over
    (State.PROVISIONING, Event.APPLIED): State.ACTIVE,  # T3
    (State.PROVISIONING, Event.APPLIED_OLDER): State.PROVISIONING,  # T3'
    (State.PROVISIONING, Event.FAILED): State.PENDING,  # T4
    (State.PROVISIONING, Event.GAVE_UP): State.ERROR,  # T5
    (State.PROVISIONING, Event.SPEC_CHANGED): State.PROVISIONING,
    (State.ACTIVE, Event.SPEC_CHANGED): State.UPDATING,  # T6
    (State.ACTIVE, Event.HOST_LOST): State.UPDATING,  # T15
    (State.UPDATING, Event.CLAIMED): State.UPDATING,
    (State.UPDATING, Event.APPLIED): State.ACTIVE,  # T7
    (State.UPDATING, Event.APPLIED_OLDER): State.UPDATING,
    (State.UPDATING, Event.FAILED): State.UPDATING,
    (State.UPDATING, Event.GAVE_UP): State.ERROR,  # T8
    (State.UPDATING, Event.SPEC_CHANGED): State.UPDATING,
    (State.UPDATING, Event.HOST_LOST): State.UPDATING,
    **{(state, Event.DELETE_ASKED): State.DELETING for state in LIVING},  # T10
    (State.DELETING, Event.CLAIMED): State.DELETING,
    (State.DELETING, Event.FAILED): State.DELETING,  # T11
    (State.DELETING, Event.REMOVED): State.DELETED,  # T12
}


class IllegalTransition(Exception):
    """A step that the diagram doesn't have: a bug of the caller, never a wish of a customer."""


def next_state(state: State, event: Event, *, was_active: bool = False) -> State:
    """Return the state after `event`.

    was_active: whether the load balancer ever was ACTIVE; decides where ERROR goes on (T9), since
    one that served before is updated and one that never did is provisioned.
    Raises: IllegalTransition.
    """
    if state is State.ERROR and event in (Event.SPEC_CHANGED, Event.RETRIED):
        return State.UPDATING if was_active else State.PENDING  # T9
    if state is State.ERROR and event is Event.HOST_LOST:
        return State.UPDATING if was_active else State.ERROR
    try:
        return _TABLE[state, event]
    except KeyError:
        raise IllegalTransition(f"{event} in state {state}") from None


def gives_up(attempts: int, age_s: float) -> bool:
    """Say whether another attempt makes no sense: too many, or the deadline has passed.

    attempts: failed ones of this generation; age_s: since the generation was asked for.
    """
    return attempts >= MAX_ATTEMPTS or age_s >= DEADLINE_S


def backoff_s(attempts: int, jitter: float) -> float:
    """Return the pause before the next attempt: 0.25 s doubling up to 60 s, spread by `jitter`.

    jitter: a random number in [0, 1), so that many failures don't come back at once.
    """
    return float(min(0.25 * (1 << min(attempts, 8)), 60.0) * (0.5 + jitter))
