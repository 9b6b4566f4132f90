"""Whatever customers, failures and crashes do in whatever order: the promises of the cloud hold."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from pathlib import Path

import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select

from fakecloud import errors
from fakecloud.billing import events as billing
from fakecloud.domain import lifecycle
from fakecloud.domain.lifecycle import TRANSITIONAL
from fakecloud.errors import Permanent, Transient
from fakecloud.model import State
from fakecloud.provisioning.results import Result
from fakecloud.store import load_balancers
from fakecloud.tables.cloud import address, load_balancer
from tests.fakes.small_cloud import LEASE_S, SmallCloud, spec

NAMES = st.sampled_from(["a", "b", "c"])
SPECS = st.builds(
    lambda port, type, more: spec(port, 9000, **({"type": type} if type else {}), **more),
    st.sampled_from([8080, 8081]),
    st.sampled_from([None, "lb-m"]),
    st.sampled_from([{}, {"admin_up": False}]),
)
FAILURES = st.sampled_from(
    [
        Transient("bind_failed", "taken"),
        Permanent("config_invalid", "no"),
        OSError(28, "No space left on device"),
    ]
)


class CloudMachine(RuleBasedStateMachine):
    """A small cloud with every kind of luck."""

    @initialize()
    def begin(self) -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
        self.directory = tempfile.TemporaryDirectory()
        self.cloud = SmallCloud(f"sqlite:///{Path(self.directory.name)}/cloud.db")
        self.zombies: list[load_balancers.LoadBalancer] = []
        self.highest: dict[str, tuple[int, int, int]] = {}

    @rule(name=NAMES, of=SPECS, team=st.sampled_from(["x", "y"]))
    def put(self, name, of, team) -> None:
        with contextlib.suppress(errors.BeingDeleted, errors.NoCapacity):
            self.cloud.put(name, of, team=team)

    @rule(name=NAMES, team=st.sampled_from(["x", "y", "z"]))
    def relabel(self, name, team) -> None:
        try:
            before = self.cloud.get(name)
            self.cloud.put(name, before.spec, team=team)
        except (errors.NotFound, errors.BeingDeleted):
            return
        assert self.cloud.get(name).generation == before.generation

    @rule(name=NAMES)
    def delete(self, name) -> None:
        try:
            self.cloud.delete(name)
        except errors.NotFound:
            return

    @rule()
    def step(self) -> None:
        self.cloud.provisioner.step()

    @rule(failure=FAILURES)
    def fail(self, failure) -> None:
        self.cloud.dataplane.fail_next = [failure]
        self.cloud.provisioner.step()
        self.cloud.dataplane.fail_next = []

    @rule(where=st.sampled_from(["before", "after"]))
    def die_between_claim_and_finish(self, where) -> None:
        claimed = self.cloud.provisioner._claims.take()
        if claimed is None:
            return
        if where == "after" and claimed.state is not State.DELETING:
            self.cloud.provisioner._apply(claimed)
        self.zombies.append(claimed)

    @precondition(lambda self: self.zombies)
    @rule(failure=st.none() | FAILURES)
    def zombie_wakes(self, failure) -> None:
        """One that slept finishes; its lease may have gone to another meanwhile."""
        claimed = self.zombies.pop()
        with self.cloud.database.read() as connection:
            row = connection.execute(
                select(load_balancer.c.lease_epoch, load_balancer.c.lease_owner).where(
                    load_balancer.c.pk == claimed.pk
                )
            ).one()
        ours = row.lease_epoch == claimed.lease_epoch and row.lease_owner is not None
        before = self.cloud.present()
        if ours and failure is None:
            if claimed.state is State.DELETING:
                self.cloud.provisioner._remove(claimed)
            else:
                self.cloud.provisioner._apply(claimed)
        self.cloud.provisioner._results.hand_in(Result(claimed, failure))
        if row.lease_epoch != claimed.lease_epoch:
            assert self.cloud.present() == before, "a stale epoch wrote"

    @rule(seconds=st.sampled_from([0.3, 5.0, LEASE_S + 1, 301.0, 901.0]))
    def time_passes(self, seconds) -> None:
        self.cloud.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-2.0, 2.0]))
    def wall_clock_is_set(self, seconds) -> None:
        self.cloud.clock.step_wall(seconds)

    @rule(lost=st.booleans())
    def restart(self, lost) -> None:
        self.zombies.clear()
        if lost:
            for of_host in (self.cloud.host.desired, self.cloud.host.running):
                of_host.clear()
            self.cloud.host.epochs.clear()
        self.cloud.restart()

    @rule(healthy=st.booleans())
    def targets_change(self, healthy) -> None:
        self.cloud.probes.healthy[9000] = healthy
        for key in self.cloud.probes.watched:
            self.cloud.health.on_change(key, self.cloud.probes.result(key))
        self.cloud.health.tell_dataplane(0)
        self.cloud.health.save()

    @invariant()
    def generations_and_versions_only_grow(self) -> None:
        for lb in self.living():
            assert lb.observed_generation <= lb.generation
            now = (lb.generation, lb.resource_version, lb.lease_epoch)
            assert all(a <= b for a, b in zip(self.highest.get(lb.id, now), now, strict=True))
            self.highest[lb.id] = now
            if lb.state is State.ACTIVE:
                assert (lb.observed_generation, bool(lb.addresses)) == (lb.generation, True)

    @invariant()
    def one_living_row_per_name(self) -> None:
        assert max(Counter(lb.name for lb in self.living()).values(), default=1) == 1

    @invariant()
    def nothing_is_stuck(self) -> None:
        """What is in transition is due, and what is leased can be claimed when the lease ends."""
        for lb in self.living():
            if lb.state in TRANSITIONAL or lb.state is State.ERROR:
                assert lb.due_at is not None, lb
            else:
                assert lb.due_at is None, lb

    @invariant()
    def every_address_has_one_living_owner(self) -> None:
        with self.cloud.database.read() as connection:
            rows = connection.execute(
                select(address.c.ip, address.c.load_balancer_id).where(
                    address.c.load_balancer_id.is_not(None)
                )
            ).all()
        owned = sorted((a.ip, lb.id) for lb in self.living() for a in lb.addresses)
        assert sorted((row.ip, row.load_balancer_id) for row in rows) == owned
        assert len({ip for ip, _ in owned}) == len(owned)

    @invariant()
    def what_was_active_and_lives_is_counted_once(self) -> None:
        billed = self.cloud.billed() if hasattr(self, "cloud") else []
        counted = Counter(event.resource for event in billed)
        assert counted == Counter(lb.id for lb in self.living() if lb.was_active)
        by_id = {lb.id: lb for lb in self.living()}
        for event in billed:
            assert event.terms == billing.terms(by_id[event.resource])

    @invariant()
    def the_event_log_is_the_truth(self) -> None:
        if not hasattr(self, "cloud"):
            return
        versions = [event.resource_version for event in self.cloud.events()]
        assert versions == list(range(1, len(versions) + 1))
        assert self.cloud.replayed() == self.cloud.present()

    def living(self) -> list[load_balancers.LoadBalancer]:
        return self.cloud.living() if hasattr(self, "cloud") else []

    def teardown(self) -> None:
        if not hasattr(self, "cloud"):
            return
        try:
            self.everything_comes_to_rest()
        finally:
            self.cloud.close()
            self.directory.cleanup()
            structlog.reset_defaults()

    def everything_comes_to_rest(self) -> None:
        """When failures end: every wish is reality, and the data plane is nothing but that."""
        self.zombies.clear()
        for _ in range(60):
            self.cloud.clock.advance(max(LEASE_S + 1, lifecycle.ERROR_RETRY_S))
            while self.cloud.provisioner.step():
                pass
        living = self.living()
        assert {lb.state for lb in living} <= {State.ACTIVE}
        assert set(self.cloud.host.desired) == {lb.id for lb in living}
        for lb in living:
            applied = self.cloud.host.desired[lb.id]
            assert (applied.spec, applied.addresses) == (lb.spec, lb.addresses)
        running = [o for o in self.cloud.operations() if o.status.value == "RUNNING"]
        assert running == []


CloudMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestCloud = CloudMachine.TestCase
