"""What has to be done every now and then: read meters, forget what is old, count what lives."""

from __future__ import annotations

from datetime import timedelta
from threading import Event
from typing import Final

from fakecloud.access import tokens
from fakecloud.accounting.ledger import Ledger
from fakecloud.accounting.spending import Spending
from fakecloud.clock import Clock
from fakecloud.metering import Metering
from fakecloud.metrics import Metrics
from fakecloud.model import State
from fakecloud.requests.certificates import Certificates
from fakecloud.settings import Settings
from fakecloud.store import (
    audit,
    events,
    idempotency,
    load_balancers,
    operations,
    traffic,
    webhooks,
)
from fakecloud.store.database import Database

METERING_S: Final = 10.0
BUDGETS_S: Final = 5.0
DELIVERY_S: Final = 1.0
HOUSEKEEPING_S: Final = 60.0
KEEP_OPERATIONS: Final = timedelta(days=30)
KEEP_NEWS: Final = timedelta(days=7)
KEEP_COUNTERS: Final = timedelta(days=7)
"""Of load balancers that are gone: their hours stay for the bill."""


def meter(metering: Metering, clock: Clock, stop: Event) -> None:
    """Read all totals, also once more when the server stops."""
    metering.step()
    if clock.wait(stop, METERING_S):
        metering.step()


def close_days(ledger: Ledger, clock: Clock, stop: Event) -> None:
    """Seal what happened, and close the days that are over."""
    while ledger.step():
        if stop.is_set():
            return
    clock.wait(stop, METERING_S)


def watch_budgets(spending: Spending, clock: Clock, stop: Event) -> None:
    """See what is spent of every budget."""
    spending.budgets.step()
    clock.wait(stop, BUDGETS_S)


def deliver(spending: Spending, clock: Clock, stop: Event) -> None:
    """Send what webhooks are to hear."""
    while spending.webhooks.step():
        if stop.is_set():
            return
    clock.wait(stop, DELIVERY_S)


def keep_house(
    database: Database,
    settings: Settings,
    authority: tokens.Authority,
    certificates: Certificates,
    clock: Clock,
    metrics: Metrics,
    stop: Event,
) -> None:
    """Forget old history; count what lives; say when tokens were used and certificates end."""
    authority.save_use()
    certificates.review()
    with database.write() as connection:
        idempotency.forget(connection, clock.wall() - idempotency.KEEP)
        events.trim(connection, settings.event_history)
        audit.trim(connection, settings.audit_history)
        webhooks.forget(connection, clock.wall() - KEEP_NEWS)
        operations.forget(connection, clock.now() - KEEP_OPERATIONS)
        traffic.forget(
            connection,
            hours_before=clock.now() - timedelta(days=settings.usage_days),
            gone_before=clock.now() - KEEP_COUNTERS,
        )
    with database.read() as connection:
        counts = load_balancers.count_by_state(connection)
    for state in State:
        metrics.load_balancers.labels(state.value).set(counts.get(state, 0))
    clock.wait(stop, HOUSEKEEPING_S)
