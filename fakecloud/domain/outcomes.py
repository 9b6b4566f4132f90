"""What a worker's attempt means for the load balancer: values in, values out.

A load balancer may have changed while the worker was busy: `claimed` is what it worked on, `lb`
is what the row holds now. `now` is business time, for what people read; `wall` decides when the
row is due again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from fakecloud.domain import lifecycle
from fakecloud.domain.lifecycle import Event
from fakecloud.errors import DataPlaneError, Permanent
from fakecloud.model import (
    BILLING_OK,
    Condition,
    ErrorNote,
    LoadBalancer,
    OperatingState,
    OperationStatus,
    State,
    TargetStatus,
)

BLOCKED_AFTER = 5
CERTIFICATES_VALID = "CertificatesValid"
SOON = timedelta(days=30)
_SERVING = frozenset({State.ACTIVE, State.UPDATING, State.ERROR})


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is known when the data plane stands: of health, and when certificates end, by name."""

    operating_state: OperatingState
    targets: tuple[TargetStatus, ...]
    expiries: Mapping[str, datetime] = {}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The row to write; how the operations up to the claimed generation end, None: they go on.

    waits: the work is done and only time has to pass.
    """

    lb: LoadBalancer
    ends: OperationStatus | None = None
    waits: bool = False


def applied(
    claimed: LoadBalancer, lb: LoadBalancer, now: datetime, wall: datetime, seen: Seen
) -> Outcome:
    """T3, T3', T7: the data plane runs the claimed generation."""
    if lb.state is State.DELETING:
        return Outcome(lb=lb)  # asked meanwhile; it is due for that
    newest = (claimed.generation, claimed.suspended) == (lb.generation, lb.suspended)
    event = Event.APPLIED if newest else Event.APPLIED_OLDER
    active = msgspec.structs.replace(
        lb,
        state=lifecycle.next_state(lb.state, event),
        observed_generation=claimed.generation,
        was_active=True,
        attempts=0,
        due_at=None if newest else wall,
        ready_at=None if newest else lb.ready_at,
        last_error=None,
        operating_state=seen.operating_state,
        targets=seen.targets,
        conditions=_with(lb, "DataPlaneReady", "True", "Applied", "", now),
    )
    active = with_certificates(active, seen.expiries, now)
    return Outcome(lb=active, ends=OperationStatus.SUCCEEDED)


def with_certificates(
    lb: LoadBalancer, expiries: Mapping[str, datetime], now: datetime
) -> LoadBalancer:
    """Return `lb` with a condition about the certificates that it uses, if it uses any.

    One that ends soon is told in time; one that ended is served all the same: clients decide.
    """
    others = tuple(one for one in lb.conditions if one.type != CERTIFICATES_VALID)
    if not expiries:
        return msgspec.structs.replace(lb, conditions=others)
    name, end = min(expiries.items(), key=lambda one: (one[1], one[0]))
    status, reason, message = "True", "Valid", ""
    if end <= now:
        status, reason, message = "False", "Expired", f"certificate {name} ended at {end:%FT%TZ}"
    elif end <= now + SOON:
        reason, message = "ExpiresSoon", f"certificate {name} ends at {end:%FT%TZ}"
    conditions = _with(lb, CERTIFICATES_VALID, status, reason, message, now)
    return msgspec.structs.replace(lb, conditions=conditions)


def is_early(claimed: LoadBalancer, lb: LoadBalancer, wall: datetime) -> bool:
    """Say whether the work is done but the cloud pretends that it isn't yet."""
    same = (claimed.generation, claimed.state) == (lb.generation, lb.state)
    return same and lb.ready_at is not None and wall < lb.ready_at


def waiting(lb: LoadBalancer) -> Outcome:
    """Leave the state as it is; the row is due again when the simulated delay is over."""
    later = msgspec.structs.replace(lb, due_at=lb.ready_at, attempts=0, last_error=None)
    return Outcome(lb=later, waits=True)


def lost(lb: LoadBalancer, wall: datetime) -> LoadBalancer | None:
    """T15: its data plane is gone and must be made again, without a simulated delay.

    None when there is nothing to recover: it never served, or is on its way out.
    """
    if not lb.was_active or lb.state not in _SERVING:
        return None
    state = lifecycle.next_state(lb.state, Event.HOST_LOST, was_active=True)
    return msgspec.structs.replace(
        lb, state=state, attempts=0, due_at=wall, asked_at=wall, ready_at=None
    )


