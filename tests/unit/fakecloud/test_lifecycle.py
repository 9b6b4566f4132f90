"""The state machine: every transition of the contract, and no other."""

from __future__ import annotations

import itertools

import pytest

from fakecloud.domain import lifecycle
from fakecloud.domain.lifecycle import Event
from fakecloud.model import State

S, E = State, Event

TRANSITIONS = [
    pytest.param(S.PENDING, E.CLAIMED, S.PROVISIONING, id="T2"),
    pytest.param(S.PROVISIONING, E.APPLIED, S.ACTIVE, id="T3"),
    pytest.param(S.PROVISIONING, E.APPLIED_OLDER, S.PROVISIONING, id="T3'"),
    pytest.param(S.PROVISIONING, E.FAILED, S.PENDING, id="T4"),
    pytest.param(S.PROVISIONING, E.CLAIMED, S.PROVISIONING, id="T4-lease-taken-over"),
    pytest.param(S.PENDING, E.GAVE_UP, S.ERROR, id="T5-pending"),
    pytest.param(S.PROVISIONING, E.GAVE_UP, S.ERROR, id="T5-provisioning"),
    pytest.param(S.ACTIVE, E.SPEC_CHANGED, S.UPDATING, id="T6"),
    pytest.param(S.PENDING, E.SPEC_CHANGED, S.PENDING, id="T6-pending"),
    pytest.param(S.PROVISIONING, E.SPEC_CHANGED, S.PROVISIONING, id="T6-provisioning"),
    pytest.param(S.UPDATING, E.SPEC_CHANGED, S.UPDATING, id="T6-updating"),
    pytest.param(S.UPDATING, E.APPLIED, S.ACTIVE, id="T7"),
    pytest.param(S.UPDATING, E.APPLIED_OLDER, S.UPDATING, id="T7-older"),
    pytest.param(S.UPDATING, E.CLAIMED, S.UPDATING, id="T7-claimed"),
    pytest.param(S.UPDATING, E.FAILED, S.UPDATING, id="T7-transient"),
    pytest.param(S.UPDATING, E.GAVE_UP, S.ERROR, id="T8"),
    pytest.param(S.PENDING, E.DELETE_ASKED, S.DELETING, id="T10-pending"),
    pytest.param(S.PROVISIONING, E.DELETE_ASKED, S.DELETING, id="T10-provisioning"),
    pytest.param(S.ACTIVE, E.DELETE_ASKED, S.DELETING, id="T10-active"),
    pytest.param(S.UPDATING, E.DELETE_ASKED, S.DELETING, id="T10-updating"),
    pytest.param(S.ERROR, E.DELETE_ASKED, S.DELETING, id="T10-error"),
    pytest.param(S.DELETING, E.CLAIMED, S.DELETING, id="T11-claimed"),
    pytest.param(S.DELETING, E.FAILED, S.DELETING, id="T11"),
    pytest.param(S.DELETING, E.REMOVED, S.DELETED, id="T12"),
    pytest.param(S.ACTIVE, E.HOST_LOST, S.UPDATING, id="T15"),
    pytest.param(S.UPDATING, E.HOST_LOST, S.UPDATING, id="T15-updating"),
]
FROM_ERROR = {E.SPEC_CHANGED, E.RETRIED, E.HOST_LOST}
LEGAL = {tuple(p.values[:2]) for p in TRANSITIONS} | {(S.ERROR, event) for event in FROM_ERROR}


@pytest.mark.parametrize(("state", "event", "after"), TRANSITIONS)
@pytest.mark.parametrize("was_active", [False, True])
def test_transition(state, event, after, was_active):
    assert lifecycle.next_state(state, event, was_active=was_active) is after


@pytest.mark.parametrize(
    ("event", "was_active", "after"),
    [
        pytest.param(E.SPEC_CHANGED, False, S.PENDING, id="T9-changed-never-active"),
        pytest.param(E.SPEC_CHANGED, True, S.UPDATING, id="T9-changed-was-active"),
        pytest.param(E.RETRIED, False, S.PENDING, id="T9-retried-never-active"),
        pytest.param(E.RETRIED, True, S.UPDATING, id="T9-retried-was-active"),
        pytest.param(E.HOST_LOST, True, S.UPDATING, id="T15-served-on-in-error"),
        pytest.param(E.HOST_LOST, False, S.ERROR, id="T15-nothing-to-lose"),
    ],
)
def test_error_goes_on_by_what_served_before(event, was_active, after):
    assert lifecycle.next_state(S.ERROR, event, was_active=was_active) is after


@pytest.mark.parametrize(
    ("state", "event"),
    [pytest.param(s, e, id=f"{s}-{e}") for s, e in itertools.product(S, E) if (s, e) not in LEGAL],
)
def test_every_other_step_is_refused(state, event):
    with pytest.raises(lifecycle.IllegalTransition, match=f"{event} in state {state}"):
        lifecycle.next_state(state, event, was_active=True)


def test_nothing_leads_out_of_deleted():
    assert not [pair for pair in LEGAL if pair[0] is S.DELETED]


@pytest.mark.parametrize(
    ("attempts", "age_s", "given_up"),
    [
        pytest.param(7, 899.9, False, id="one left"),
        pytest.param(8, 0.0, True, id="too many"),
        pytest.param(0, 900.0, True, id="too late"),
    ],
)
def test_attempts_end_by_number_or_by_time(attempts, age_s, given_up):
    assert lifecycle.gives_up(attempts, age_s) is given_up


def test_backoff_doubles_from_half_a_second_to_a_minute_with_jitter():
    middle = [lifecycle.backoff_s(attempts, 0.5) for attempts in range(1, 12)]
    assert middle == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert lifecycle.backoff_s(3, 0.0) == 1.0
    assert lifecycle.backoff_s(3, 0.999) < 3.0
