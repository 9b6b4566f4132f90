"""Rules, decided purely: what they are about, which looks hit, how long, what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from fakecloud.domain import chaos_labels, fault_actions, faults, scenarios
from fakecloud.domain.faults import Action, Facts, Layer, Match, Rule, Trigger, Window

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


def rule(**changes) -> Rule:
    values = {
        "id": "flt_1",
        "project": "default",
        "name": "",
        "layer": Layer.API,
        "priority": 0,
        "enabled": True,
        "match": Match(),
        "trigger": Trigger(),
        "action": Action(type="html_502"),
        "seed": 7,
        "looks": 0,
        "hits": 0,
        "max_hits": None,
        "created_at": NOW,
        "expires_at": NOW + timedelta(seconds=600),
    }
    return Rule(**(values | changes))


def facts(**changes) -> Facts:
    values = {
        "layer": Layer.API,
        "project": "default",
        "method": "PUT",
        "path": "/v1/load-balancers/web",
        "operation": "put",
        "resource": "web",
        "labels": {"env": "prod"},
        "user_agent": "ccm/1.0",
        "listeners": ("http",),
    }
    return Facts(**(values | changes))


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (Match(), True),
        (Match(methods=("GET", "PUT")), True),
        (Match(methods=("GET",)), False),
        (Match(route="/v1/load-balancers/*"), True),
        (Match(route="/v1/operations/*"), False),
        (Match(operation="p?t"), True),
        (Match(operation="delete"), False),
        (Match(resource_name="w*"), True),
        (Match(resource_name="W*"), False),
        (Match(label_selector="env=prod,!legacy"), True),
        (Match(label_selector="env in (test)"), False),
        (Match(user_agent="ccm/*"), True),
        (Match(user_agent="curl*"), False),
        (Match(listener="http*"), True),
        (Match(listener="dns"), False),
        (Match(project="default"), True),
        (Match(project="other"), False),
    ],
)
def test_a_rule_is_about_what_all_of_its_match_says(match, expected):
    assert faults.matches(rule(match=match), facts()) is expected


def test_a_rule_disturbs_its_own_project_and_layer_only():
    assert not faults.matches(rule(), facts(project="other"))
    assert not faults.matches(rule(), facts(layer=Layer.WATCH))
    assert faults.matches(rule(match=Match(project="other")), facts(project="other"))


@pytest.mark.parametrize(
    ("action", "operation", "expected"),
    [
        ("stuck", "create", True),
        ("stuck", "update", True),
        ("stuck", "delete", False),
        ("slow_delete", "delete", True),
        ("slow_delete", "create", False),
    ],
)
def test_provision_faults_let_delete_pass_unless_told_otherwise(action, operation, expected):
    made = rule(layer=Layer.PROVISION, action=Action(type=action))
    asked = facts(layer=Layer.PROVISION, operation=operation)
    assert faults.matches(made, asked) is expected
    told = rule(layer=Layer.PROVISION, action=made.action, match=Match(operation="delete"))
    assert faults.matches(told, facts(layer=Layer.PROVISION, operation="delete"))


@pytest.mark.parametrize(
    ("trigger", "hits"),
    [
        (Trigger(), [1, 2, 3, 4, 5, 6]),
        (Trigger(every_n=3), [3, 6]),
        (Trigger(first_n=2), [1, 2]),
        (Trigger(nth=4), [4]),
        (Trigger(sequence=(True, False, True)), [1, 3]),
        (Trigger(window=Window(first=2, last=4)), [2, 3, 4]),
        (Trigger(probability=0.0), []),
        (Trigger(probability=1.0), [1, 2, 3, 4, 5, 6]),
    ],
)
def test_the_trigger_says_which_looks_hit(trigger, hits):
    made = rule(trigger=trigger)
    assert [n for n in range(1, 7) if faults.triggers(made, n)] == hits


def test_the_highest_priority_is_asked_first_then_the_oldest():
    young = rule(id="flt_a", created_at=NOW + timedelta(seconds=1))
    old, first = rule(id="flt_z"), rule(id="flt_p", priority=5)
    assert faults.in_order([young, old, first]) == (first, old, young)


def test_a_rule_lives_until_it_is_off_spent_or_over():
    assert rule().lives(NOW)
    assert not rule(enabled=False).lives(NOW)
    assert not rule(max_hits=2, hits=2).lives(NOW)
    assert not rule().lives(NOW + timedelta(seconds=600))


def test_durations_follow_their_distribution():
    fixed = Action(type="latency", seconds=2.0)
    uniform = Action(type="latency", seconds=1.0, most_s=3.0, distribution="uniform")
    lognormal = Action(type="latency", seconds=2.0, sigma=0.5, distribution="lognormal", most_s=9.0)
    assert faults.duration_s(fixed, 0.9) == 2.0
    assert [faults.duration_s(uniform, n) for n in (0.0, 0.5)] == [1.0, 2.0]
    assert faults.duration_s(lognormal, 0.5) == pytest.approx(2.0)
    assert faults.duration_s(lognormal, 1.0) == 9.0


@pytest.mark.parametrize(
    ("layer", "trigger", "action", "pointer"),
    [
        ("api", {}, {"type": "stuck"}, "/action/type"),
        ("api", {}, {"type": "status"}, "/action/code"),
        ("api", {}, {"type": "status", "code": 200}, "/action/code"),
        ("api", {}, {"type": "status", "code": "teapot"}, "/action/code"),
        ("api", {}, {"type": "html_502", "seconds": 1.0}, "/action/seconds"),
        ("api", {"nth": 1, "every_n": 2}, {"type": "html_502"}, "/trigger"),
        ("api", {"window": {"first": 3, "last": 2}}, {"type": "html_502"}, "/trigger/window"),
        ("provision", {}, {"type": "fail_permanent", "code": 500}, "/action/code"),
        ("provision", {}, {"type": "stuck", "phase": "pre_commit"}, "/action/phase"),
        ("worker", {}, {"type": "crash"}, "/action/point"),
        ("worker", {}, {"type": "pause", "seconds": 1.0, "point": "pre_commit"}, "/action/point"),
        (
            "api",
            {},
            {"type": "latency", "seconds": 5.0, "most_s": 1.0, "distribution": "uniform"},
            "/action/most_s",
        ),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_by_field(layer, trigger, action, pointer):
    found = fault_actions.mistakes(
        Layer(layer), Match(), msgspec.convert(trigger, Trigger), msgspec.convert(action, Action)
    )
    assert [one.pointer for one in found] == [pointer]


def test_a_selector_is_checked_when_the_rule_is_made():
    found = fault_actions.mistakes(
        Layer.API, Match(label_selector="a b"), Trigger(), Action(type="html_502")
    )
    assert [one.pointer for one in found] == ["/match/label_selector"]


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_every_scenario_is_made_of_valid_rules(name):
    for one in scenarios.SCENARIOS[name].faults:
        assert fault_actions.mistakes(one.layer, one.match, one.trigger, one.action) == []


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (
            "provision",
            "fail_transient=3,delay=90s",
            (Action(type="fail_transient", times=3), Action(type="delay", seconds=90.0)),
        ),
        ("provision", "stuck", (Action(type="stuck"),)),
        ("provision", "delay=1500ms", (Action(type="delay", seconds=1.5),)),
        ("provision", "delay=2m", (Action(type="delay", seconds=120.0),)),
        ("provision", "fail_permanent", (Action(type="fail_permanent"),)),
        (
            "provision",
            "fail_permanent=config_invalid",
            (Action(type="fail_permanent", code="config_invalid"),),
        ),
        ("provision", "error_then_heal=30s", (Action(type="error_then_heal", seconds=30.0),)),
        ("delete", "stuck=60s", (Action(type="delay", seconds=60.0),)),
        (
            "dataplane",
            "jitter=300ms,bandwidth=1000/60s",
            (
                Action(type="jitter", seconds=0.3),
                Action(type="bandwidth", bytes_per_s=1000, lasts_s=60.0),
            ),
        ),
        ("dataplane", "limit_data=10", (Action(type="limit_data", bytes=10),)),
        ("dataplane", "cert_expire/5s", (Action(type="cert_expire", lasts_s=5.0),)),
    ],
)
def test_labels_and_annotations_ask_for_faults(key, value, expected):
    pairs = {f"chaos.fakecloud.dev/{key}": value}
    assert getattr(chaos_labels.parse({}, pairs), key) == expected
    assert getattr(chaos_labels.parse(pairs, {}), key) == expected
    assert chaos_labels.mistakes(pairs, pairs) == ()


def test_an_annotation_wins_over_a_label():
    key = "chaos.fakecloud.dev/provision"
    asked = chaos_labels.parse({key: "stuck"}, {key: "delay=5s"})
    assert asked.actions("create") == (Action(type="delay", seconds=5.0),)


def test_state_error_fails_every_attempt_but_a_delete():
    asked = chaos_labels.parse({"chaos.fakecloud.dev/state": "error"}, {})
    assert [one.type for one in asked.actions("update")] == ["fail_permanent"]
    assert asked.actions("delete") == ()
    assert chaos_labels.parse({"team": "a"}, {"x": "y"}) is chaos_labels.NOTHING


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("provision", "explode", "not one of"),
        ("provision", "delay=soon", "not a time such as 90s"),
        ("provision", "delay=0s", "not a time such as 90s"),
        ("provision", "delay=9999s", "at most 3600s"),
        ("provision", "fail_transient=0", "not a count"),
        ("provision", "fail_transient=many", "not a count"),
        ("provision", "fail_permanent=Oops!", "not a code"),
        ("provision", "", "not one of"),
        ("delete", "error_then_heal=3s", "not one of"),
        ("state", "active", "'error'"),
        ("weather", "rain", "not known"),
    ],
)
def test_what_is_not_understood_is_named_by_its_key(key, value, says):
    (wrong,) = chaos_labels.mistakes({}, {f"chaos.fakecloud.dev/{key}": value})
    assert wrong.pointer == f"/annotations/chaos.fakecloud.dev~1{key}"
    assert f"annotation chaos.fakecloud.dev/{key}" in wrong.message
    assert says in wrong.message


def test_a_token_is_refused_and_taken_by_turns_unless_a_trigger_says_when():
    def hits(action: Action, trigger: Trigger) -> str:
        one = rule(action=action, trigger=trigger)
        return "".join("x" if faults.triggers(one, n) else "." for n in range(1, 9))

    assert hits(Action(type="auth_flap"), Trigger()) == "x.x.x.x."
    assert hits(Action(type="auth_flap", times=3), Trigger()) == "xxx...xx"
    assert hits(Action(type="auth_flap"), Trigger(first_n=2)) == "xx......"
    assert hits(Action(type="html_502"), Trigger()) == "xxxxxxxx"


def test_every_action_is_described_and_its_example_names_what_it_needs():
    for layer, kinds in fault_actions.ACTIONS.items():
        for name, kind in kinds.items():
            assert kind.says, name
            for parameter in kind.needs:
                assert f"-p {parameter}=" in kind.example, (layer, name)
