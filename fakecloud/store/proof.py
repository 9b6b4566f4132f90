"""Whether the books are right: events against seals, days against lines, invoices against both."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from fakecloud.clock import rfc3339
from fakecloud.domain.invariants import Discrepancy
from fakecloud.store import billing_events, charges, invoices

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def problems(connection: Connection, account: str) -> Iterator[Discrepancy]:
    """Yield what doesn't agree in the books of an account, the first of each kind."""
    broken = billing_events.first_broken_seal(connection, account)
    if broken is not None:
        yield _found(account, "event", str(broken), "differs from its seal")
    day = charges.first_wrong_day(connection, account)
    if day is not None:
        at = rfc3339(_EPOCH + timedelta(days=day))
        yield _found(account, "day", at, "its sums differ from its lines")
    for period, closed in sorted(invoices.closed(connection, account).items()):
        of = invoices.content(connection, account, period)
        if (of.root_hash, of.total_pico) != (closed.root_hash, closed.total_pico):
            yield _found(account, "invoice", period, "its lines changed since")


def _found(account: str, what: str, id: str, message: str) -> Discrepancy:
    return Discrepancy(account=account, what=what, id=id, message=message)
