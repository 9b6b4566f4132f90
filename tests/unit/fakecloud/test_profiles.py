"""Simulated delays: pure, and a floor around the real work that holds nobody up."""

from __future__ import annotations

from datetime import timedelta
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakecloud.domain import profiles
from fakecloud.domain.business_time import BusinessClock, Mode
from fakecloud.errors import ValidationFailed
from fakecloud.model import State
from fakecloud.requests.load_balancers import LoadBalancers
from fakecloud.requests.wishes import Wish
from fakecloud.timekeeper import Timekeeper
from tests.fakes.small_cloud import PROJECT, SmallCloud, spec

KINDS = st.sampled_from(["create", "update", "delete"])
NAMES = st.sampled_from(list(profiles.CATALOGUE))


def slow(name: str = "aws-nlb") -> Wish:
    return Wish(labels={}, annotations={profiles.KEY: name}, spec=spec())


@given(name=NAMES, kind=KINDS, lb_id=st.text(max_size=40), generation=st.integers(1, 1 << 40))
def test_a_delay_is_a_function_of_its_arguments(name, kind, lb_id, generation):
    profile = profiles.find(name)
    seconds = profiles.delay_s(profile, kind, lb_id, generation)
    assert seconds == profiles.delay_s(profile, kind, lb_id, generation)
    limits = getattr(profile, kind)
    if limits is None:
        assert seconds == 0
    else:
        assert limits.min_s <= seconds <= limits.max_s


@pytest.mark.parametrize("name", list(profiles.CATALOGUE))
def test_the_middle_of_many_is_the_median(name):
    profile = profiles.find(name)
    if profile.create is not None:
        many = [profiles.delay_s(profile, "create", f"lb_{n}", 1) for n in range(999)]
        assert median(many) == pytest.approx(profile.create.median_s, rel=0.05)
        assert len(set(many)) > 100


def test_names_and_aliases():
    assert profiles.find("do") is profiles.find("digitalocean")
    with pytest.raises(profiles.UnknownProfile, match="aws-nlb"):
        profiles.find("aws")


def test_a_wish_for_an_unknown_profile_is_refused(cloud):
    with pytest.raises(ValidationFailed, match="there is no profile 'aws'"):
        cloud.desk.put(PROJECT, "web", slow("aws"))
    assert cloud.living() == []


def test_the_annotation_is_stronger_than_the_label():
    default = profiles.find("dev")
    key = profiles.KEY
    assert profiles.chosen(default, {key: "gcp"}, {key: "azure"}).name == "azure"
    assert profiles.chosen(default, {key: "gcp"}, {}).name == "gcp"
    assert profiles.chosen(default, {}, {}) is default


def test_a_slow_cloud_is_active_when_the_delay_is_over(cloud):
    """The work is done at once; the row waits without a lease and is charged from the end."""
    cloud.desk.put(PROJECT, "web", slow())
    asked = cloud.clock.wall()
    cloud.settle()
    lb = cloud.get("web")
    expected = profiles.delay_s(profiles.find("aws-nlb"), "create", lb.id, 1)
    assert lb.state is State.PROVISIONING
    assert lb.due_at == lb.ready_at == asked + timedelta(seconds=expected)
    assert cloud.host.reach(lb.addresses[0].ip, 8080) != "refused"
    (operation,) = cloud.operations()
    assert (operation.phase, operation.eta) == ("wait", lb.ready_at)
    assert [phase.name for phase in operation.phases] == ["allocate", "apply", "wait"]
    cloud.put("other")
    cloud.settle()
    assert cloud.get("other").state is State.ACTIVE, "a waiting one holds no worker"
    cloud.clock.advance(expected - 1)
    cloud.settle()
    assert cloud.get("web").state is State.PROVISIONING
    cloud.clock.advance(1)
    cloud.settle()
    assert cloud.get("web").state is State.ACTIVE
    ended = cloud.operations()[0]
    assert (ended.status, ended.progress, ended.phase, ended.eta) == ("SUCCEEDED", 100, None, None)
    assert all(phase.ended_at is not None for phase in ended.phases)


def test_an_update_waits_where_the_profile_says_so(cloud):
    cloud.active("web")
    cloud.desk.put(PROJECT, "web", Wish(labels={}, annotations=slow().annotations, spec=spec(8081)))
    cloud.settle()
    lb = cloud.get("web")
    assert lb.state is State.UPDATING
    assert lb.ready_at is not None
    cloud.clock.advance(180)
    cloud.settle()
    assert cloud.get("web").state is State.ACTIVE


def test_a_change_or_a_delete_ends_the_wait(cloud):
    cloud.desk.put(PROJECT, "web", slow())
    cloud.settle()
    cloud.put("web", spec(8081))
    cloud.settle()
    assert cloud.get("web").state is State.ACTIVE
    cloud.desk.put(PROJECT, "slow", slow())
    cloud.settle()
    cloud.delete("slow")
    cloud.settle()
    assert [lb.name for lb in cloud.living()] == ["web"]


def clocked(cloud: SmallCloud) -> tuple[Timekeeper, LoadBalancers]:
    clock = BusinessClock(cloud.clock)
    desk = LoadBalancers(cloud.database, [cloud.pool], clock, rate=clock.rate)
    return Timekeeper(cloud.database, clock), desk


def test_a_faster_clock_shortens_the_delay(cloud):
    keeper, desk = clocked(cloud)
    keeper.set(Mode.RATE, 100)
    lb, _ = desk.put(PROJECT, "web", slow())
    expected = profiles.delay_s(profiles.find("aws-nlb"), "create", lb.id, 1)
    wait_s = (lb.ready_at - cloud.clock.wall()).total_seconds()
    assert wait_s == pytest.approx(expected / 100, abs=0.001)


def test_a_clock_made_faster_or_advanced_shortens_delays_under_way(cloud):
    keeper, desk = clocked(cloud)
    lb, _ = desk.put(PROJECT, "web", slow())
    cloud.settle()
    wait_s = (lb.ready_at - cloud.clock.wall()).total_seconds()
    keeper.set(Mode.RATE, 10)
    left_s = (cloud.get("web").ready_at - cloud.clock.wall()).total_seconds()
    assert left_s == pytest.approx(wait_s / 10, abs=0.001)
    keeper.advance(PROJECT, cloud.clock.now() + timedelta(seconds=wait_s + 1))
    while keeper.step():
        pass
    cloud.settle()
    assert cloud.get("web").state is State.ACTIVE
