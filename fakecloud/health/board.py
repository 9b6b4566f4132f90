"""Which load balancer cares about which probe, and who is told when an answer changes.

Changes go to the data plane at once and to the store a little later, several at a time: traffic
must not wait for a database, and a flapping target must not flood the watchers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime
from threading import Condition
from typing import Final, Literal, Protocol

import msgspec
import structlog

from fakecloud.clock import Clock
from fakecloud.domain.checks import ProbeResult
from fakecloud.errors import DataPlaneError, Unavailable
from fakecloud.model import (
    LoadBalancer,
    ProbeKey,
    ProbeWeight,
    Spec,
    State,
    Target,
    TargetStatus,
    operating_state,
    probe_key,
)
from fakecloud.store import load_balancers as rows
from fakecloud.store.database import Connection, Database

log = structlog.get_logger()

SETTLE_S: Final = 0.5
RETRY_S: Final = 1.0
SAVE_BATCH: Final = 100
_HEALTH: Final[dict[bool | None, Literal["healthy", "unhealthy", "unknown"]]] = {
    True: "healthy",
    False: "unhealthy",
    None: "unknown",
}


class Probes(Protocol):
    """Asks targets how they are."""

    def watch(self, keys: Collection[ProbeKey]) -> None:
        """Replace the set of what is probed."""

    def result(self, key: ProbeKey) -> ProbeResult:
        """Return the newest answer; `healthy` None when there is none yet."""


class TakesHealth(Protocol):
    """The part of the data plane that health needs."""

    def set_down(
        self, lb_id: str, down: frozenset[ProbeKey], weights: frozenset[ProbeWeight]
    ) -> None:
        """Take these targets out of service and all others in; `weights` as they say of themselves."""


class Told(msgspec.Struct, frozen=True):
    """What the data plane is told about a load balancer's targets; as in `Desired`."""

    down: frozenset[ProbeKey]
    weights: frozenset[ProbeWeight] = frozenset()


def keys_of(spec: Spec) -> frozenset[ProbeKey]:
    """Return everything that is probed for a load balancer."""
    keys = (probe_key(t, g.health_check) for g in spec.target_groups for t in g.targets)
    return frozenset(key for key in keys if key is not None)


def _weighing(spec: Spec) -> frozenset[ProbeKey]:
    """Return the probes that tell how much traffic their target wants."""
    keys = (
        probe_key(target, group.health_check)
        for group in spec.target_groups
        if group.weights_from == "health_header"
        for target in group.targets
    )
    return frozenset(key for key in keys if key is not None)


