"""Suspended projects (T16): a hard budget over all of a project is used up, so nothing is sold.

What is there keeps its addresses and its bill, but answers nobody until the budget's period ends,
or the budget is raised or deleted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog

from fakecloud.billing import money, quantities
from fakecloud.billing.budgets import Budget
from fakecloud.billing.events import seconds_us
from fakecloud.clock import Clock, rfc3339
from fakecloud.domain import outcomes
from fakecloud.errors import ProjectSuspended
from fakecloud.model import State
from fakecloud.store import budgets, load_balancers, projects
from fakecloud.store.database import Connection, Database

CHUNK: Final = 200
"""So many load balancers are stopped or started in a transaction."""

log = structlog.get_logger()


def refuse(connection: Connection, project: str, now_us: int) -> None:
    """Raises: ProjectSuspended, when a hard budget over the whole project is used up."""
    refuse_by(project, budgets.exceeded(connection, project, now_us))


def refuse_by(project: str, exceeded: Iterable[Budget]) -> None:
    """Raises: ProjectSuspended, when one of its budgets that are used up is over all it has."""
    for budget in exceeded:
        if not budget.labels:
            raise ProjectSuspended(
                f"project {project!r} is suspended until "
                f"{rfc3339(quantities.moment(budget.exceeded_until_us))}: {said(budget)}; raise or "
                "delete the budget to go on at once",
                budget=budget.name,
            )


def said(budget: Budget) -> str:
    """Return which budget is used up, in words."""
    return (
        f"budget {budget.name!r} of {money.text(budget.amount_pico)} {budget.currency} a "
        f"{budget.period} is used up"
    )


class Suspension:
    """Stops and starts what projects have. Every method may raise Unavailable."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Write to `database`."""
        self._database = database
        self._clock = clock

    def step(self) -> int:
        """Make every project what its budgets say; return how many load balancers changed."""
        now_us = seconds_us(self._clock.now())
        with self._database.read() as connection:
            some = projects.suspended(connection) | budgets.hard(connection, now_us)
        return sum(self.enforce(project) for project in sorted(some))

    def enforce(self, project: str) -> int:
        """Suspend a project, or let it go on; return how many load balancers changed.

        Again does what is left, so whoever dies in the middle leaves nothing half done.
        """
        now_us = seconds_us(self._clock.now())
        with self._database.write() as connection:
            why = self._why(connection, project, now_us)
            changed = projects.suspend(connection, project, why is not None)
        if changed:
            log.warning("project_suspended" if why else "project_resumed", project=project)
        total = 0
        while some := self._turn(project, why):
            total += some
        return total

    def _why(self, connection: Connection, project: str, now_us: int) -> str | None:
        found = budgets.exceeded(connection, project, now_us)
        return next((said(one) for one in found if not one.labels), None)

    def _turn(self, project: str, why: str | None) -> int:
        now, wall = self._clock.now(), self._clock.wall()
        with self._database.write() as connection:
            some = [
                lb
                for lb in load_balancers.living(connection, project)
                if lb.suspended is (why is None) and lb.state is not State.DELETING
            ][:CHUNK]
            for one in some:
                lb = load_balancers.get(connection, one.pk)
                if lb is None or lb.state in (State.DELETING, State.DELETED):
                    continue
                made = outcomes.suspended(lb, why, now, wall)
                if made.state is State.UPDATING:
                    type = "system.resume" if why is None else "system.suspend"
                    load_balancers.begin(connection, made, type, now)
                else:
                    load_balancers.save(connection, made, now)
        return len(some)
