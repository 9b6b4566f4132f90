"""Faults at work: which rules there are now, which one hits, and the log of it.

Rules live in the database. Each process keeps a copy in memory, so that where no fault is asked
for nothing is slower; `refresh` renews it at once after a change here, and within a second after
one elsewhere. Looks are counted in the database, so that replicas share a trigger.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from datetime import timedelta
from threading import Lock
from typing import Final

import msgspec

from fakecloud.access.quotas import Quotas
from fakecloud.clock import Clock
from fakecloud.domain import fault_actions, faults, outcomes, scenarios
from fakecloud.domain.faults import Action, Facts, Hit, Layer, Match, Rule, Trigger
from fakecloud.errors import LimitExceeded, NameInUse, NotFound, ValidationFailed
from fakecloud.metrics import Metrics
from fakecloud.store import faults as rows
from fakecloud.store import load_balancers
from fakecloud.store.database import Connection, Database

MOST_RULES: Final = 2000
"""Of one project, whatever its quota: each is looked at for every request."""
SYSTEM: Final = "system.fault"
"""The type of operations that a fault begins, or its end."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A rule to be made. `id` None: a new one; with the same id and seed its hits are the same."""

    layer: Layer
    action: Action
    id: str | None = None
    name: str = ""
    match: Match = Match()
    trigger: Trigger = Trigger()
    priority: int = 0
    enabled: bool = True
    seed: int = 0
    max_hits: int | None = None
    expires_in_s: float = faults.DEFAULT_EXPIRES_S


