"""Several hosts on one database: who runs what, and what becomes of it when one dies."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fakecloud.errors import StartError
from fakecloud.hosts import Hosts, identity
from fakecloud.model import State
from fakecloud.provisioning.provisioner import Provisioner
from fakecloud.store import load_balancers
from tests.fakes.dataplane import FakeDataPlane
from tests.fakes.small_cloud import SmallCloud, spec

DEAD_S = 30.0


def host(cloud: SmallCloud, name: str, of: str | None = None) -> Hosts:
    made = Hosts(cloud.database, cloud.clock, name, of or f"id-{name}", ["p"], dead_after_s=DEAD_S)
    if not cloud.database.is_sqlite:
        made.register()
        return made
    # One at a time on SQLite, so a second one is written as PostgreSQL would let it.
    made.beat()
    return made


@pytest.fixture
def plane() -> FakeDataPlane:
    """The data plane of another machine."""
    return FakeDataPlane()


def second(cloud: SmallCloud, plane: FakeDataPlane) -> Provisioner:
    before, cloud.dataplane = cloud.dataplane, plane
    made = cloud.worker("host-2", "host-2")
    cloud.dataplane = before
    return made


def die(cloud: SmallCloud, survivor: Hosts) -> int:
    """Let every host but `survivor` be silent for too long; return what the sweep freed."""
    assert survivor.sweep() == 0, "it hears the others before it misses them"
    for _ in range(3):
        cloud.clock.advance(DEAD_S / 3)
        survivor.beat()
    return survivor.sweep()


def test_a_host_leaves_alone_what_another_runs(cloud, plane):
    cloud.active("web")
    cloud.put("web", spec(8081))
    cloud.clock.advance(1)
    cloud.put("new")
    from_other = second(cloud, plane)
    assert from_other.step() is True
    assert from_other.step() is False
    assert (cloud.get("web").host, cloud.get("web").state) == ("host-1", State.UPDATING)
    assert (cloud.get("new").host, cloud.get("new").state) == ("host-2", State.ACTIVE)


def test_the_load_balancers_of_a_dead_host_are_freed(cloud, plane):
    host(cloud, "host-1")
    survivor = host(cloud, "host-2")
    before = cloud.active("web")
    cloud.put("young")
    assert survivor.sweep() == 0
    assert die(cloud, survivor) == 1
    lb = cloud.get("web")
    assert (lb.state, lb.host, lb.lease_epoch) == (State.UPDATING, None, before.lease_epoch + 1)
    failover = cloud.operations()[-1]
    assert (failover.type, failover.id) == ("system.failover", lb.operation)
    worker = second(cloud, plane)
    while worker.step():
        pass
    after = cloud.get("web")
    assert (after.state, after.host, after.addresses) == ("ACTIVE", "host-2", before.addresses)
    assert plane.serving(after.id)
    assert {o.status for o in cloud.operations()} == {"SUCCEEDED"}
    assert "web" in [one.terms.name for one in cloud.billed()], "billed throughout"
    assert survivor.sweep() == 0


def test_a_worker_of_a_dead_host_that_wakes_up_writes_nothing(cloud, plane):
    host(cloud, "host-1")
    survivor = host(cloud, "host-2")
    cloud.put("web")
    worker = second(cloud, plane)
    apply = cloud.dataplane.apply

    def sleep_on_it(desired):
        die(cloud, survivor)
        assert worker.step()
        apply(desired)

    cloud.dataplane.apply = sleep_on_it
    cloud.provisioner.step()
    lb = cloud.get("web")
    assert (lb.state, lb.host) == (State.ACTIVE, "host-2")
    assert cloud.provisioner.drop_moved() == 1
    assert not cloud.dataplane.serving(lb.id)
    assert plane.serving(lb.id)


def test_what_a_dead_host_was_deleting_is_deleted(cloud, plane):
    host(cloud, "host-1")
    survivor = host(cloud, "host-2")
    cloud.active("web")
    cloud.delete("web")
    die(cloud, survivor)
    worker = second(cloud, plane)
    while worker.step():
        pass
    assert cloud.living() == []


def test_after_a_silence_of_everybody_nobody_is_dead(cloud):
    """The database was away: the first that reaches it again must not bury the others."""
    one, survivor = host(cloud, "host-1"), host(cloud, "host-2")
    cloud.active("web")
    cloud.clock.advance(DEAD_S * 10)
    survivor.beat()
    assert survivor.sweep() == 0
    cloud.clock.advance(DEAD_S / 3)
    assert one.beat() is True
    for _ in range(2):
        cloud.clock.advance(DEAD_S / 3)
        survivor.beat()
        one.beat()
    assert survivor.sweep() == 0
    assert cloud.get("web").state is State.ACTIVE


def test_clocks_that_differ_kill_nobody(cloud):
    """The heartbeat of a host whose clock is an hour late is news all the same."""
    one, survivor = host(cloud, "host-1"), host(cloud, "host-2")
    cloud.active("web")
    late = cloud.clock.wall
    for _ in range(12):
        cloud.clock.advance(DEAD_S / 3)
        cloud.clock.wall = lambda: late() - timedelta(hours=1)
        one.beat()
        cloud.clock.wall = late
        survivor.beat()
        assert survivor.sweep() == 0


def test_a_host_answers_for_ever_alone_and_else_until_it_could_be_buried(cloud):
    one = host(cloud, "host-1")
    one.beat()
    assert one.may_answer_s() is None
    host(cloud, "host-2")
    one.beat()
    assert one.may_answer_s() == DEAD_S - 1
    cloud.clock.advance(DEAD_S - 2.5)
    assert one.may_answer_s() == 1
    cloud.clock.advance(1)
    assert one.may_answer_s() == 0


def test_a_host_that_was_buried_enters_again(cloud):
    one, survivor = host(cloud, "host-1"), host(cloud, "host-2")
    die(cloud, survivor)
    assert one.beat() is False
    assert one.beat() is True


def test_a_renamed_host_keeps_its_load_balancers(cloud):
    host(cloud, "host-1")
    cloud.active("web")
    renamed = Hosts(cloud.database, cloud.clock, "new", "id-host-1", [], dead_after_s=DEAD_S)
    renamed.register()
    assert cloud.get("web").host == "new"
    assert renamed.name == "new"


def test_a_name_has_one_living_host(cloud):
    if cloud.database.is_sqlite:
        pytest.skip("one server at a time has the file")
    host(cloud, "host-1")
    with pytest.raises(StartError, match="--host-name"):
        host(cloud, "host-1", of="somebody else")
    cloud.clock.advance(DEAD_S)
    host(cloud, "host-1", of="somebody else")


def test_a_crash_of_a_data_plane_is_an_operation(cloud):
    lb = cloud.active("web")
    cloud.provisioner.crashed(lb.id)
    cloud.provisioner.crashed(lb.id)
    assert cloud.get("web").state is State.UPDATING
    cloud.settle()
    assert sorted((o.type, o.status) for o in cloud.operations()) == [
        ("create", "SUCCEEDED"),
        ("system.recover", "SUCCEEDED"),
    ]


def test_a_row_of_nobody_is_placed_by_its_claim(cloud):
    lb = cloud.active("web")
    assert lb.host == "host-1"
    with cloud.database.read() as connection:
        assert load_balancers.moved(connection, "host-1", {lb.id}) == {}
        assert load_balancers.moved(connection, "host-2", {lb.id}) == {lb.id: lb.lease_epoch}


def test_the_identity_of_a_state_directory_lasts(tmp_path):
    first = identity(tmp_path / "a")
    assert first == identity(tmp_path / "a")
    assert first != identity(tmp_path / "b")
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError):
        identity(tmp_path / "file")
