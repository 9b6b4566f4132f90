"""The checker of the cloud's promises: silent over a healthy cloud, and it sees each one broken."""

from __future__ import annotations

import msgspec
import pytest

from fakecloud import invariants
from fakecloud.invariants import Rows
from fakecloud.model import State
from fakecloud.store import census
from tests.fakes.small_cloud import SmallCloud, spec

change = msgspec.structs.replace


def rows(cloud: SmallCloud) -> Rows:
    """Return everything as it is in the database."""
    with cloud.database.read() as connection:
        return census.take(connection, cloud.clock.wall())


def broken(of: Rows) -> list[tuple[str, str]]:
    """Return which promises don't hold, for what."""
    return [(one.invariant, one.object) for one in invariants.check(of)]


def test_a_healthy_cloud_keeps_every_promise_at_every_step(cloud):
    def holds() -> None:
        assert broken(rows(cloud)) == []

    holds()
    for step in (
        lambda: cloud.put("a"),
        cloud.provisioner.step,
        lambda: cloud.put("b", spec(8081), team="x"),
        cloud.settle,
        lambda: cloud.put("a", spec(8082)),
        lambda: cloud.put("b", spec(8081), team="y"),
        lambda: cloud.delete("b"),
        cloud.settle,
        lambda: cloud.put("b", spec(8083)),
        cloud.settle,
    ):
        step()
        holds()


@pytest.fixture
def healthy(cloud) -> Rows:
    """Rows of one active load balancer and a deleted one."""
    cloud.active("gone")
    cloud.delete("gone")
    cloud.active("web")
    return rows(cloud)


def one(of: Rows, **changes: object) -> Rows:
    """Return the rows with a changed load balancer."""
    (lb,) = of.load_balancers
    return change(of, load_balancers=(change(lb, **changes),))


@pytest.mark.parametrize(
    ("invariant", "spoil"),
    [
        ("I1", lambda r: one(r, observed_generation=2)),
        ("I1", lambda r: one(r, resource_version=r.version + 1)),
        ("I2", lambda r: one(r, observed_generation=0)),
        ("I2", lambda r: one(r, addresses=())),
        ("I3", lambda r: change(r, leases=(change(r.leases[0], owner="host-1"),))),
        ("I4", lambda r: change(r, load_balancers=r.load_balancers * 2)),
        ("I4", lambda r: change(r, addresses=())),
        ("I5", lambda r: change(r, intervals=())),
        ("I5", lambda r: change(r, intervals=r.intervals * 2)),
        ("I6", lambda r: change(r, last_events=(change(r.last_events[-1], state="ERROR"),))),
        ("I6", lambda r: change(r, load_balancers=())),
        ("I7", lambda r: one(r, state=State.UPDATING)),
        ("I9", lambda r: change(r, deleted=frozenset({r.addresses[0].load_balancer_id}))),
        ("I10", lambda r: change(r, quotas=(invariants.QuotaUse(
            project="p", metric="load_balancers", used=2, living=1),))),
        ("I13", lambda r: change(r, newest_event=r.version + 1)),
        ("I15", lambda r: change(r, serving=frozenset({"lb_stranger"}))),
    ],
)  # fmt: skip
def test_a_broken_promise_is_named(healthy, invariant, spoil):
    assert broken(healthy) == []
    assert invariant in {name for name, _ in broken(spoil(healthy))}


def test_an_operation_may_not_outlive_its_load_balancers_work(cloud):
    cloud.put("web")
    pending = rows(cloud)
    (operation,) = pending.running
    assert broken(pending) == []
    assert ("I8", operation.id) in broken(one(pending, state=State.ERROR))
    later = pending.wall + invariants.OVERDUE * 20
    assert ("I8", operation.id) in broken(change(pending, wall=later))
    gone = change(pending, load_balancers=(), deleted=frozenset({operation.target_id}))
    assert ("I8", operation.id) in broken(gone)