def suspended(lb: LoadBalancer, why: str | None, now: datetime, wall: datetime) -> LoadBalancer:
    """T16: its project is suspended, or goes on (`why` None): its listeners stop, or start again.

    What never served has only to know; it is made without listeners then.
    """
    again = lost(lb, wall) or lb
    if why is None:
        conditions = tuple(one for one in lb.conditions if one.type != BILLING_OK)
    else:
        conditions = _with(lb, BILLING_OK, "False", "ProjectSuspended", why, now)
    return msgspec.structs.replace(again, conditions=conditions)


def removed(lb: LoadBalancer, now: datetime) -> Outcome:
    """T12: nothing of it is left."""
    gone = msgspec.structs.replace(
        lb,
        state=lifecycle.next_state(lb.state, Event.REMOVED),
        operating_state=OperatingState.OFFLINE,
        due_at=None,
        deleted_at=now,
        last_error=None,
    )
    return Outcome(lb=gone, ends=OperationStatus.SUCCEEDED)


def failed(
    claimed: LoadBalancer,
    lb: LoadBalancer,
    error: DataPlaneError,
    now: datetime,
    wall: datetime,
    jitter: float,
) -> Outcome:
    """T4, T5, T8, T11: say why, and decide whether and when to try again.

    jitter: a random number in [0, 1).
    """
    note = ErrorNote(code=error.code, message=error.message, at=now)
    outdated = claimed.generation != lb.generation
    if outdated or (lb.state is State.DELETING and claimed.state is not State.DELETING):
        return Outcome(lb=msgspec.structs.replace(lb, due_at=wall, last_error=note))
    attempts = lb.attempts + 1
    again = wall + timedelta(seconds=lifecycle.backoff_s(attempts, jitter))
    tried = msgspec.structs.replace(lb, attempts=attempts, due_at=again, last_error=note)
    if lb.state is State.DELETING:
        return Outcome(lb=_still_deleting(tried, note, now))
    conditions = _with(lb, "DataPlaneReady", "False", _reason(note), note.message, now)
    tried = msgspec.structs.replace(tried, conditions=conditions)
    age_s = (wall - lb.asked_at).total_seconds()
    if isinstance(error, Permanent) or lifecycle.gives_up(attempts, age_s):
        soon = error.retry_s if isinstance(error, Permanent) else None
        rest_s = lifecycle.ERROR_RETRY_S if soon is None else soon
        given_up = msgspec.structs.replace(
            tried,
            state=lifecycle.next_state(lb.state, Event.GAVE_UP),
            due_at=wall + timedelta(seconds=rest_s),
        )
        return Outcome(lb=given_up, ends=OperationStatus.FAILED)
    return Outcome(
        lb=msgspec.structs.replace(tried, state=lifecycle.next_state(lb.state, Event.FAILED))
    )


def _still_deleting(lb: LoadBalancer, note: ErrorNote, now: datetime) -> LoadBalancer:
    """T11: a teardown is tried for ever; after some tries a condition says that it is blocked."""
    state = lifecycle.next_state(lb.state, Event.FAILED)
    if lb.attempts < BLOCKED_AFTER:
        return msgspec.structs.replace(lb, state=state)
    conditions = _with(lb, "DeleteBlocked", "True", _reason(note), note.message, now)
    return msgspec.structs.replace(lb, state=state, conditions=conditions)


def _reason(note: ErrorNote) -> str:
    return "".join(part.capitalize() for part in note.code.split("_"))


def _with(
    lb: LoadBalancer, type: str, status: str, reason: str, message: str, now: datetime
) -> tuple[Condition, ...]:
    """Return the conditions with a new one; its transition time moves only when the status does."""
    since = next(
        (c.last_transition_time for c in lb.conditions if (c.type, c.status) == (type, status)),
        now,
    )
    new = Condition(
        type=type,
        status="True" if status == "True" else "False",
        reason=reason,
        message=message,
        last_transition_time=since,
    )
    return (new, *(c for c in lb.conditions if c.type != type))
