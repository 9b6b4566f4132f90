"""What became of claimed load balancers, written for several workers in one transaction.

A worker that is done hands in its result. If nobody writes just then it writes all there are, else
whoever does takes it along; so the busier the workers, the more results share a commit. One that
can't be written spoils it for no other: what fails together is tried alone.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from threading import Lock
from typing import Final

import msgspec
import structlog

from fakecloud.clock import Clock
from fakecloud.domain import outcomes, rules
from fakecloud.domain.hooks import Hook, Point
from fakecloud.domain.outcomes import Outcome
from fakecloud.errors import DataPlaneError, Unavailable
from fakecloud.health.board import Health
from fakecloud.model import LoadBalancer, State, operating_state
from fakecloud.network import conflicts
from fakecloud.network.allocation import Allocator
from fakecloud.store import addresses as address_rows
from fakecloud.store import billing_events, certificates, leases, operations
from fakecloud.store import load_balancers as rows
from fakecloud.store.database import Connection, Database

MOST: Final = 32

log = structlog.get_logger()


class Result(msgspec.Struct, frozen=True):
    """A load balancer as it was claimed, and why it isn't as it should be: None, it is."""

    claimed: LoadBalancer
    error: DataPlaneError | None = None


class Results:
    """Writes results, fenced by the epochs of the claims. One for all workers of a host."""

    def __init__(
        self,
        database: Database,
        health: Health,
        clock: Clock,
        *,
        hook: Hook,
        allocator: Allocator | None,
        rng: random.Random,
    ) -> None:
        """Write to `database`. `allocator`: for addresses that others turned out to have."""
        self._database = database
        self._health = health
        self._clock = clock
        self._hook = hook
        self._allocator = allocator
        self._rng = rng
        self._waiting: deque[Result] = deque()  # bounded by the workers
        self._writing = Lock()

    def hand_in(self, result: Result) -> None:
        """Have it written, here or by who writes just now.

        Raises: Unavailable, and what is handed in then is lost: the leases end, others try again.
        """
        self._waiting.append(result)
        while self._waiting and self._writing.acquire(blocking=False):
            try:
                count = min(len(self._waiting), MOST)
                written, failure = self._write_each([self._waiting.popleft() for _ in range(count)])
            finally:
                self._writing.release()
            for one in written:
                self._hook.at(Point.POST_COMMIT, one.claimed)
            if failure is not None:
                raise failure

    def _write_each(self, batch: Sequence[Result]) -> tuple[list[Result], Exception | None]:
        """Write those that went well together, others alone; return which are written.

        And what went wrong first, if anything did.
        """
        spoilt = [one for one in batch if self._hook.spoils_commit(one.claimed)]
        sound = [one for one in batch if one not in spoilt]
        together = [one for one in sound if one.error is None]
        alone = [one for one in sound if one.error is not None] + spoilt
        parts = deque([together] if together else [])
        parts.extend([one] for one in alone)
        written: list[Result] = []
        failure: Exception | None = None
        while parts:
            part = parts.popleft()
            try:
                written += self._write(part)
            except Unavailable as error:  # so it is for the rest
                return written, error
            except Exception as error:  # noqa: BLE001 - the others are written first
                if len(part) > 1:
                    log.warning("results_written_one_by_one", count=len(part), reason=repr(error))
                    parts.extendleft([one] for one in reversed(part))
                else:
                    failure = failure or error
        return written, failure

    def _write(self, part: Sequence[Result]) -> Sequence[Result]:
        """Write results in one transaction, but those whose lease went to another worker."""
        with self._database.write() as connection:
            now, wall = self._clock.now(), self._clock.wall()
            keys = [(one.claimed.pk, one.claimed.lease_epoch) for one in part]
            held = leases.release(connection, keys)
            ours = [one for one in part if one.claimed.pk in held]
            for lost in part:
                if lost.claimed.pk not in held:
                    epoch = lost.claimed.lease_epoch
                    log.warning("lease_lost", lb_id=lost.claimed.id, epoch=epoch)
            before = [held[one.claimed.pk] for one in ours]
            found = [
                self._outcome(connection, one, lb) for one, lb in zip(ours, before, strict=True)
            ]
            self._tell_operations(connection, ours, found)
            gone = [lb for lb, one in zip(before, found, strict=True) if _is_gone(one.lb)]
            if taken := [(address.ip, lb.id) for lb in gone for address in lb.addresses]:
                address_rows.take_back(connection, taken, now)
            saved = rows.save_all(connection, [one.lb for one in found], now)
            billing_events.record(connection, zip(before, saved, strict=True), now, wall)
            for one in ours:
                self._hook.at(Point.PRE_COMMIT, one.claimed)
        return ours

    def _outcome(self, connection: Connection, result: Result, lb: LoadBalancer) -> Outcome:
        """Return what to write; `lb` is what the row holds now."""
        claimed, error = result.claimed, result.error
        now, wall = self._clock.now(), self._clock.wall()
        if error is not None:
            lb, error = conflicts.settle(
                connection, self._allocator, claimed, lb, error, self._clock
            )
            return outcomes.failed(claimed, lb, error, now, wall, self._rng.random())
        if outcomes.is_early(claimed, lb, wall):
            return outcomes.waiting(lb)
        if claimed.state is State.DELETING:
            return outcomes.removed(lb, now)
        return outcomes.applied(claimed, lb, now, wall, self._seen(connection, lb))

    def _tell_operations(
        self, connection: Connection, results: Sequence[Result], found: Sequence[Outcome]
    ) -> None:
        """Say of the operations up to the claimed generations how far they are."""
        now = self._clock.now()
        waiting: dict[str, int] = {}
        ends: dict[str, operations.End] = {}
        for result, outcome in zip(results, found, strict=True):
            id, done, note = result.claimed.id, result.claimed.generation, outcome.lb.last_error
            if outcome.ends is not None:
                ends[id] = operations.End(up_to_generation=done, status=outcome.ends, error=note)
            elif outcome.waits:
                waiting[id] = done
            elif result.error is not None and note is not None:
                operations.note(connection, id, note, now, up_to_generation=done)
        operations.enter(connection, waiting, "wait", now)
        operations.end(connection, ends, now)

    def _seen(self, connection: Connection, lb: LoadBalancer) -> outcomes.Seen:
        down, unknown = self._health.summary(lb)
        return outcomes.Seen(
            operating_state=operating_state(lb.spec, down, unknown, suspended=lb.suspended),
            targets=self._health.targets(lb),
            expiries=certificates.expiries(connection, lb.project, rules.certificates_of(lb.spec)),
        )


def _is_gone(lb: LoadBalancer) -> bool:
    return lb.state is State.DELETED
