"""Faults that leave something other than it was asked for, and what ends them."""

from __future__ import annotations

import msgspec
import pytest

from fakecloud.chaos.flapping import Flapping
from fakecloud.domain import invariants
from fakecloud.domain.faults import Match, Trigger
from fakecloud.model import Listener, Spec, State
from fakecloud.network.pools import PooledAddresses
from fakecloud.provisioning.sweeper import Sweeper
from fakecloud.requests.wishes import Wish
from fakecloud.store import addresses, census
from tests.fakes.small_cloud import PROJECT, SmallCloud, spec, wish
from tests.unit.fakecloud.test_chaos import PREFIX, flag, inject, log, pass_time


def two_ports() -> Spec:
    """Return a spec with the listeners web (8080) and admin (8081)."""
    one = spec(8080)
    admin = Listener(name="admin", protocol="tcp", port=8081, target_group="web")
    return Spec(listeners=(*one.listeners, admin), target_groups=one.target_groups)


def reached(cloud: SmallCloud) -> dict[int, bool]:
    """Return which ports of `web` are open."""
    ip = cloud.get("web").addresses[0].ip
    return {port: cloud.host.reach(ip, port) != "refused" for port in (8080, 8081)}


def broken(cloud: SmallCloud) -> set[str]:
    """Return the names of the invariants that don't hold."""
    with cloud.database.read() as connection:
        rows = census.take(connection, cloud.clock.wall())
    rows = msgspec.structs.replace(rows, serving=cloud.dataplane.running())
    return {one.invariant for one in invariants.check(rows)}


@pytest.mark.parametrize(
    ("listeners", "left"), [(None, {8080}), (("web",), {8081}), (("*",), set()), (("a*",), {8080})]
)
def test_partial_is_active_without_some_listeners_until_the_fault_goes(cloud, listeners, left):
    made = inject(cloud, "provision", "partial", listeners=listeners)
    lb = cloud.active("web", two_ports())
    assert (lb.state, lb.observed_generation) == (State.ACTIVE, 1)
    assert reached(cloud) == {8080: 8080 in left, 8081: 8081 in left}
    assert flag(cloud, "web") == ("True", "Partial", made.id)
    cloud.chaos.remove(PROJECT, made.id)
    cloud.settle()
    assert reached(cloud) == {8080: True, 8081: True}
    assert flag(cloud, "web") == ("False", "Over", "")
    assert {op.type for op in cloud.operations()} == {"create", "system.fault"}


def test_partial_heals_when_it_expires_and_when_it_is_switched_off(cloud):
    inject(cloud, "provision", "partial", expires_in_s=10)
    cloud.active("web", two_ports())
    pass_time(cloud, 12)
    assert reached(cloud) == {8080: True, 8081: True}
    made = inject(cloud, "provision", "partial", trigger=Trigger(first_n=1))
    cloud.active("web", Spec(**{**_fields(two_ports()), "admin_up": True, "type": "lb-m"}))
    assert reached(cloud) == {8080: True, 8081: False}
    cloud.chaos.enable(PROJECT, made.id, False)
    cloud.settle()
    assert reached(cloud) == {8080: True, 8081: True}


def _fields(of: Spec) -> dict[str, object]:
    return {name: getattr(of, name) for name in of.__struct_fields__}


def test_an_annotation_asks_for_partial_and_taking_it_away_heals(cloud):
    asked = {PREFIX + "provision": "partial=admin"}
    cloud.desk.put(PROJECT, "web", Wish(labels={}, annotations=asked, spec=two_ports()))
    cloud.settle()
    assert reached(cloud) == {8080: True, 8081: False}
    assert log(cloud) == ["partial"]
    cloud.desk.put(PROJECT, "web", wish(two_ports()))
    cloud.settle()
    assert reached(cloud) == {8080: True, 8081: True}


def test_a_state_flaps_by_its_period_and_is_active_again(cloud):
    flapping = Flapping(cloud.database, cloud.chaos, cloud.clock, "host-1")
    cloud.active("web")
    cloud.active("calm", spec(8081))
    assert flapping.step() == 0
    match = Match(resource_name="web")
    inject(cloud, "provision", "flap_state", seconds=3.0, match=match, max_hits=2)
    flapped = []
    for _ in range(14):
        flapped.append(flapping.step())
        if flapped[-1]:
            assert cloud.get("web").state is State.UPDATING
            assert (flag(cloud, "web") or ("",))[0] == "True"
        cloud.settle()
        assert cloud.get("web").state is State.ACTIVE
        cloud.clock.advance(1)
    assert flapped == [0, 0, 0, 1, 0, 0, 1, *[0] * 7]
    assert cloud.history("web")[-4:] == ["UPDATING", "ACTIVE"] * 2
    assert cloud.history("calm")[-1:] == ["ACTIVE"]
    assert len([op for op in cloud.operations() if op.type == "system.fault"]) == 2
    assert cloud.get("web").generation == 1
    assert flag(cloud, "web") == ("False", "Over", "")


def test_another_hosts_load_balancers_are_left_alone(cloud):
    cloud.active("web")
    inject(cloud, "provision", "flap_state", seconds=1.0)
    other = Flapping(cloud.database, cloud.chaos, cloud.clock, "host-2")
    other.step()
    cloud.clock.advance(2)
    assert other.step() == 0


def sweeper(cloud: SmallCloud) -> Sweeper:
    return Sweeper(
        cloud.database, cloud.dataplane, PooledAddresses([cloud.pool], {}, cloud.clock), cloud.clock
    )


@pytest.mark.parametrize(("leaks", "invariant"), [("process", "I15"), ("ip", "I9")])
def test_a_leak_is_seen_by_the_check_and_swept(cloud, leaks, invariant):
    inject(cloud, "provision", "delete_leaks", leaks=leaks)
    cloud.active("web")
    cloud.active("stays", spec(8081))
    assert sweeper(cloud).step() == 0
    cloud.delete("web")
    cloud.settle()
    assert [lb.name for lb in cloud.living()] == ["stays"]
    assert len(cloud.host.running) == (2 if leaks == "process" else 1)
    with cloud.database.read() as connection:
        assert len(addresses.of_deleted(connection)) == (leaks == "ip")
    assert invariant in broken(cloud)
    assert sweeper(cloud).step() == 1
    assert broken(cloud) == set()
    assert len(cloud.host.running) == 1
    assert sweeper(cloud).step() == 0


def test_a_leak_is_about_deletions_and_not_asked_for_is_none(cloud):
    inject(cloud, "provision", "delete_leaks", leaks="process", max_hits=1)
    cloud.active("a")
    assert log(cloud) == []
    for name in ("a", "b"):
        cloud.active(name, spec(8081))
        cloud.delete(name)
        cloud.settle()
    assert log(cloud) == ["delete_leaks"]
    assert len(cloud.host.running) == 1


def test_an_address_that_leaked_is_given_again_after_it_was_swept(cloud):
    inject(cloud, "provision", "delete_leaks", leaks="ip")
    ip = cloud.active("web").addresses[0].ip
    cloud.delete("web")
    cloud.settle()
    sweeper(cloud).step()
    with cloud.database.read() as connection:
        assert addresses.owner(connection, ip) is None
        assert addresses.is_taken(connection, ip, cloud.clock.now()) is False
