"""Budgets at work: what is spent of each, who is told, and when nothing more is sold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import structlog

from fakecloud.access.suspension import Suspension
from fakecloud.accounting.costs import Costs
from fakecloud.accounting.webhooks import Webhooks
from fakecloud.billing import budgets, events, money, quantities
from fakecloud.billing import report as reports
from fakecloud.billing.budgets import Budget
from fakecloud.billing.usage import Attribution, Charge
from fakecloud.clock import Clock, rfc3339
from fakecloud.errors import InvalidParameter, NotFound, QuotaExceeded
from fakecloud.store import budgets as rows
from fakecloud.store.budgets import Alert
from fakecloud.store.database import Connection, Database

MOST: Final = 100
MOST_PERIODS: Final = 62
"""So many periods are looked at when the clock has passed them since the last evaluation."""

log = structlog.get_logger()


class Budgets:
    """The desk for budgets, and their evaluation. Every method may raise Unavailable."""

    def __init__(self, database: Database, costs: Costs, clock: Clock, webhooks: Webhooks) -> None:
        """Compare with `costs`; tell `webhooks`."""
        self._database = database
        self._costs = costs
        self._clock = clock
        self._webhooks = webhooks
        self._suspension = Suspension(database, clock)

    def put(self, budget: Budget) -> tuple[dict[str, Any], bool]:
        """Create or replace a budget; return its document, evaluated, and whether it is new.

        Raises: QuotaExceeded, InvalidParameter when the bill is in another currency.
        """
        with self._database.write() as connection:
            before = rows.find(connection, budget.project, budget.name)
            if before is None and rows.count(connection, budget.project) >= MOST:
                raise QuotaExceeded(
                    f"project {budget.project!r} has {MOST} budgets; delete some",
                    metric="budgets",
                    limit=MOST,
                    in_use=MOST,
                )
            now = self._clock.now()
            made = msgspec.structs.replace(
                budget, created_at=before.created_at if before else now, updated_at=now
            )
            rows.put(connection, made)
            made = self._evaluate(made)
            self._suspension.enforce(budget.project)
            return self._document(connection, made), before is None

    def find(self, project: str, name: str) -> Budget:
        """Return a budget. Raises: NotFound."""
        with self._database.read() as connection:
            found = rows.find(connection, project, name)
        if found is None:
            raise NotFound(f"there is no budget {name!r}")
        return found

    def page(self, project: str, after: str, limit: int) -> list[Budget]:
        """Return up to `limit` budgets with a name above `after`."""
        with self._database.read() as connection:
            return rows.page(connection, project, after=after, limit=limit)

    def delete(self, project: str, name: str) -> None:
        """Forget a budget: it refuses nothing any more. Raises: NotFound."""
        with self._database.write() as connection:
            if not rows.remove(connection, project, name):
                raise NotFound(f"there is no budget {name!r}")
            self._suspension.enforce(project)

    def step(self) -> int:
        """Evaluate every budget; return how many there are."""
        with self._database.read() as connection:
            found = rows.everything(connection)
        for budget in found:
            try:
                self._evaluate(budget)
            except InvalidParameter as error:  # the prices in force have another currency now
                log.warning("budget_not_evaluated", budget=budget.name, reason=str(error))
        self._suspension.step()
        return len(found)

    def document(self, budget: Budget) -> dict[str, Any]:
        """Return a budget as the API shows it, with the state of its present period."""
        with self._database.read() as connection:
            return self._document(connection, budget)

    def _document(self, connection: Connection, budget: Budget) -> dict[str, Any]:
        now_us = events.seconds_us(self._clock.now())
        start, end = budgets.window(budget.period, now_us)
        fired = rows.alerts(connection, budget.project, budget.name, start)
        return {
            "name": budget.name,
            "scope": budget.labels,
            "amount": money.text(budget.amount_pico),
            "currency": budget.currency,
            "period": budget.period,
            "thresholds": list(budget.thresholds),
            "basis": budget.basis,
            "kind": budget.kind,
            "created_at": rfc3339(budget.created_at),
            "updated_at": rfc3339(budget.updated_at),
            "status": {
                "from": rfc3339(quantities.moment(start)),
                "to": rfc3339(quantities.moment(end)),
                "spent": money.text(budget.spent_pico),
                "forecast": money.text(budget.forecast_pico),
                "exceeded": budget.exceeded_until_us > now_us,
                "fired": [
                    {
                        "threshold": one.threshold,
                        "basis": one.basis,
                        "amount": money.text(one.amount_pico),
                        "at": rfc3339(quantities.moment(one.fired_us)),
                    }
                    for one in fired
                ],
            },
        }

    def _evaluate(self, budget: Budget) -> Budget:
        """Look at every period since the last time, fire what is passed, keep the present one."""
        now_us = events.seconds_us(self._clock.now())
        since = now_us if budget.evaluated_us is None else budget.evaluated_us
        for start, end in budgets.windows(budget.period, since, now_us, MOST_PERIODS):
            spent, monthly = self._spent(budget, start, min(end, now_us))
            future = budgets.forecast(spent, monthly, min(end, now_us), end)
            done = end <= now_us
            budget = msgspec.structs.replace(
                budget,
                evaluated_us=now_us,
                spent_pico=spent,
                forecast_pico=spent if done else future,
                exceeded_until_us=end if spent >= budget.amount_pico else 0,
            )
            with self._database.write() as connection:
                if not rows.evaluated(connection, budget):
                    return budget
                for alert in _alerts(budget, start, now_us):
                    if rows.fire(connection, alert):
                        self._tell(connection, budget, alert, end)
        return budget

    def _spent(self, budget: Budget, start: int, end: int) -> tuple[int, int]:
        """Return what the scope cost in [start, end), and what a month of it would."""
        if start >= end:
            return 0, 0
        first, last = quantities.moment(start), quantities.moment(end)
        found = self._costs.found(
            budget.project, reports.Asked(start=first, end=last, group_by=("load_balancer",))
        )
        if found.book.currency != budget.currency:
            raise InvalidParameter(
                f"currency: the bill is in {found.book.currency}, the budget in {budget.currency}"
            )
        return (
            _covered(found.charges, found.people, budget),
            _covered(found.monthly, found.people, budget),
        )

    def _tell(self, connection: Any, budget: Budget, alert: Alert, end: int) -> None:
        data = {
            "project": budget.project,
            "budget": budget.name,
            "scope": budget.labels,
            "kind": budget.kind,
            "basis": alert.basis,
            "threshold": alert.threshold,
            "amount": money.text(alert.amount_pico),
            "limit": money.text(budget.amount_pico),
            "currency": budget.currency,
            "from": rfc3339(quantities.moment(alert.period_us)),
            "to": rfc3339(quantities.moment(end)),
        }
        log.warning("budget_threshold_passed", **data)
        self._webhooks.tell(connection, budget.project, "budget.threshold_passed", data)


def _alerts(budget: Budget, start: int, now_us: int) -> list[Alert]:
    amount = budget.forecast_pico if budget.basis == "forecast" else budget.spent_pico
    return [
        Alert(
            project=budget.project,
            budget=budget.name,
            period_us=start,
            threshold=threshold,
            basis=budget.basis,
            fired_us=now_us,
            amount_pico=amount,
        )
        for threshold in budgets.passed(budget, amount)
    ]


def _covered(charges: Iterable[Charge], people: Mapping[str, Attribution], budget: Budget) -> int:
    return sum(
        one.billed_pico
        for one in charges
        if budgets.covers(people[one.attribution].labels, budget.labels)
    )
