"""Load balancers that are claimed, and whose results are written, several in one transaction."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy

from fakecloud.domain.hooks import NoHook, Point
from fakecloud.domain.lifecycle import IllegalTransition
from fakecloud.errors import Transient, Unavailable
from fakecloud.model import LoadBalancer, State
from fakecloud.provisioning.provisioner import Provisioner
from fakecloud.provisioning.results import Result
from fakecloud.store import leases
from fakecloud.tables.cloud import load_balancer as table
from tests.fakes.small_cloud import LEASE_S, Crashed, SmallCloud, spec

NAMES = ("first", "second", "third")


class AtCommit(NoHook):
    """Does `act` before the commit of `name`; `announced`: and says so before."""

    def __init__(self, name: str, act: Callable[[], None], *, announced: bool) -> None:
        self._name = name
        self._act = act
        self._announced = announced

    def spoils_commit(self, lb: LoadBalancer) -> bool:
        """Say whether it is the one."""
        return self._announced and lb.name == self._name

    def at(self, point: Point, lb: LoadBalancer) -> None:
        """Act."""
        if point is Point.PRE_COMMIT and lb.name == self._name:
            self._act()


def put_all(cloud: SmallCloud) -> None:
    for number, name in enumerate(NAMES):
        cloud.put(name, spec(8080 + number))


def taken(cloud: SmallCloud) -> list[LoadBalancer]:
    """Put all and return them as they are claimed."""
    put_all(cloud)
    found = [one for _ in NAMES if (one := cloud.provisioner._claims.take()) is not None]
    assert len(found) == len(NAMES)
    return found


def hand_in_together(worker: Provisioner, results: list[Result]) -> None:
    """Hand in all while somebody writes; who comes last then writes them."""
    *early, last = results
    with worker._results._writing:
        for one in early:
            worker._results.hand_in(one)
    worker._results.hand_in(last)


def hooked(cloud: SmallCloud, hook: AtCommit) -> None:
    cloud.provisioner._results._hook = hook


def states(cloud: SmallCloud) -> list[State]:
    return [cloud.get(name).state for name in NAMES]


def overwrite(cloud: SmallCloud, name: str, **values: object) -> None:
    with cloud.database.write() as connection:
        connection.execute(sqlalchemy.update(table).where(table.c.name == name).values(**values))


def is_leased(cloud: SmallCloud, name: str) -> bool:
    with cloud.database.read() as connection:
        return leases.leased(connection, cloud.get(name).pk, cloud.clock.wall())


def test_what_is_due_is_claimed_in_one_transaction_each_with_its_own_epoch(cloud):
    put_all(cloud)
    cloud.provisioner.step()
    cloud.put("first", spec(9090))
    commits: list[None] = []
    cloud.database.on_commit(lambda: commits.append(None))
    found = [cloud.provisioner._claims.take() for _ in (1, 2, 3)]
    assert len(commits) == 1
    assert [(one.name, one.lease_epoch) for one in found] == [
        ("second", 1),
        ("third", 1),
        ("first", 2),
    ]
    assert cloud.provisioner._claims.take() is None


def test_results_that_come_while_somebody_writes_share_a_transaction(cloud):
    found = taken(cloud)
    commits: list[None] = []
    cloud.database.on_commit(lambda: commits.append(None))
    hand_in_together(cloud.provisioner, [Result(one) for one in found])
    assert len(commits) == 1
    assert states(cloud) == [State.ACTIVE] * 3
    assert cloud.replayed() == cloud.present()
    assert len(cloud.billed()) == 3
    assert {op.status.value for op in cloud.operations()} == {"SUCCEEDED"}


def test_deletions_share_one_too_and_leave_nothing(cloud):
    put_all(cloud)
    cloud.settle()
    for name in NAMES:
        cloud.delete(name)
    found = [cloud.provisioner._claims.take() for _ in NAMES]
    hand_in_together(cloud.provisioner, [Result(one) for one in found])
    assert (cloud.living(), cloud.billed()) == ([], [])
    with cloud.database.read() as connection:
        held = "SELECT count(*) FROM address WHERE load_balancer_id IS NOT NULL"
        counted = "SELECT used FROM quota WHERE metric = 'load_balancers'"
        assert connection.exec_driver_sql(held).scalar_one() == 0
        assert connection.exec_driver_sql(counted).scalar_one() == 0


def test_a_result_that_cannot_be_written_spoils_no_other(cloud):
    found = taken(cloud)
    overwrite(cloud, "second", state="ERROR")  # nothing leads from there to ACTIVE
    with pytest.raises(IllegalTransition):
        hand_in_together(cloud.provisioner, [Result(one) for one in found])
    assert states(cloud) == [State.ACTIVE, State.ERROR, State.ACTIVE]
    assert is_leased(cloud, "second"), "its lease ends by itself"
    assert not is_leased(cloud, "first")


def test_a_failure_among_results_is_one_load_balancers_own(cloud):
    found = taken(cloud)
    busy = Transient("bind_failed", "taken")
    hand_in_together(
        cloud.provisioner, [Result(found[0]), Result(found[1], busy), Result(found[2])]
    )
    assert states(cloud) == [State.ACTIVE, State.PENDING, State.ACTIVE]
    assert cloud.get("second").last_error.code == "bind_failed"


def test_a_lease_lost_among_results_is_fenced(cloud):
    found = taken(cloud)
    with cloud.database.write() as connection:
        leases.free(connection, found[1].pk)
    hand_in_together(cloud.provisioner, [Result(one) for one in found])
    assert states(cloud) == [State.ACTIVE, State.PROVISIONING, State.ACTIVE]
    assert cloud.get("second").lease_epoch == 2
    running = [op.target for op in cloud.operations() if op.status.value == "RUNNING"]
    assert running == ["second"]


def test_a_crash_before_the_commit_takes_all_back_and_each_is_done_once(cloud):
    found = taken(cloud)

    def die() -> None:
        raise Crashed(9)

    hooked(cloud, AtCommit("second", die, announced=False))
    with pytest.raises(Crashed):
        hand_in_together(cloud.provisioner, [Result(one) for one in found])
    assert states(cloud) == [State.PROVISIONING] * 3
    cloud.restart()
    cloud.settle()
    assert states(cloud) == [State.ACTIVE] * 3
    assert [cloud.get(name).lease_epoch for name in NAMES] == [2, 2, 2]
    assert len(cloud.billed()) == 3
    assert cloud.replayed() == cloud.present()


def test_a_crash_with_claimed_ones_waiting_loses_none(cloud):
    put_all(cloud)
    assert cloud.provisioner._claims.take().name == "first"
    cloud.restart()
    cloud.settle()
    assert states(cloud) == [State.ACTIVE] * 3


def test_a_fault_before_one_commit_leaves_the_others_alone(cloud):
    found = taken(cloud)

    def fail() -> None:
        raise Unavailable("injected")

    hooked(cloud, AtCommit("first", fail, announced=True))
    with pytest.raises(Unavailable):
        hand_in_together(cloud.provisioner, [Result(one) for one in found])
    assert states(cloud) == [State.PROVISIONING, State.ACTIVE, State.ACTIVE]
    cloud.clock.advance(LEASE_S + 1)
    hooked(cloud, AtCommit("nobody", fail, announced=True))
    cloud.settle()
    assert states(cloud) == [State.ACTIVE] * 3


def test_one_that_cannot_be_begun_holds_nobody_up(cloud):
    cloud.active("odd")
    put_all(cloud)
    long_ago = cloud.clock.wall().replace(year=2020)
    overwrite(cloud, "odd", due_at=long_ago)  # ACTIVE and due: nothing leads on from there
    cloud.settle()
    assert states(cloud) == [State.ACTIVE] * 3


@pytest.mark.parametrize("stolen", [False, True])
def test_a_lease_that_grew_old_while_waiting_is_renewed_or_given_up(cloud, stolen):
    put_all(cloud)
    assert cloud.provisioner._claims.take().name == "first"
    cloud.clock.advance(LEASE_S * 2)
    if stolen:
        other = cloud.worker("second-worker")
        assert [other._claims.take().name for _ in NAMES] == list(NAMES)
    left = [cloud.provisioner._claims.take() for _ in (1, 2)]
    assert [one.name for one in left if one] == ([] if stolen else ["second", "third"])
    assert stolen or is_leased(cloud, "third")
