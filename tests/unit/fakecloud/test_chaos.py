"""Faults at work on both databases: rules shared, hits logged, workers disturbed, nothing left."""

from __future__ import annotations

import msgspec
import pytest

from fakecloud import errors
from fakecloud.chaos import engine as chaos
from fakecloud.chaos.engine import Chaos, Draft
from fakecloud.domain.faults import Action, Facts, Layer, Match, Trigger
from fakecloud.metrics import Metrics
from fakecloud.model import State
from fakecloud.requests.wishes import Wish
from tests.fakes.small_cloud import LEASE_S, PROJECT, Crashed, SmallCloud, spec

PREFIX = "chaos.fakecloud.dev/"


def inject(cloud: SmallCloud, layer: str, type: str, **more):
    match = more.pop("match", Match())
    trigger = more.pop("trigger", Trigger())
    kept = {k: more.pop(k) for k in ("max_hits", "expires_in_s", "id", "seed") if k in more}
    action = Action(type=type, **more)
    draft = Draft(layer=Layer(layer), action=action, match=match, trigger=trigger, **kept)
    return cloud.chaos.create(PROJECT, draft)


def log(cloud: SmallCloud) -> list[str]:
    """Return the actions in the log, oldest first."""
    found = cloud.chaos.log(PROJECT, before=1 << 62, limit=1000)
    return [one.action for one in reversed(found)]


def flag(cloud: SmallCloud, name: str) -> tuple[str, str, str] | None:
    found = [c for c in cloud.get(name).conditions if c.type == "FaultInjected"]
    return (found[0].status, found[0].reason, found[0].message) if found else None


def pass_time(cloud: SmallCloud, seconds: float) -> None:
    """Let time pass a second at a time, with the worker at work and rules renewed."""
    for _ in range(int(seconds)):
        cloud.clock.advance(1)
        cloud.chaos.refresh()
        cloud.settle()


def test_stuck_lasts_until_the_fault_is_removed(cloud):
    made = inject(cloud, "provision", "stuck")
    cloud.put("web")
    pass_time(cloud, 30)
    assert cloud.get("web").state is State.PROVISIONING
    assert cloud.get("web").attempts == 0
    assert flag(cloud, "web") == ("True", "Stuck", made.id)
    assert log(cloud) == ["stuck"], "a hit that goes on is one hit"
    cloud.chaos.remove(PROJECT, made.id)
    pass_time(cloud, 2)
    assert cloud.get("web").state is State.ACTIVE
    assert flag(cloud, "web") == ("False", "Over", "")
    assert cloud.history("web") == ["PENDING", "PROVISIONING", "ACTIVE"]


def test_stuck_ends_by_itself_when_the_fault_expires_and_nothing_is_left(cloud):
    inject(cloud, "provision", "stuck", expires_in_s=10)
    cloud.put("web")
    pass_time(cloud, 8)
    assert cloud.get("web").state is State.PROVISIONING
    pass_time(cloud, 5)
    assert cloud.get("web").state is State.ACTIVE
    assert cloud.chaos.page(PROJECT, "", 10) == []
    assert cloud.chaos.quiet(*Layer)


def test_what_is_stuck_can_be_deleted(cloud):
    inject(cloud, "provision", "stuck")
    cloud.put("web")
    pass_time(cloud, 2)
    cloud.delete("web")
    cloud.settle()
    assert cloud.living() == []
    assert cloud.host.running == {}


def test_a_delay_lasts_as_long_as_it_says(cloud):
    inject(cloud, "provision", "delay", seconds=5.0, phase="post_apply")
    cloud.put("web")
    pass_time(cloud, 4)
    assert cloud.get("web").state is State.PROVISIONING
    assert cloud.host.running, "the data plane stands, the cloud says so later"
    pass_time(cloud, 2)
    assert cloud.get("web").state is State.ACTIVE


def test_a_delay_goes_on_after_a_restart(cloud):
    inject(cloud, "provision", "delay", seconds=10.0)
    cloud.put("web")
    pass_time(cloud, 6)
    cloud.restart()
    pass_time(cloud, 3)
    assert cloud.get("web").state is State.PROVISIONING
    pass_time(cloud, 3)
    assert cloud.get("web").state is State.ACTIVE
    assert log(cloud) == ["delay"]


def test_transient_failures_are_retried_so_many_times(cloud):
    inject(cloud, "provision", "fail_transient", times=3)
    cloud.put("web")
    pass_time(cloud, 20)
    assert cloud.get("web").state is State.ACTIVE
    assert log(cloud) == ["fail_transient"] * 3
    assert cloud.history("web").count("PENDING") == 4


