"""The checker of the cloud's promises: silent over a healthy cloud, and it sees each one broken."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import text

from fakecloud.access.quotas import Quotas
from fakecloud.chaos.engine import Draft
from fakecloud.domain import invariants
from fakecloud.domain.faults import Action, Layer
from fakecloud.domain.invariants import Rows
from fakecloud.domain.routing import NetworkWish, RouteWish
from fakecloud.model import State
from fakecloud.requests.instances import Instances
from fakecloud.requests.networks import Networks, Routes
from fakecloud.requests.reservations import Reservations, Wanted
from fakecloud.resources import InstanceWish
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
        ("I5", lambda r: change(r, billed={})),
        ("I5", lambda r: change(r, billed={id: all * 2 for id, all in r.billed.items()})),
        ("I5", lambda r: change(r, billed={**r.billed, "lb_stranger": []})),
        ("I5", lambda r: one(r, labels={"team": "z"})),
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


def planted(cloud: SmallCloud, *statements: str) -> set[str]:
    """Return the promises that are broken once these statements were done behind its back."""
    with cloud.database.engine.begin() as connection:
        if not cloud.database.is_sqlite:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            connection.execute(text(statement))
    found = change(
        rows(cloud),
        serving=cloud.dataplane.running(),
        glimpsed=cloud.dataplane.running(),
        host="host-1",
    )
    return {name for name, _ in broken(found)}


LATER = 2_000_000_000_000_000  # 2033, in microseconds
WEB = "UPDATE load_balancer SET {} WHERE name = 'web'"
BREACHES = {
    "I1 observed": ("I1", WEB.format("observed_generation = generation + 1")),
    "I1 version": ("I1", WEB.format("resource_version = 999999")),
    "I2": ("I2", WEB.format("observed_generation = 0")),
    "I3 half a lease": ("I3", WEB.format("lease_owner = 'host-1'")),
    "I3 nothing to do": (
        "I3",
        WEB.format(f"lease_owner = 'host-1', lease_until = {LATER}, due_at = NULL"),
    ),
    "I3 no fence": (
        "I3",
        WEB.format(f"lease_owner = 'h', lease_until = {LATER}, due_at = 0, lease_epoch = 0"),
    ),
    "I4": ("I4", "UPDATE address SET load_balancer_id = NULL WHERE load_balancer_id IS NOT NULL"),
    "I5 none": ("I5", "DELETE FROM billed_resource"),
    "I5 ended": ("I5", "UPDATE billed_resource SET ended_us = begun_us"),
    "I5 goes on": ("I5", "UPDATE billed_resource SET ended_us = NULL"),
    "I5 given up": ("I5", "DELETE FROM reserved_address"),
    "I12 day": (
        "I12",
        "INSERT INTO cost_day (account, day, resource, attribution, sku, price_id, book, "
        "quantity_micros, list_pico, billed_pico, estimated) "
        "VALUES ('default', 1, 'lb_x', 'x', 'x', 'x', 'x', 1, 1, 1, FALSE)",
    ),
    "I12 invoice": (
        "I12",
        "INSERT INTO billing_period (account, period, closed_us, lines, total_pico, root_hash) "
        "VALUES ('default', '2026-01', 0, 1, '5', 'x')",
    ),
    "I12 seal": (
        "I12",
        "INSERT INTO billing_seal (seq, account, hash) VALUES (999999, 'default', 'x')",
    ),
    "I6": ("I6", WEB.format("state = 'ERROR'")),
    "I7": ("I7", WEB.format("state = 'UPDATING', due_at = NULL")),
    "I8": ("I8", "UPDATE operation SET status = 'RUNNING'"),
    "I9": (
        "I9",
        "UPDATE address SET load_balancer_id = "
        "(SELECT id FROM load_balancer WHERE name = 'gone') WHERE load_balancer_id IS NOT NULL",
    ),
    "I10 load balancers": ("I10", "UPDATE quota SET used = 7 WHERE metric = 'load_balancers'"),
    "I10 addresses": ("I10", "UPDATE quota SET used = used + 1 WHERE metric = 'addresses'"),
    "I10 forgotten": ("I10", "DELETE FROM quota WHERE metric = 'addresses'"),
    "I10 instances": ("I10", "DELETE FROM instance"),
    "I10 networks": ("I10", "UPDATE quota SET used = used + 1 WHERE metric = 'networks'"),
    "I10 routes": ("I10", "DELETE FROM route"),
    "I10 faults": ("I10", "DELETE FROM fault"),
    "I11": (
        "I11",
        "INSERT INTO idempotency_key (project, key, fingerprint, status, headers, body, "
        "created_at) VALUES ('default', 'k', '', 201, "
        '\'{"location": "/v1/load-balancers/x"}\', \'{"status": {"id": "lb_none"}}\', 0)',
    ),
    "I13": ("I13", "UPDATE version SET value = 1"),
    "I14 events": (
        "I14",
        "UPDATE event SET at = at - 5000000 WHERE resource_version = "
        "(SELECT max(resource_version) FROM event)",
    ),
    "I14 clock": (
        "I14",
        "INSERT INTO clock (id, mode, rate, anchor_sim, anchor_wall, status, target) "
        "VALUES ('global', 'manual', 1, 2000000, 0, 'ADVANCING', 1000000)",
    ),
}


@pytest.mark.parametrize(("invariant", "statement"), BREACHES.values(), ids=BREACHES)
def test_a_breach_that_was_planted_in_the_database_is_named(cloud, invariant, statement):
    cloud.active("gone")
    cloud.delete("gone")
    cloud.active("web")
    Reservations(cloud.database, [cloud.pool], cloud.clock).reserve("default", Wanted(name="kept"))
    wish = InstanceWish(type="m", region="local-1", zone="a", addresses=(), labels={})
    Instances(cloud.database, cloud.clock, Quotas()).put("default", "node", wish)
    networks = Networks(cloud.database, (), cloud.clock, Quotas())
    networks.put("default", "pods", NetworkWish(ranges=("10.244.0.0/16",)))
    route = RouteWish(network="pods", destination="10.244.1.0/24", next_hop="10.0.0.1")
    Routes(cloud.database, cloud.clock, Quotas(), lambda: None).put("default", "n1", route)
    action = Action(type="html_502")
    cloud.chaos.create("default", Draft(layer=Layer.API, action=action))
    assert planted(cloud) == set()
    assert invariant in planted(cloud, statement)


@pytest.mark.parametrize("plant", ["process gone", "process that nobody wants"])
def test_a_data_plane_that_runs_something_else_is_named(cloud, plant):
    lb = cloud.active("web")
    assert planted(cloud) == set()
    if plant == "process gone":
        cloud.dataplane.remove(lb.id, lb.lease_epoch + 1)
    else:
        cloud.dataplane.apply(cloud.host.desired[lb.id].__class__(
            **{**msgspec.structs.asdict(cloud.host.desired[lb.id]), "lb_id": "lb_x",
               "addresses": (), "spec": spec(8099)}))  # fmt: skip
        cloud.host.running["lb_x"] = cloud.host.running[lb.id]
    assert planted(cloud) == {"I15"}


def test_a_fault_that_was_asked_for_is_no_breach(cloud):
    cloud.chaos.create(
        "default", Draft(layer=Layer.PROVISION, action=Action(type="partial", listeners=("*",)))
    )
    cloud.active("web")
    assert cloud.dataplane.running() == frozenset()
    assert planted(cloud) == set()