class Chaos:
    """The rules and their hits. Methods that touch the database may raise Unavailable."""

    def __init__(
        self, database: Database, clock: Clock, metrics: Metrics, quotas: Quotas | None = None
    ) -> None:
        """Take the rules from `database`; count hits in `metrics` and rules in `quotas`."""
        self._quotas = quotas or Quotas()
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._rules: tuple[Rule, ...] = ()
        self._lock = Lock()
        self.version = 0
        """Grows when the rules change, so that who looked before knows to look again."""

    def refresh(self) -> None:
        """Renew the copy in memory; remove what has expired, so that nothing is left behind."""
        with self._database.read() as connection:
            found = faults.in_order(rows.every(connection))
        wall = self._clock.wall()
        over = {rule.id for rule in found if rule.expires_at <= wall}
        if over:
            with self._database.write() as connection:
                self._remove(connection, over)
            found = tuple(rule for rule in found if rule.id not in over)
        with self._lock:
            if _shape(found) != _shape(self._rules):
                self.version += 1
            self._rules = found

    def quiet(self, *layers: Layer) -> bool:
        """Say whether no rule of these layers lives; looks only into memory."""
        wall = self._clock.wall()
        return not any(rule.layer in layers and rule.lives(wall) for rule in self._rules)

    def lives(self, rule_id: str) -> bool:
        """Say whether a rule that hit before still lasts: spent is not over."""
        wall = self._clock.wall()
        return any(
            rule.id == rule_id and rule.enabled and wall < rule.expires_at for rule in self._rules
        )

    def has(self, action: str) -> bool:
        """Say whether a rule with this action lives."""
        wall = self._clock.wall()
        return any(rule.action.type == action and rule.lives(wall) for rule in self._rules)

    def candidates(self, facts: Facts) -> list[Rule]:
        """Return the rules that are about `facts`, in order, spent ones too."""
        wall = self._clock.wall()
        about = [
            rule for rule in self._rules if rule.layer is facts.layer and wall < rule.expires_at
        ]
        if facts.labels is None and facts.resource and any(r.match.label_selector for r in about):
            facts = msgspec.structs.replace(facts, labels=self._labels(facts))
        return [rule for rule in about if rule.enabled and faults.matches(rule, facts)]

    def look(
        self, facts: Facts, subject: str, actions: Collection[str] | None = None
    ) -> Hit | None:
        """Let the rules that match look, in order, until one hits; log the hit and return it.

        actions: the types that can take place here; None: all.
        """
        for rule in self.candidates(facts):
            if actions is None or rule.action.type in actions:
                hit = self.try_rule(rule, subject)
                if hit is not None:
                    return hit
        return None

    def try_rule(self, rule: Rule, subject: str) -> Hit | None:
        """Let one rule look at `subject`; return the hit if it is one, logged."""
        if not rule.lives(self._clock.wall()):
            return None
        with self._database.write() as connection:
            seen = rows.look(connection, rule.id, self._clock.wall())
            if seen is None or not faults.triggers(seen, seen.looks):
                return None
            rows.count_hit(connection, rule.id)
            self._record(connection, rule.id, rule.project, rule.layer, rule.action, subject)
        if rule.max_hits is not None and seen.hits + 1 >= rule.max_hits:
            self.refresh()
        return Hit(rule_id=rule.id, seed=rule.seed, ordinal=seen.looks, action=rule.action)

    def log_again(
        self, fault_id: str, project: str, layer: Layer, action: Action, subject: str
    ) -> None:
        """Log one more effect of a fault that goes on, or of one asked for by a label."""
        with self._database.write() as connection:
            self._record(connection, fault_id, project, layer, action, subject)

    def create(self, project: str, draft: Draft) -> Rule:
        """Make a rule. Raises: ValidationFailed, NameInUse, LimitExceeded, QuotaExceeded."""
        return self._create(project, [draft])[0]

    def start(
        self, project: str, name: str, *, seed: int = 0, expires_in_s: float | None = None
    ) -> list[Rule]:
        """Make the rules of a named scenario. Raises: NotFound, LimitExceeded, QuotaExceeded."""
        scenario = scenarios.SCENARIOS.get(name)
        if scenario is None:
            known = ", ".join(scenarios.SCENARIOS)
            raise NotFound(f"there is no scenario {name!r}; there are {known}")
        lasts = scenario.expires_in_s if expires_in_s is None else expires_in_s
        drafts = [
            Draft(
                name=name,
                layer=one.layer,
                action=one.action,
                match=one.match,
                trigger=one.trigger,
                seed=seed,
                expires_in_s=lasts,
            )
            for one in scenario.faults
        ]
        return self._create(project, drafts)

    def page(self, project: str, after: str, limit: int) -> list[Rule]:
        """Return up to `limit` rules of a project with an id above `after`."""
        with self._database.read() as connection:
            return rows.page(connection, project, after, limit)

    def find(self, project: str, id: str) -> Rule:
        """Return a rule. Raises: NotFound."""
        with self._database.read() as connection:
            return _found(rows.find(connection, project, id), id)

    def enable(self, project: str, id: str, enabled: bool) -> Rule:
        """Switch a rule on or off and return it. Raises: NotFound."""
        with self._database.write() as connection:
            rule = _found(rows.find(connection, project, id), id)
            rows.enable(connection, id, enabled)
            if not enabled:
                self._let_heal(connection, {id})
        self.refresh()
        return msgspec.structs.replace(rule, enabled=enabled)

    def remove(self, project: str, id: str) -> None:
        """Remove a rule; what it held up goes on. Raises: NotFound."""
        with self._database.write() as connection:
            _found(rows.find(connection, project, id), id)
            self._remove(connection, {id})
        self.refresh()

    def reset(self, project: str) -> tuple[int, int]:
        """Remove all rules and the log of a project; return how many rules and hits went."""
        with self._database.write() as connection:
            ids = {rule.id for rule in rows.every(connection) if rule.project == project}
            self._remove(connection, ids)
            forgotten = rows.clear_log(connection, project)
        self.refresh()
        return len(ids), forgotten

    def log(
        self, project: str, *, before: int, limit: int, fault_id: str | None = None
    ) -> list[rows.Record]:
        """Return hits, newest first, with a number below `before`."""
        with self._database.read() as connection:
            return rows.log(connection, project, before=before, limit=limit, fault_id=fault_id)

    def _create(self, project: str, drafts: list[Draft]) -> list[Rule]:
        made = [self._rule(project, draft) for draft in drafts]
        with self._database.write() as connection:
            if rows.count(connection, project) + len(made) > MOST_RULES:
                raise LimitExceeded(f"a project has at most {MOST_RULES} faults; remove some")
            self._quotas.take(connection, project, "faults", len(made))
            for rule in made:
                if rows.exists(connection, rule.id):
                    raise NameInUse(f"there is a fault {rule.id!r}; remove it or leave out `id`")
                rows.add(connection, rule)
        self.refresh()
        return made

    def _rule(self, project: str, draft: Draft) -> Rule:
        wrong = fault_actions.mistakes(draft.layer, draft.match, draft.trigger, draft.action)
        if wrong:
            raise ValidationFailed(
                "; ".join(f"{one.pointer}: {one.message}" for one in wrong[:3]), errors=tuple(wrong)
            )
        wall = self._clock.wall()
        return Rule(
            id=draft.id or "flt_" + secrets.token_hex(8),
            project=project,
            name=draft.name or draft.action.type,
            layer=draft.layer,
            priority=draft.priority,
            enabled=draft.enabled,
            match=draft.match,
            trigger=draft.trigger,
            action=draft.action,
            seed=draft.seed,
            looks=0,
            hits=0,
            max_hits=draft.max_hits,
            created_at=wall,
            expires_at=wall + timedelta(seconds=draft.expires_in_s),
        )

    def _remove(self, connection: Connection, ids: Collection[str]) -> None:
        rows.remove(connection, ids)
        self._let_heal(connection, ids)

    def _let_heal(self, connection: Connection, ids: Collection[str]) -> None:
        """Let load balancers that these faults hold, or hold back in part, be worked on at once."""
        now, wall = self._clock.now(), self._clock.wall()
        rows.hurry(connection, ids, wall)
        for lb in rows.held_while_active(connection, ids):
            again = outcomes.lost(lb, wall)
            if again is not None:
                load_balancers.begin(connection, again, SYSTEM, now)

    def _record(
        self,
        connection: Connection,
        fault_id: str,
        project: str,
        layer: Layer,
        action: Action,
        subject: str,
    ) -> None:
        rows.record(
            connection,
            fault_id=fault_id,
            project=project,
            layer=layer,
            action=action.type,
            subject=subject,
            at=self._clock.wall(),
        )
        self._metrics.faults.labels(layer.value, action.type).inc()

    def _labels(self, facts: Facts) -> Mapping[str, str]:
        with self._database.read() as connection:
            lb = load_balancers.find(connection, facts.project, facts.resource)
        return {} if lb is None else lb.labels


def _shape(rules: tuple[Rule, ...]) -> list[tuple[str, bool]]:
    return [(rule.id, rule.enabled) for rule in rules]


def _found(rule: Rule | None, id: str) -> Rule:
    if rule is None:
        raise NotFound(f"there is no fault {id!r}; it may have expired")
    return rule
