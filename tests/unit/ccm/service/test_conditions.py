"""Where a Service stands, as conditions (KEP-4631)."""

from __future__ import annotations

from ccm.kube import objects
from ccm.service import conditions

FOREIGN = objects.Condition("Foreign", "True", "Because", "kept", "2025-01-01T00:00:00Z", 7)


def summary(found):
    return [(one.type, one.status, one.reason) for one in found]


def test_e_11_b_23_first_sight():
    found = conditions.advance((), conditions.Stage.IN_PROGRESS, "", "now", is_serving=False)
    assert summary(found) == [
        ("LoadBalancerProvisioning", "True", "InProgress"),
        ("LoadBalancerServing", "False", "Provisioning"),
    ]


def test_e_11_transition_time_moves_with_the_status_only():
    first = conditions.advance((), conditions.Stage.IN_PROGRESS, "", "t1", is_serving=False)
    done = conditions.advance(first, conditions.Stage.COMPLETE, "", "t2", is_serving=True)
    again = conditions.advance(done, conditions.Stage.COMPLETE, "", "t3", is_serving=True)
    assert {one.last_transition_time for one in done} == {"t2"}
    assert again == done


def test_s_35_conditions_of_others_are_kept_whole():
    found = conditions.advance(
        (FOREIGN,), conditions.Stage.UNSUPPORTED, "why", "now", is_serving=False
    )
    assert found[0] == FOREIGN
    assert conditions.without_ours(found) == (FOREIGN,)


FACT = objects.Condition(conditions.REACHABLE, "True", "Connected", "10.0.0.1")


def test_facts_stay_unless_they_are_given():
    def stage(current, facts):
        return conditions.advance(
            current, conditions.Stage.COMPLETE, "", "t", is_serving=True, facts=facts
        )

    first = stage((), (FACT,))
    assert [one.type for one in first][2:] == ["Reachable"]
    assert stage(first, None) == first
    assert [one.type for one in stage(first, ())] == [
        "LoadBalancerProvisioning",
        "LoadBalancerServing",
    ]
