"""The fault `flap_state`: what is ACTIVE becomes UPDATING for a moment, though nobody asked."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec

from fakecloud.chaos import engine as chaos
from fakecloud.chaos.engine import Chaos
from fakecloud.clock import Clock
from fakecloud.domain import outcomes
from fakecloud.domain.faults import Facts, Layer, Rule
from fakecloud.model import Condition, LoadBalancer, State
from fakecloud.store import load_balancers as rows
from fakecloud.store.database import Database

TYPE: Final = "flap_state"
PERIOD_S: Final = 5.0


class Flapping:
    """Lets load balancers of one host flap, each by its own period from when the rule is seen."""

    def __init__(self, database: Database, chaos: Chaos, clock: Clock, host: str) -> None:
        """Ask `chaos` for rules; disturb what `host` runs."""
        self._database = database
        self._chaos = chaos
        self._clock = clock
        self._host = host
        self._looked: dict[tuple[str, str], datetime] = {}

    def step(self) -> int:
        """Let those flap whose time has come; return how many."""
        if not self._chaos.has(TYPE):
            self._looked.clear()
            return 0
        with self._database.read() as connection:
            living = rows.living(connection)
        return sum(
            self._flap(rule, lb)
            for lb in living
            if lb.state is State.ACTIVE and lb.host == self._host
            for rule in self._chaos.candidates(_facts(lb))
            if rule.action.type == TYPE and self._is_time(rule, lb)
        )

    def _is_time(self, rule: Rule, lb: LoadBalancer) -> bool:
        wall = self._clock.wall()
        period_s = PERIOD_S if rule.action.seconds is None else rule.action.seconds
        last = self._looked.setdefault((rule.id, lb.id), wall)
        if wall - last < timedelta(seconds=period_s):
            return False
        self._looked[rule.id, lb.id] = wall
        return True

    def _flap(self, rule: Rule, seen: LoadBalancer) -> bool:
        if self._chaos.try_rule(rule, f"{seen.id}/flap") is None:
            return False
        now = self._clock.now()
        with self._database.write() as connection:
            lb = rows.get(connection, seen.pk)
            if lb is None or lb.state is not State.ACTIVE:
                return False
            again = outcomes.lost(lb, self._clock.wall())
            assert again is not None, lb.id
            mark = Condition(
                type="FaultInjected",
                status="True",
                reason="FlapState",
                message=rule.id,
                last_transition_time=now,
            )
            others = (c for c in again.conditions if c.type != mark.type)
            marked = msgspec.structs.replace(again, conditions=(mark, *others))
            rows.begin(connection, marked, chaos.SYSTEM, now)
        return True


def _facts(lb: LoadBalancer) -> Facts:
    return Facts(
        layer=Layer.PROVISION,
        project=lb.project,
        operation="update",
        resource=lb.name,
        labels=lb.labels,
        phase="active",
        listeners=tuple(one.name for one in lb.spec.listeners),
    )