class Health:
    """Knows the health of every target. Thread-safe."""

    def __init__(self, database: Database, dataplane: TakesHealth, clock: Clock) -> None:
        """Tell `dataplane` and `database`; `connect` the prober before anything else."""
        self._database = database
        self._dataplane = dataplane
        self._clock = clock
        self._probes: Probes | None = None
        self._changed = Condition()
        self._keys: dict[str, frozenset[ProbeKey]] = {}  # by load balancer id
        self._users: defaultdict[ProbeKey, set[str]] = defaultdict(set)
        self._weighing: dict[str, frozenset[ProbeKey]] = {}  # whose answers carry weights
        self._told: dict[str, Told] = {}  # what the data plane knows
        self._untold: set[str] = set()  # data plane must be told
        self._telling: set[str] = set()  # is being told: by one thread at a time
        self._not_before: dict[str, float] = {}  # who couldn't be told, until when (monotonic)
        self._unsaved: set[str] = set()  # store must be told
        self._pretended: dict[str, datetime] = {}  # whose targets a fault lets fail, since when

    def connect(self, probes: Probes) -> None:
        """Use this prober; its changes come in by `on_change`."""
        self._probes = probes

    def on_change(self, key: ProbeKey, _result: ProbeResult) -> None:
        """Note that an answer changed. Never blocks for long: called from an event loop."""
        with self._changed:
            users = self._users.get(key, ())
            self._untold.update(users)
            self._unsaved.update(users)
            self._changed.notify_all()

    def pretend(self, lb_id: str, *, failing: bool) -> None:
        """Let all targets of a load balancer count as failing, or as what they are again."""
        with self._changed:
            if failing:
                self._pretended[lb_id] = self._clock.now()
            else:
                self._pretended.pop(lb_id, None)
            if lb_id in self._keys:
                self._untold.add(lb_id)
                self._unsaved.add(lb_id)
                self._changed.notify_all()

    def register(self, balancers: Iterable[LoadBalancer]) -> None:
        """Probe the targets of load balancers that already run."""
        with self._changed:
            for lb in balancers:
                self._set_keys(lb.id, keys_of(lb.spec), _weighing(lb.spec))
        self._watch()

    def settle(self, lb: LoadBalancer) -> Told:
        """Probe the targets of `lb`; return what the data plane must know, in half a second at most.

        It returns once every target has answered. One without an answer counts as down: it gets
        traffic when it has shown that it can take it.
        """
        keys = keys_of(lb.spec)
        with self._changed:
            new = self._set_keys(lb.id, keys, _weighing(lb.spec))
        if new:
            self._watch()
        with self._changed:  # also for keys that another's settle has just begun to probe
            self._changed.wait_for(lambda: not (self._states(keys) & {None}), SETTLE_S)
        failing = lb.id in self._pretended
        down = frozenset(key for key in keys if failing or not self._result(key).healthy)
        with self._changed:
            weights = self._weights(lb.id)
        return Told(down, weights)

    def applied(self, lb_id: str, told: Told) -> None:
        """Note what `settle` gave and the data plane now has; tell it what came since."""
        with self._changed:
            if lb_id in self._keys:
                self._told[lb_id] = told
                self._untold.add(lb_id)
                self._changed.notify_all()

    def forget(self, lb_id: str) -> None:
        """Stop probing for a load balancer."""
        with self._changed:
            self._set_keys(lb_id, frozenset(), frozenset())
            for of_id in (self._keys, self._weighing, self._told, self._not_before):
                of_id.pop(lb_id, None)
            self._untold.discard(lb_id)
            self._unsaved.discard(lb_id)
        self._watch()

    def summary(self, lb: LoadBalancer) -> tuple[frozenset[ProbeKey], frozenset[ProbeKey]]:
        """Return which probes of a load balancer are down, and which have no answer yet."""
        if lb.id in self._pretended:
            return keys_of(lb.spec), frozenset()
        results = {key: self._result(key).healthy for key in keys_of(lb.spec)}
        return (
            frozenset(key for key, healthy in results.items() if healthy is False),
            frozenset(key for key, healthy in results.items() if healthy is None),
        )

    def targets(self, lb: LoadBalancer) -> tuple[TargetStatus, ...]:
        """Return the health of every target, as the API shows it."""
        return tuple(
            self._status(lb, target, probe_key(target, group.health_check))
            for group in lb.spec.target_groups
            for target in group.targets
        )

    def tell_dataplane(self, timeout_s: float) -> bool:
        """Wait for a change and tell the data plane; False if none came. One turn of a loop.

        Several threads may turn it: a node that fails for hundreds of load balancers keeps one
        waiting for each of them. A load balancer that can't be told now is told a second later;
        the others don't wait.
        """
        with self._changed:
            lb_id = self._changed.wait_for(self._tellable, timeout_s)
            if lb_id is None:
                return False
            self._untold.discard(lb_id)
            news = self._news(lb_id) if lb_id in self._keys else None
            if news is None or self._told.get(lb_id) == news:
                return True
            self._telling.add(lb_id)
        try:
            self._tell(lb_id, news)
        finally:
            with self._changed:
                self._telling.discard(lb_id)
                if lb_id in self._untold:
                    self._changed.notify_all()
        return True

    def _tell(self, lb_id: str, news: Told) -> None:
        try:
            self._dataplane.set_down(lb_id, news.down, news.weights)
        except DataPlaneError as error:
            log.warning("health_not_told", lb_id=lb_id, reason=error.message)
            with self._changed:
                self._untold.add(lb_id)
                self._not_before[lb_id] = self._clock.monotonic() + RETRY_S
            return
        with self._changed:
            self._not_before.pop(lb_id, None)
            if lb_id in self._keys:
                self._told[lb_id] = news

    def save(self) -> int:
        """Write changed health to the store (T14); return how many load balancers changed.

        Many in one transaction: a node that goes down changes every load balancer at once.
        """
        saved = 0
        while True:
            with self._changed:  # before the look: a change during it is saved next
                batch = {self._unsaved.pop() for _ in range(min(len(self._unsaved), SAVE_BATCH))}
            if not batch:
                return saved
            try:
                with self._database.write() as connection:
                    saved += sum(self._save(connection, lb_id) for lb_id in batch)
            except Unavailable:
                with self._changed:
                    self._unsaved |= batch
                raise

    def _tellable(self) -> str | None:
        """Return somebody who must be told now, and isn't, and didn't just refuse."""
        now = self._clock.monotonic()
        waiting = (id for id in self._untold if self._not_before.get(id, now) <= now)
        return next((id for id in waiting if id not in self._telling), None)

    def _save(self, connection: Connection, lb_id: str) -> bool:
        lb = rows.by_id(connection, lb_id)
        if lb is None or lb.state in (State.DELETING, State.DELETED):
            return False
        down, unknown = self.summary(lb)
        seen = msgspec.structs.replace(
            lb,
            targets=self.targets(lb),
            operating_state=operating_state(lb.spec, down, unknown, suspended=lb.suspended)
            if lb.was_active
            else lb.operating_state,
        )
        if seen == lb:
            return False
        rows.save(connection, seen, self._clock.now())
        return True

    def _status(self, lb: LoadBalancer, target: Target, key: ProbeKey | None) -> TargetStatus:
        result = ProbeResult(None, "unprobed", lb.asked_at) if key is None else self._result(key)
        since = self._pretended.get(lb.id)
        if since is not None and key is not None:
            result = ProbeResult(False, "fault_injected", since)
        return TargetStatus(
            ip=target.ip,
            port=target.port,
            health=_HEALTH[result.healthy],
            reason=result.reason,
            since=result.since,
        )

    def _result(self, key: ProbeKey) -> ProbeResult:
        assert self._probes is not None, "connect a prober first"
        return self._probes.result(key)

    def _states(self, keys: Iterable[ProbeKey]) -> set[bool | None]:
        return {self._result(key).healthy for key in keys}

    def _news(self, lb_id: str) -> Told | None:
        """Return what the data plane must know, None while that isn't known (after a restart)."""
        told = self._told.get(lb_id)
        down = set()
        for key in self._keys[lb_id]:
            healthy = False if lb_id in self._pretended else self._result(key).healthy
            if healthy is None and told is None:
                return None
            if healthy is False or (healthy is None and told is not None and key in told.down):
                down.add(key)
        return Told(frozenset(down), self._weights(lb_id))

    def _weights(self, lb_id: str) -> frozenset[ProbeWeight]:
        results = ((key, self._result(key)) for key in self._weighing.get(lb_id, ()))
        return frozenset(
            ProbeWeight(key, result.weight) for key, result in results if result.weight is not None
        )

    def _set_keys(
        self, lb_id: str, keys: frozenset[ProbeKey], weighing: frozenset[ProbeKey]
    ) -> bool:
        """Note what `lb_id` needs; say whether a probe must be started."""
        before = self._keys.get(lb_id, frozenset())
        self._keys[lb_id] = keys
        self._weighing[lb_id] = weighing
        for key in before - keys:
            self._users[key].discard(lb_id)
            if not self._users[key]:
                del self._users[key]
        new = False
        for key in keys - before:
            new = new or key not in self._users
            self._users[key].add(lb_id)
        return new

    def _watch(self) -> None:
        assert self._probes is not None, "connect a prober first"
        with self._changed:  # held on: two callers must not hand over their sets in the wrong order
            self._probes.watch(frozenset(self._users))