def test_a_permanent_failure_has_its_code_and_ends_with_the_fault(cloud):
    made = inject(cloud, "provision", "fail_permanent", code="config_invalid")
    cloud.put("web")
    cloud.settle()
    lb = cloud.get("web")
    assert lb.state is State.ERROR
    assert lb.last_error is not None
    assert lb.last_error.code == "config_invalid"
    assert flag(cloud, "web") == ("True", "FailPermanent", made.id)
    cloud.chaos.reset(PROJECT)
    cloud.settle()
    assert cloud.get("web").state is State.ACTIVE, "it need not wait for the usual retry"


def test_error_then_heal(cloud):
    inject(cloud, "provision", "error_then_heal", seconds=10.0)
    cloud.put("web")
    pass_time(cloud, 9)
    assert cloud.get("web").state is State.ERROR
    pass_time(cloud, 3)
    assert cloud.get("web").state is State.ACTIVE


def test_slow_delete(cloud):
    cloud.active("web")
    inject(cloud, "provision", "slow_delete", seconds=5.0)
    cloud.delete("web")
    pass_time(cloud, 4)
    assert cloud.get("web").state is State.DELETING
    pass_time(cloud, 2)
    assert cloud.living() == []


@pytest.mark.parametrize("point", ["claim", "pre_apply", "post_apply", "pre_commit", "post_commit"])
def test_a_crash_at_any_point_loses_nothing(cloud, point):
    inject(cloud, "worker", "crash", point=point, max_hits=1)
    cloud.put("web")
    with pytest.raises(Crashed):
        cloud.settle()
    cloud.restart()
    cloud.settle()
    lb = cloud.get("web")
    assert lb.state is State.ACTIVE
    assert len(cloud.host.running) == 1
    assert log(cloud) == ["crash"], "logged before the end, so that it isn't met again and again"
    assert len(cloud.billed()) == 1


def test_a_pause_longer_than_the_lease_makes_a_zombie_that_writes_nothing(cloud):
    inject(cloud, "worker", "pause", seconds=LEASE_S + 5, max_hits=1)
    other = cloud.worker("host-2")
    cloud.put("web")
    meanwhile = cloud.clock.wait

    def wait(stop, seconds):
        cloud.clock.advance(seconds)
        if seconds > LEASE_S:
            assert other.step(), "the lease has ended: another worker takes over"
        return False

    cloud.clock.wait = wait
    cloud.provisioner.step()
    cloud.clock.wait = meanwhile
    assert cloud.get("web").state is State.ACTIVE
    assert cloud.history("web") == ["PENDING", "PROVISIONING", "ACTIVE"]


def test_a_stolen_lease_voids_the_work(cloud):
    inject(cloud, "worker", "lease_steal", max_hits=1)
    cloud.put("web")
    cloud.provisioner.step()
    assert cloud.get("web").state is State.PROVISIONING
    cloud.settle()
    assert cloud.get("web").state is State.ACTIVE
    assert cloud.get("web").lease_epoch == 3


def test_a_duplicate_run_is_written_once(cloud):
    inject(cloud, "worker", "duplicate_run", max_hits=1)
    other = cloud.worker("host-2")
    cloud.put("web")
    before = cloud.clock.wait

    def wait(stop, seconds):
        other.step()
        return before(stop, seconds)

    cloud.clock.wait = wait
    cloud.provisioner.step()
    cloud.clock.wait = before
    assert cloud.get("web").state is State.ACTIVE
    assert cloud.history("web") == ["PENDING", "PROVISIONING", "ACTIVE"]


def test_a_database_error_in_the_last_moment_is_tried_again(cloud):
    inject(cloud, "worker", "db_error", kind="serialization", max_hits=1)
    cloud.put("web")
    with pytest.raises(errors.Unavailable, match="serialize"):
        cloud.provisioner.step()
    cloud.clock.advance(LEASE_S + 1)
    cloud.settle()
    assert cloud.get("web").state is State.ACTIVE


def ask(cloud: SmallCloud, name: str, **annotations: str) -> None:
    named = {PREFIX + key: value for key, value in annotations.items()}
    cloud.desk.put(PROJECT, name, Wish(labels={}, annotations=named, spec=spec()))


def test_annotations_delay_and_fail(cloud):
    ask(cloud, "web", provision="fail_transient=2,delay=20s")
    pass_time(cloud, 15)
    assert cloud.get("web").state is not State.ACTIVE
    assert flag(cloud, "web") is not None
    pass_time(cloud, 25)
    assert cloud.get("web").state is State.ACTIVE
    assert sorted(log(cloud)) == ["delay", "fail_transient", "fail_transient"]


def test_the_state_error_comes_and_goes_with_its_annotation(cloud):
    cloud.active("web")
    ask(cloud, "web", state="error")
    cloud.settle()
    assert cloud.get("web").state is State.ERROR
    assert cloud.get("web").generation == 1
    assert cloud.host.running, "the last good configuration serves"
    ask(cloud, "web")
    cloud.settle()
    assert cloud.get("web").state is State.ACTIVE
    types = [(one.type, one.status.value) for one in cloud.operations()]
    assert ("system.fault", "FAILED") in types


