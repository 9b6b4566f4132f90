"""Reserved addresses, actions and instances on both databases."""

from __future__ import annotations

import pytest

from fakecloud import errors, model
from fakecloud.actions import Actions
from fakecloud.instances import Instances
from fakecloud.model import AddressRequest, State
from fakecloud.quotas import Quotas
from fakecloud.reservations import Reservations, Wanted
from fakecloud.store import listings
from tests.fakes.small_cloud import PROJECT, SmallCloud, spec


@pytest.fixture
def desk(cloud: SmallCloud) -> Reservations:
    return Reservations(cloud.database, [cloud.pool], cloud.clock)


def asking(ip: str, port: int = 8080) -> model.Spec:
    return spec(port, addresses=(AddressRequest(ip=ip),))


def test_a_reserved_address_is_never_given_by_chance(cloud, desk):
    ip = desk.reserve(PROJECT, Wanted(name="kept")).ip
    given = [cloud.active(f"lb{n}", spec(8080 + n)).addresses[0].ip for n in range(5)]
    assert ip not in given
    with pytest.raises(errors.NoCapacity):
        cloud.put("full", spec(8090))


def test_a_reserved_address_comes_back_without_rest(cloud, desk):
    ip = desk.reserve(PROJECT, Wanted(name="kept")).ip
    assert cloud.active("one", asking(ip)).addresses[0].ip == ip
    assert desk.find(PROJECT, "kept").load_balancer == "one"
    with pytest.raises(errors.InUse):
        desk.give_up(PROJECT, "kept")
    with pytest.raises(errors.AddressInUse):
        cloud.put("two", asking(ip, 8081))
    cloud.delete("one")
    cloud.settle()
    assert cloud.active("two", asking(ip, 8081)).addresses[0].ip == ip


def test_one_given_up_rests(cloud, desk):
    ip = desk.reserve(PROJECT, Wanted(name="kept")).ip
    desk.give_up(PROJECT, ip)
    with pytest.raises(errors.AddressInUse):
        desk.reserve(PROJECT, Wanted(name="again", ip=ip))
    assert desk.pools()[0].resting == 1
    cloud.clock.advance(61)
    assert desk.reserve(PROJECT, Wanted(name="again", ip=ip)).ip == ip
    assert (desk.pools()[0].resting, desk.pools()[0].reserved) == (0, 1)


def test_of_another_project_it_cant_be_asked_for(cloud, desk):
    ip = desk.reserve("other", Wanted(name="theirs")).ip
    with pytest.raises(errors.AddressInUse):
        cloud.put("theft", asking(ip))
    with pytest.raises(errors.NotFound):
        desk.find(PROJECT, "theirs")
    assert cloud.living() == []


def test_a_reserved_one_is_let_go_when_it_is_no_longer_asked_for(cloud, desk):
    ip = desk.reserve(PROJECT, Wanted(name="kept")).ip
    cloud.active("one", asking(ip))
    other = cloud.active("one", spec(8081)).addresses[0].ip
    assert other != ip
    assert desk.find(PROJECT, "kept").load_balancer is None
    assert cloud.active("one", spec(8082)).addresses[0].ip == other, "an own one is kept"


def test_a_name_is_reserved_once(cloud, desk):
    first = desk.reserve(PROJECT, Wanted(name="kept"))
    assert desk.reserve(PROJECT, Wanted(name="kept")) == first
    with pytest.raises(errors.NameInUse):
        desk.reserve(PROJECT, Wanted(name="kept", labels={"a": "b"}))
    with pytest.raises(errors.ValidationFailed):
        desk.reserve(PROJECT, Wanted(name="far", ip="10.0.0.1"))


def test_repair_takes_up_a_failed_one_at_once(cloud):
    cloud.dataplane.fail_next = [errors.Permanent("config_invalid", "no")]
    assert cloud.active("web").state is State.ERROR
    again = Actions(cloud.database, cloud.clock).repair(PROJECT, "web")
    assert (again.state, again.attempts) == (State.PENDING, 0)
    cloud.settle()
    assert cloud.get("web").state is State.ACTIVE
    ended = {op.type: op.status.value for op in cloud.operations()}
    assert ended == {"create": "FAILED", "repair": "SUCCEEDED"}


def test_failover_gives_it_to_whoever_comes_next(cloud):
    cloud.active("web")
    moved = Actions(cloud.database, cloud.clock).failover(PROJECT, "web")
    assert (moved.state, moved.host) == (State.UPDATING, None)
    cloud.settle()
    assert cloud.get("web").state is State.ACTIVE
    ended = {op.type: op.status.value for op in cloud.operations()}
    assert ended == {"create": "SUCCEEDED", "system.failover": "SUCCEEDED"}
    cloud.delete("web")
    with pytest.raises(errors.BeingDeleted):
        Actions(cloud.database, cloud.clock).failover(PROJECT, "web")


def test_only_work_that_nobody_is_at_can_be_cancelled(cloud):
    actions = Actions(cloud.database, cloud.clock)
    cloud.put("web")
    id = cloud.get("web").operation
    claimed = cloud.provisioner._claim()
    assert claimed is not None
    with pytest.raises(errors.NotCancellable, match="busy"):
        actions.cancel(PROJECT, id)
    cloud.provisioner._finish(claimed, errors.Transient("bind_failed", "taken"))
    ended = actions.cancel(PROJECT, id)
    assert (ended.status.value, cloud.get("web").state) == ("CANCELLED", State.ERROR)
    cloud.clock.advance(1000)
    assert cloud.settle() == 0, "it waits"
    with pytest.raises(errors.NotCancellable, match="ended"):
        actions.cancel(PROJECT, id)
    cloud.delete("web")
    with pytest.raises(errors.NotCancellable, match="deletes"):
        actions.cancel(PROJECT, cloud.get("web").operation)


def test_pages_go_through_everything_once_in_every_order(cloud):
    desk = Instances(cloud.database, cloud.clock, Quotas())
    for name in ("c", "a", "b"):
        desk.create(PROJECT, name, model.InstanceWish(labels={"n": name, 'o"d': "x"}))
        cloud.clock.advance(1)
    desk.put(PROJECT, "c", model.InstanceWish(power_state="stopped"))
    for order, expected in (("name", "abc"), ("created_at", "cab"), ("updated_at", "abc")):
        for descending in (False, True):
            found, after = "", None
            while True:
                page = listings.Page(order=order, descending=descending, after=after, limit=1)
                _, rows = desk.page(PROJECT, page)
                if not rows:
                    break
                found, after = found + rows[0][1].name, rows[0][0]
            assert found == (expected[::-1] if descending else expected)
    for labels, names in (((("n", "a"),), ["a"]), ((('o"d', "x"),), ["c", "a", "b"])):
        _, rows = desk.page(PROJECT, listings.Page(order="created_at", labels=labels))
        assert [one.name for _, one in rows] == names, "strange keys are left to the reader"
