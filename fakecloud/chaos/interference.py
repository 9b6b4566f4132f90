"""What disturbs the workers: faults of the layers provision and worker, and those of labels.

Nothing here holds a worker up for long: a delay gives the load balancer back, to be looked at
again within a second, so that removing the fault lets it go on. What a fault did to a load
balancer is in the log under `<id>/<operation>/g<generation>/<point>`, and goes on from there
after a restart or on another host.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from threading import Event, Lock
from typing import Final

import msgspec
import structlog

from fakecloud.chaos.engine import Chaos
from fakecloud.clock import Clock
from fakecloud.domain import chaos_labels, fault_actions, faults
from fakecloud.domain.faults import Action, Facts, Layer, Rule
from fakecloud.errors import CloudError, Permanent, Postponed, Transient, Unavailable
from fakecloud.model import Condition, Desired, LoadBalancer, State
from fakecloud.store import faults as rows
from fakecloud.store import load_balancers
from fakecloud.store.database import Database

log = structlog.get_logger()

LOOK_AGAIN_S: Final = 1.0
DUPLICATE_WAIT_S: Final = 2.0
CRASH_CODE: Final = 70
BY_LABEL: Final = "label"
"""The fault id in the log of what a label or annotation asked for."""

_TIMED: Final = frozenset({"delay", "slow_delete", "error_then_heal"})
_WAITING: Final = frozenset({"delay", "slow_delete", "stuck"})
_TROUBLES: Final = {
    "busy": "database is locked",
    "serialization": "could not serialize access due to concurrent update",
    "disconnect": "server closed the connection unexpectedly",
}


class Interference:
    """Told by a worker where it is; raises, blocks or ends the process if a fault says so."""

    def __init__(
        self,
        database: Database,
        chaos: Chaos,
        clock: Clock,
        *,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        """Ask `chaos` for rules; `end` ends the process as a crash does, without any clean-up."""
        self._database = database
        self._chaos = chaos
        self._clock = clock
        self._end = end
        self._planned: dict[tuple[str, int], Action] = {}
        self._partial: set[tuple[str, int]] = set()  # told the data plane less than is wanted
        self._lock = Lock()

    def at(self, point: str, lb: LoadBalancer) -> None:
        """Disturb the worker at this point of its attempt on `lb` if a fault says so.

        Raises: Transient, Permanent, Postponed (provision); Unavailable (worker's db_error).
        """
        self._disturb_worker(point, lb)
        if point not in ("claim", "pre_apply", "post_apply"):
            return
        asked = chaos_labels.parse(lb.labels, lb.annotations)
        if asked is not chaos_labels.NOTHING or not self._chaos.quiet(Layer.PROVISION):
            self._disturb_provisioning(point, lb, asked)
        if point == "post_apply" and lb.state is not State.DELETING:
            with self._lock:
                partial = (lb.id, lb.lease_epoch) in self._partial
                self._partial.discard((lb.id, lb.lease_epoch))
            if not partial:
                self._clear(lb)

    def spoils_commit(self, lb: LoadBalancer) -> bool:
        """Say whether a fault strikes before the commit of this attempt."""
        with self._lock:
            return (lb.id, lb.lease_epoch) in self._planned

    def wanted(self, lb: LoadBalancer, desired: Desired) -> Desired:
        """Return `desired` without the listeners that a fault `partial` leaves out."""
        found = self._standing("applying", lb)
        if found is None:
            return desired
        fault_id, action = found
        spec = desired.spec
        if action.listeners is None:
            kept = spec.listeners[:-1]
        else:
            kept = tuple(
                one
                for one in spec.listeners
                if not any(fnmatchcase(one.name, glob) for glob in action.listeners)
            )
        self._flag(fault_id, action, lb)
        with self._lock:
            self._partial.add((lb.id, lb.lease_epoch))
        return msgspec.structs.replace(desired, spec=msgspec.structs.replace(spec, listeners=kept))

    def forgets(self, lb: LoadBalancer) -> bool:
        """Say whether a fault `delete_leaks` leaves the process; an address is left at the end."""
        found = self._standing("removing", lb)
        if found is None:
            return False
        if found[1].leaks == "ip":
            with self._lock:
                self._planned[lb.id, lb.lease_epoch] = found[1]
        return found[1].leaks == "process"

    def _standing(self, point: str, lb: LoadBalancer) -> tuple[str, Action] | None:
        """Return the fault that changes what the data plane is told, logged if it is a new hit."""
        subject = _subject(point, lb)
        asked = chaos_labels.parse(lb.labels, lb.annotations)
        for action in asked.actions(_operation(lb)):
            if faults.phase_of(action) == point:
                if self._so_far(BY_LABEL, subject, action)[1] is None:
                    self._chaos.log_again(BY_LABEL, lb.project, Layer.PROVISION, action, subject)
                return BY_LABEL, action
        if self._chaos.quiet(Layer.PROVISION):
            return None
        for rule in self._chaos.candidates(_facts(Layer.PROVISION, point, lb)):
            if faults.phase_of(rule.action) == point:
                known = self._so_far(rule.id, subject, rule.action)[1] is not None
                if known or self._chaos.try_rule(rule, subject) is not None:
                    return rule.id, rule.action
        return None

    def _disturb_worker(self, point: str, lb: LoadBalancer) -> None:
        if point == "pre_commit":  # decided before: what is logged inside would be rolled back
            with self._lock:
                planned = self._planned.pop((lb.id, lb.lease_epoch), None)
            if planned is not None:
                self._strike(planned, lb)
            return
        if self._chaos.quiet(Layer.WORKER):
            return
        action = self._worker_action(point, lb)
        if action is not None:
            self._strike(action, lb)
        if point == "post_apply":
            planned = self._worker_action("pre_commit", lb)
            if planned is not None:
                with self._lock:
                    self._planned[lb.id, lb.lease_epoch] = planned

    def _worker_action(self, point: str, lb: LoadBalancer) -> Action | None:
        for rule in self._chaos.candidates(_facts(Layer.WORKER, point, lb)):
            if faults.phase_of(rule.action) == point:
                hit = self._chaos.try_rule(rule, _subject(point, lb))
                if hit is not None:
                    return hit.action
        return None

    def _strike(self, action: Action, lb: LoadBalancer) -> None:
        log.warning("fault_injected", action=action.type, lb_id=lb.id, epoch=lb.lease_epoch)
        match action.type:
            case "crash":
                self._end(CRASH_CODE)
            case "pause":
                self._clock.wait(Event(), action.seconds or 0.0)
            case "lease_steal":
                with self._database.write() as connection:
                    rows.steal_lease(connection, lb.pk, lb.lease_epoch, self._clock.wall())
            case "duplicate_run":
                self._let_another_run(lb)
            case "delete_leaks":
                with self._database.write() as connection:
                    rows.leave_address(connection, lb.id, [a.ip for a in lb.addresses])
            case "db_error":
                words = _TROUBLES[action.kind or "busy"]
                raise Unavailable(f"the database can't be used now: {words} (injected)")

    def _let_another_run(self, lb: LoadBalancer) -> None:
        """Give the lease away while going on, and wait a little until another worker has it."""
        with self._database.write() as connection:
            rows.drop_lease(connection, lb.pk, lb.lease_epoch)
        deadline = self._clock.monotonic() + DUPLICATE_WAIT_S
        while self._clock.monotonic() < deadline:
            with self._database.read() as connection:
                if rows.lease_epoch(connection, lb.pk) != lb.lease_epoch:
                    return
            self._clock.wait(Event(), 0.02)

    def _disturb_provisioning(
        self, point: str, lb: LoadBalancer, asked: chaos_labels.Asked
    ) -> None:
        for action in asked.actions(_operation(lb)):
            if faults.phase_of(action) == point:
                self._by_label(action, point, lb)
        for rule in self._chaos.candidates(_facts(Layer.PROVISION, point, lb)):
            if (
                rule.action.type not in fault_actions.AT_ADMISSION
                and faults.phase_of(rule.action) == point
            ):
                self._by_rule(rule, point, lb)

    def _by_label(self, action: Action, point: str, lb: LoadBalancer) -> None:
        subject = _subject(point, lb)
        count, first = self._so_far(BY_LABEL, subject, action)

        def again() -> None:
            self._chaos.log_again(BY_LABEL, lb.project, Layer.PROVISION, action, subject)

        if first is None:
            again()
            count, first = 1, self._clock.wall()
            self._carry_out(BY_LABEL, action, lb, _Progress(count, first, 0.0, None))
        else:
            self._carry_out(BY_LABEL, action, lb, _Progress(count, first, 0.0, again))

    def _by_rule(self, rule: Rule, point: str, lb: LoadBalancer) -> None:
        subject = _subject(point, lb)
        # By name, which the customer chose, so that the same run takes as long again.
        number = faults.draw(rule.seed, rule.id, 0, f"{lb.name}/{lb.generation}")
        count, first = self._so_far(rule.id, subject, rule.action)
        if first is None:
            if self._chaos.try_rule(rule, subject) is None:
                return
            progress = _Progress(1, self._clock.wall(), number, None)
        else:

            def again() -> None:
                self._chaos.log_again(rule.id, lb.project, rule.layer, rule.action, subject)

            progress = _Progress(count, first, number, again)
        self._carry_out(rule.id, rule.action, lb, progress)

    def _so_far(self, fault_id: str, subject: str, action: Action) -> tuple[int, datetime | None]:
        with self._database.read() as connection:
            return rows.hits_on(connection, fault_id, subject, action.type)

    def _carry_out(
        self, fault_id: str, action: Action, lb: LoadBalancer, progress: _Progress
    ) -> None:
        """Raise what the fault means now; return if it is over for this load balancer."""
        lasts = faults.duration_s(action, progress.number)
        left = (progress.first + timedelta(seconds=lasts) - self._clock.wall()).total_seconds()
        if action.type in _TIMED and left <= 0:
            return
        if action.type == "fail_transient" and progress.again is not None:
            if progress.count >= (action.times or 1):
                return
            progress.again()
        self._flag(fault_id, action, lb)
        raise _effect(action, left, f"fault {fault_id} ({action.type}) was injected")

    def _flag(self, fault_id: str, action: Action, claimed: LoadBalancer) -> None:
        """Say on the load balancer that a fault holds it: condition FaultInjected."""
        reason = "".join(word.capitalize() for word in action.type.split("_"))
        self._condition(claimed, "True", reason, fault_id)

    def _clear(self, claimed: LoadBalancer) -> None:
        if any((c.type, c.status) == ("FaultInjected", "True") for c in claimed.conditions):
            self._condition(claimed, "False", "Over", "")

    def _condition(self, claimed: LoadBalancer, status: str, reason: str, message: str) -> None:
        now = self._clock.now()
        with self._database.write() as connection:
            lb = load_balancers.get(connection, claimed.pk)
            if lb is None or lb.lease_epoch != claimed.lease_epoch:
                return
            before = next((c for c in lb.conditions if c.type == "FaultInjected"), None)
            if before is not None and (before.status, before.reason, before.message) == (
                status,
                reason,
                message,
            ):
                return
            same = before is not None and before.status == status
            new = Condition(
                type="FaultInjected",
                status="True" if status == "True" else "False",
                reason=reason,
                message=message,
                last_transition_time=before.last_transition_time if before and same else now,
            )
            others = (c for c in lb.conditions if c.type != "FaultInjected")
            load_balancers.save(
                connection, msgspec.structs.replace(lb, conditions=(new, *others)), now
            )


class _Progress(msgspec.Struct, frozen=True):
    """How far a fault is with a load balancer: hits, the first, a number for its duration.

    again: logs one more hit; None when the first has just been logged.
    """

    count: int
    first: datetime
    number: float
    again: Callable[[], None] | None


def _effect(action: Action, left: float, message: str) -> CloudError:
    if action.type in _WAITING:
        return Postponed(LOOK_AGAIN_S if action.type == "stuck" else min(left, LOOK_AGAIN_S))
    if action.type == "fail_transient":
        return Transient("fault_injected", message)
    retry_s = left if action.type == "error_then_heal" else None
    return Permanent(str(action.code or "fault_injected"), message, retry_s=retry_s)


def _operation(lb: LoadBalancer) -> str:
    if lb.state is State.DELETING:
        return "delete"
    return "update" if lb.was_active else "create"


def _subject(point: str, lb: LoadBalancer) -> str:
    return f"{lb.id}/{_operation(lb)}/g{lb.generation}/{point}"


def _facts(layer: Layer, point: str, lb: LoadBalancer) -> Facts:
    return Facts(
        layer=layer,
        project=lb.project,
        operation=_operation(lb),
        resource=lb.name,
        labels=lb.labels,
        phase=point,
        listeners=tuple(one.name for one in lb.spec.listeners),
    )
