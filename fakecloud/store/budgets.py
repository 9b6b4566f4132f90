"""Budgets, and the thresholds that were passed."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from fakecloud.billing.budgets import Budget
from fakecloud.tables.spending import budget as table
from fakecloud.tables.spending import budget_alert as alert

_DIALECTS: Final = {"sqlite": sqlite, "postgresql": postgresql}
_COLUMNS: Final = tuple(table.c[name] for name in Budget.__struct_fields__)
# Made once: every new load balancer asks this, and making a statement costs more than what it does.
_EXCEEDED: Final = (
    select(*_COLUMNS)
    .where(
        table.c.project == bindparam("of"),
        table.c.kind == "hard",
        table.c.exceeded_until_us > bindparam("now"),
    )
    .order_by(table.c.name)
)


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """A threshold that was passed in a period; times are microseconds of Unix time."""

    project: str
    budget: str
    period_us: int
    threshold: int
    basis: str
    fired_us: int
    amount_pico: int


def put(connection: Connection, budget: Budget) -> None:
    """Create or replace a budget."""
    values = msgspec.structs.asdict(budget) | {"thresholds": list(budget.thresholds)}
    statement = _DIALECTS[connection.dialect.name].insert(table).values(values)
    connection.execute(
        statement.on_conflict_do_update(index_elements=[table.c.project, table.c.name], set_=values)
    )


def find(connection: Connection, project: str, name: str) -> Budget | None:
    """Return a budget, None if there is none."""
    row = connection.execute(
        select(*_COLUMNS).where(table.c.project == project, table.c.name == name)
    ).first()
    return None if row is None else _value(row)


def page(connection: Connection, project: str, *, after: str, limit: int) -> list[Budget]:
    """Return up to `limit` budgets of a project with a name above `after`."""
    rows = connection.execute(
        select(*_COLUMNS)
        .where(table.c.project == project, table.c.name > after)
        .order_by(table.c.name)
        .limit(limit)
    )
    return [_value(row) for row in rows]


def everything(connection: Connection) -> list[Budget]:
    """Return every budget of all projects, project by project."""
    rows = connection.execute(select(*_COLUMNS).order_by(table.c.project, table.c.name))
    return [_value(row) for row in rows]


def exceeded(connection: Connection, project: str, now_us: int) -> list[Budget]:
    """Return the hard budgets of a project that are used up in their present period."""
    rows = connection.execute(_EXCEEDED, {"of": project, "now": now_us})
    return [_value(row) for row in rows]


def hard(connection: Connection, now_us: int) -> set[str]:
    """Return the projects that have a hard budget that is used up."""
    statement = select(table.c.project).where(
        table.c.kind == "hard", table.c.exceeded_until_us > now_us
    )
    return set(connection.execute(statement).scalars())


def count(connection: Connection, project: str) -> int:
    """Return how many budgets a project has."""
    found: int = connection.execute(
        select(func.count()).select_from(table).where(table.c.project == project)
    ).scalar_one()
    return found


def evaluated(connection: Connection, budget: Budget) -> bool:
    """Keep what an evaluation found; False if the budget is another one by now, or gone."""
    found = ("evaluated_us", "spent_pico", "forecast_pico", "exceeded_until_us")
    return (
        connection.execute(
            update(table)
            .where(
                table.c.project == budget.project,
                table.c.name == budget.name,
                table.c.updated_at == budget.updated_at,
            )
            .values({name: getattr(budget, name) for name in found})
        ).rowcount
        == 1
    )


def remove(connection: Connection, project: str, name: str) -> bool:
    """Forget a budget and its alerts; False if there is none."""
    connection.execute(delete(alert).where(alert.c.project == project, alert.c.budget == name))
    return (
        connection.execute(
            delete(table).where(table.c.project == project, table.c.name == name)
        ).rowcount
        == 1
    )


def fire(connection: Connection, found: Alert) -> bool:
    """Note that a threshold was passed; False if it is noted already for this period."""
    statement = _DIALECTS[connection.dialect.name].insert(alert)
    made = statement.values(msgspec.structs.asdict(found)).on_conflict_do_nothing()
    # Not its rowcount, which PostgreSQL's driver doesn't tell of such an INSERT.
    return connection.execute(made.returning(alert.c.threshold)).first() is not None


def alerts(connection: Connection, project: str, name: str, period_us: int) -> list[Alert]:
    """Return which thresholds of a budget were passed in a period."""
    names = Alert.__struct_fields__
    rows = connection.execute(
        select(*(alert.c[one] for one in names))
        .where(alert.c.project == project, alert.c.budget == name, alert.c.period_us == period_us)
        .order_by(alert.c.threshold, alert.c.basis)
    )
    return [Alert(**dict(zip(names, row, strict=True))) for row in rows]


def _value(row: Any) -> Budget:
    return msgspec.convert(dict(zip(Budget.__struct_fields__, row, strict=True)), Budget)