def test_a_stuck_delete_ends(cloud):
    ask(cloud, "web", delete="stuck=10s")
    cloud.settle()
    cloud.delete("web")
    pass_time(cloud, 8)
    assert cloud.get("web").state is State.DELETING
    pass_time(cloud, 4)
    assert cloud.living() == []


def test_an_annotation_that_is_not_understood_is_refused_by_name(cloud):
    with pytest.raises(
        errors.ValidationFailed, match=r"annotation chaos\.fakecloud\.dev/provision"
    ):
        ask(cloud, "web", provision="dealy=3s")
    assert cloud.living() == []


FACTS = Facts(layer=Layer.API, project=PROJECT, method="GET", path="/v1/x", labels={})


def test_replicas_share_the_looks_of_a_rule(cloud):
    """Two processes with copies of their own; every second look of all is a hit."""
    other = Chaos(cloud.database, cloud.clock, Metrics())
    inject(cloud, "api", "html_502", trigger=Trigger(every_n=2))
    other.refresh()
    got = [one.look(FACTS, "req") is not None for one in (cloud.chaos, other) * 4]
    assert got == [False, True] * 4


def test_a_spent_rule_is_spent_for_every_replica(cloud):
    other = Chaos(cloud.database, cloud.clock, Metrics())
    inject(cloud, "api", "html_502", max_hits=3)
    other.refresh()
    got = [one.look(FACTS, "req") is not None for one in (cloud.chaos, other) * 4]
    assert got.count(True) == 3
    assert cloud.chaos.page(PROJECT, "", 10)[0].hits == 3


def test_the_first_that_hits_wins_and_only_those_asked_have_looked(cloud):
    last = inject(cloud, "api", "html_502")
    never = inject(cloud, "api", "hang", trigger=Trigger(nth=99))
    cloud.clock.advance(1)
    hit = cloud.chaos.look(FACTS, "req")
    assert hit is not None
    assert hit.rule_id in (last.id, never.id)
    assert hit.action.type == "html_502"


def test_the_same_id_and_seed_replay_the_same_hits(cloud):
    def played() -> list[bool]:
        inject(cloud, "api", "html_502", id="flt_a", seed=5, trigger=Trigger(probability=0.5))
        hits = [cloud.chaos.look(FACTS, "req") is not None for _ in range(20)]
        cloud.chaos.remove(PROJECT, "flt_a")
        return hits

    first = played()
    assert 0 < sum(first) < 20
    assert played() == first


def test_a_rule_survives_a_restart_with_its_counts(cloud):
    made = inject(cloud, "api", "html_502", trigger=Trigger(first_n=2))
    assert cloud.chaos.look(FACTS, "req-1") is not None
    cloud.restart()
    assert cloud.chaos.look(FACTS, "req-2") is not None
    assert cloud.chaos.look(FACTS, "req-3") is None
    found = cloud.chaos.find(PROJECT, made.id)
    assert (found.looks, found.hits) == (3, 2)
    subjects = [one.subject for one in cloud.chaos.log(PROJECT, before=1 << 62, limit=9)]
    assert subjects == ["req-2", "req-1"]


def test_a_switched_off_rule_does_nothing(cloud):
    made = inject(cloud, "api", "html_502")
    cloud.chaos.enable(PROJECT, made.id, False)
    assert cloud.chaos.quiet(Layer.API)
    assert cloud.chaos.look(FACTS, "req") is None
    cloud.chaos.enable(PROJECT, made.id, True)
    assert cloud.chaos.look(FACTS, "req") is not None


def test_another_project_has_its_own_faults(cloud):
    made = inject(cloud, "api", "html_502")
    elsewhere = msgspec.structs.replace(FACTS, project="other")
    assert cloud.chaos.look(elsewhere, "req") is None
    for act in (cloud.chaos.find, cloud.chaos.remove):
        with pytest.raises(errors.NotFound):
            act("other", made.id)
    assert cloud.chaos.reset("other") == (0, 0)
    assert cloud.chaos.reset(PROJECT) == (1, 0)


def test_faults_have_a_bound_and_an_id_is_used_once(cloud, monkeypatch):
    monkeypatch.setattr(chaos, "MOST_RULES", 2)
    inject(cloud, "api", "html_502", id="flt_a")
    with pytest.raises(errors.NameInUse):
        inject(cloud, "api", "html_502", id="flt_a")
    inject(cloud, "api", "html_502")
    with pytest.raises(errors.LimitExceeded):
        inject(cloud, "api", "html_502")


def test_hits_are_counted_for_monitoring(cloud):
    metrics = Metrics()
    counting = Chaos(cloud.database, cloud.clock, metrics)
    inject(cloud, "api", "html_502")
    counting.refresh()
    counting.look(FACTS, "req")
    line = 'fakecloud_faults_injected_total{action="html_502",layer="api"} 1.0'
    assert line in metrics.text().decode()
