"""What the cloud does about wishes: take a due load balancer, make it so, hand in the result.

A worker holds a lease while it works, with an epoch that fences everything it writes: to the
store, and to the data plane. Long work on the data plane keeps its lease. A worker that dies or
sleeps past its lease loses nothing: the row is still due and another worker does the same,
idempotent work. Turns of the loop are `step()`.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from threading import Lock
from typing import Final, Protocol

import structlog

from fakecloud.clock import Clock
from fakecloud.domain import outcomes
from fakecloud.domain.hooks import Hook, NoHook, Point
from fakecloud.errors import (
    DataPlaneError,
    Postponed,
    StaleEpoch,
    Transient,
    Unavailable,
)
from fakecloud.health.board import Health
from fakecloud.model import (
    Address,
    CertificateChain,
    Desired,
    LoadBalancer,
    PoolKey,
    ProbeKey,
    ProbeWeight,
    Spec,
    State,
)
from fakecloud.network import host_ports
from fakecloud.network.allocation import Allocator
from fakecloud.provisioning.claims import Claims
from fakecloud.provisioning.results import Result, Results
from fakecloud.store import leases, operations
from fakecloud.store import load_balancers as rows
from fakecloud.store.database import Connection, Database

RECOVER: Final = "system.recover"

log = structlog.get_logger()


class DataPlane(Protocol):
    """What runs load balancers. Every call is idempotent, fenced by epoch, and may block a while.

    Raises: Transient (try again), Permanent (until the wish changes), StaleEpoch (lease lost).
    """

    def apply(self, desired: Desired) -> None:
        """Make the data plane run exactly `desired`; on an error the last good one serves on."""

    def set_down(
        self,
        lb_id: str,
        down: frozenset[ProbeKey],
        weights: frozenset[ProbeWeight] = frozenset(),
    ) -> None:
        """Take these targets out of service, and all others in; nothing if `lb_id` isn't run.

        weights: as in `Desired`.
        """

    def remove(self, lb_id: str, epoch: int) -> None:
        """End the load balancer and leave nothing of it."""

    def serving(self, lb_id: str) -> bool:
        """Say whether a process runs it now."""


class HostAddresses(Protocol):
    """Puts addresses of `interface` pools onto this host; loopback ones are there anyway."""

    def ensure(self, lb_id: str, addresses: tuple[Address, ...]) -> None:
        """Make this host answer for these addresses. Raises: Transient, Permanent."""

    def prune(self, lb_id: str, addresses: tuple[Address, ...]) -> None:
        """Stop answering for all addresses of the load balancer but these."""


class Keys(Protocol):
    """Opens the keys of certificates."""

    def chains(self, project: str, spec: Spec) -> tuple[CertificateChain, ...]:
        """Return the certificates that `spec` names, with their keys. Raises: Transient."""


class Provisioner:
    """Turns wishes into running load balancers, one `step()` after the other, in any thread."""

    def __init__(
        self,
        database: Database,
        dataplane: DataPlane,
        addresses: HostAddresses,
        health: Health,
        clock: Clock,
        *,
        host: str,
        owner: str,
        lease_s: float,
        rng: random.Random,
        hook: Hook | None = None,
        pools: Collection[PoolKey] | None = None,
        allocator: Allocator | None = None,
        keys: Keys | None = None,
        published: Sequence[int] = (),
    ) -> None:
        """Claim rows of `host` as `owner`, for `lease_s` seconds each; and rows that no host has
        if their addresses are of `pools` (None: of any). `allocator`: for addresses that are taken.
        `keys`: where certificates come from. `published`: ports of the machine for listeners.
        """
        self._keys = keys
        self._published = published
        self._database = database
        self._dataplane = dataplane
        self._addresses = addresses
        self._health = health
        self._clock = clock
        self._host = host
        self._owner = owner
        self._hook = hook or NoHook()
        self._claims = Claims(
            database,
            clock,
            host=host,
            owner=owner,
            lease_s=lease_s,
            pools=pools,
            published=published,
        )
        self._results = Results(
            database, health, clock, hook=self._hook, allocator=allocator, rng=rng
        )
        self._lock = Lock()
        self._mine: set[str] = set()  # what this host runs

    def step(self) -> bool:
        """Bring one due load balancer one step further; False if none was due."""
        claimed = self._claims.take()
        if claimed is None:
            return False
        bound = log.bind(lb=claimed.name, lb_id=claimed.id, generation=claimed.generation)
        try:
            self._work(claimed)
        except StaleEpoch:
            bound.warning("lease_lost", epoch=claimed.lease_epoch)
            self._let_go(claimed)
        except Postponed as early:
            self._put_off(claimed, early.seconds)
        except DataPlaneError as error:
            bound.warning("provisioning_failed", code=error.code, reason=error.message)
            self._results.hand_in(Result(claimed, error))
        except Unavailable:
            raise  # nothing can be written now; the lease ends and another try begins
        except Exception as error:  # noqa: BLE001 - one row must not stop the others
            # A bug, or an outside fault that nobody named: this row backs off, others go on.
            bound.exception("provisioning_crashed")
            reason = f"unexpected: {type(error).__name__}; the server's log has more"
            self._results.hand_in(Result(claimed, Transient("internal", reason)))
        else:
            bound.info("load_balancer_converged", removed=claimed.state is State.DELETING)
            self._results.hand_in(Result(claimed))
        return True

    def _work(self, claimed: LoadBalancer) -> None:
        self._hook.at(Point.CLAIM, claimed)
        if claimed.state is State.DELETING:
            self._remove(claimed)
        else:
            self._apply(claimed)
        self._hook.at(Point.POST_APPLY, claimed)

    def fits(self, lb: LoadBalancer) -> bool:
        """Say whether a running load balancer is as this server would run it."""
        return host_ports.fit(lb, self._published)

    def recover(self, lost: Iterable[LoadBalancer]) -> None:
        """Take up load balancers whose data plane is gone (T15), and leases of our last life."""
        with self._database.write() as connection:
            leases.release_all(connection, self._owner)
            for one in lost:
                if (lb := rows.get(connection, one.pk)) is not None:
                    self._again(connection, lb)

    def crashed(self, lb_id: str) -> None:
        """Make visible that a load balancer's process died: it is put into effect again."""
        with self._database.write() as connection:
            lb = rows.by_id(connection, lb_id)
            if lb is None or lb.host not in (None, self._host):
                return
            if not operations.is_running(connection, lb_id, RECOVER):
                self._again(connection, lb)

    def drop_moved(self) -> int:
        """End what this host runs and another host has, or nobody; return how many.

        A host that was taken for dead and is alive must not answer beside its successor.
        """
        with self._lock:
            mine = frozenset(self._mine)
        with self._database.read() as connection:
            moved = rows.moved(connection, self._host, mine)
        for lb_id in moved:
            log.warning("load_balancer_moved", lb_id=lb_id)
            try:
                self._dataplane.remove(lb_id, moved[lb_id])
            except StaleEpoch:
                continue  # it has just come back
            self._health.forget(lb_id)
            self._addresses.prune(lb_id, ())
            with self._lock:
                self._mine.discard(lb_id)
        return len(moved)

    def _let_go(self, claimed: LoadBalancer) -> None:
        """Undo what was prepared for a load balancer that was removed meanwhile."""
        with self._database.write() as connection:
            lb = rows.get(connection, claimed.pk)
        if lb is None or lb.state is State.DELETED:
            self._health.forget(claimed.id)
            self._addresses.prune(claimed.id, ())
            with self._lock:
                self._mine.discard(claimed.id)

    def renew(self) -> int:
        """Lengthen the leases of work that the data plane is at; return how many."""
        return self._claims.renew()

    def hold(self, ids: Collection[str]) -> None:
        """Note what this host runs already."""
        with self._lock:
            self._mine.update(ids)

    def _again(self, connection: Connection, lb: LoadBalancer) -> None:
        now, wall = self._clock.now(), self._clock.wall()
        again = outcomes.lost(lb, wall)
        if again is None:
            return  # not made yet, or on its way out: due anyway
        rows.begin(connection, again, RECOVER, now)

    def _apply(self, lb: LoadBalancer) -> None:
        self._addresses.ensure(lb.id, lb.addresses)
        told = self._health.settle(lb)
        self.hold([lb.id])
        self._hook.at(Point.PRE_APPLY, lb)
        desired = Desired(
            lb_id=lb.id,
            epoch=lb.lease_epoch,
            generation=lb.generation,
            spec=lb.served,
            addresses=lb.addresses,
            down=told.down,
            weights=told.weights,
            certificates=self._keys.chains(lb.project, lb.spec) if self._keys else (),
            host_ports=lb.host_ports,
        )
        with self._claims.renewed(lb):
            self._dataplane.apply(self._hook.wanted(lb, desired))
        self._health.applied(lb.id, told)
        self._addresses.prune(lb.id, lb.addresses)

    def _remove(self, lb: LoadBalancer) -> None:
        self._health.forget(lb.id)
        self._hook.at(Point.PRE_APPLY, lb)
        if not self._hook.forgets(lb):
            with self._claims.renewed(lb):
                self._dataplane.remove(lb.id, lb.lease_epoch)
            self._addresses.prune(lb.id, ())
        with self._lock:
            self._mine.discard(lb.id)

    def _put_off(self, claimed: LoadBalancer, seconds: float) -> None:
        """Give the lease back; the row is due again in `seconds`, or now if it has changed."""
        with self._database.write() as connection:
            lease = (claimed.pk, claimed.lease_epoch)
            lb = leases.release(connection, [lease]).get(claimed.pk)
            if lb is None:
                return
            operations.enter(connection, {lb.id: claimed.generation}, "wait", self._clock.now())
            if (lb.generation, lb.state) == (claimed.generation, claimed.state):
                again = self._clock.wall() + timedelta(seconds=seconds)
                leases.put_off(connection, lb.pk, again)
