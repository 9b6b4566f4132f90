"""Who sets business time: modes, and advances that stop wherever something falls due.

Each change is one transaction that puts the anchor where business time is, so that it never goes
back. Other servers on the database hear of it by a notification, at the latest a second later.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from fakecloud.domain.addresses import QUARANTINE_S
from fakecloud.domain.business_time import (
    LATEST,
    MAX_ADVANCE,
    BusinessClock,
    Mode,
    Status,
    Timeline,
)
from fakecloud.errors import ClockAdvancing, FieldError, ValidationFailed
from fakecloud.model import Operation, OperationStatus
from fakecloud.store import clocks, operations
from fakecloud.store.database import Connection, Database

ADVANCE: Final = "clock.advance"
STOPS: Final = 200
"""At most so many stops in one advance; things that fall due closer together share one."""

COMMIT_WITHIN: Final = timedelta(seconds=5)
"""A change of the clock is committed, or has failed, within that time."""


class Timekeeper:
    """Changes the clock of all servers. Every method may raise Unavailable."""

    def __init__(self, database: Database, clock: BusinessClock) -> None:
        """Write to `database`, and let `clock` follow at once."""
        self._database = database
        self._clock = clock
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after a change of the clock was committed; it must return at once."""
        self._listeners.append(listener)

    def _tell_others(self) -> None:
        for listener in self._listeners:
            listener()

    def refresh(self) -> None:
        """Take up what other servers changed.

        A line older than ours: our change is being committed, unless it failed, as it then did soon.
        """
        with self._database.read() as connection:
            timeline = clocks.load(connection)
        ours = self._clock.timeline
        if timeline == ours:
            return
        age = self._clock.wall() - ours.anchor_wall
        if timeline.anchor_wall < ours.anchor_wall and timedelta() <= age < COMMIT_WITHIN:
            return
        self._clock.follow(timeline)

    def synchronize(self) -> None:
        """Take over PostgreSQL's wall time, which all of its servers then share."""
        if self._database.is_sqlite:
            return
        with self._database.read() as connection:
            self._clock.correct(clocks.database_wall(connection))

    def set(self, mode: Mode, rate: int) -> Timeline:
        """Go on from the present moment in another way. Raises: ClockAdvancing."""
        with self._database.write() as connection:
            before = self._ready(connection)
            sim, wall = self._clock.now(), self._clock.wall()
            after = msgspec.structs.replace(
                before.anchored(sim, wall), mode=mode, rate=rate if mode is Mode.RATE else 1
            )
            shrink = max(before.speed, 1) / max(after.speed, 1)
            clocks.hasten(connection, wall, timedelta(), shrink)
            self._save(connection, after)
        self._tell_others()
        return after

    def advance(self, project: str, target: datetime) -> Operation:
        """Begin to move business time forward to `target`; `step` does it.

        Raises: ClockAdvancing, ValidationFailed when that is the past or too far away.
        """
        with self._database.write() as connection:
            before = self._ready(connection)
            sim, wall = self._clock.now(), self._clock.wall()
            if target <= sim:
                raise _refused(f"{target.isoformat()} is not after {sim.isoformat()}")
            if target - sim > MAX_ADVANCE or target > LATEST:
                raise _refused(
                    f"{target.isoformat()} is too far: at most two years at a time, "
                    f"and not beyond {LATEST.date()}"
                )
            operation = operations.new(project, ADVANCE, "clock", clocks.GLOBAL, 0, sim)
            operations.start(connection, operation)
            moving = msgspec.structs.replace(
                before.anchored(sim, wall),
                status=Status.ADVANCING,
                target=target,
                origin=sim,
                operation=operation.id,
            )
            self._save(connection, moving)
        self._tell_others()
        return operation

    def step(self) -> bool:
        """Move to the next moment at which something falls due; False if nothing advances.

        Any server may do it, and go on where one that died has stopped.
        """
        if self._clock.timeline.status is not Status.ADVANCING:
            return False
        with self._database.write() as connection:
            timeline = clocks.load(connection)
            if timeline.status is not Status.ADVANCING:
                self._clock.follow(timeline)
                return False
            assert timeline.target is not None
            assert timeline.origin is not None
            here, wall = timeline.anchor_sim, self._clock.wall()
            there = self._next_stop(connection, timeline)
            ended = there == timeline.target
            after = msgspec.structs.replace(
                timeline.anchored(there, wall), status=Status.READY if ended else Status.ADVANCING
            )
            rate = timeline.rate if timeline.mode is Mode.RATE else 1
            clocks.hasten(connection, wall, (there - here) / rate, 1.0)
            self._save(connection, after)
            share = (there - timeline.origin) / (timeline.target - timeline.origin)
            self._tell(connection, timeline, there, share)
        self._tell_others()
        return True

    def _next_stop(self, connection: Connection, timeline: Timeline) -> datetime:
        assert timeline.target is not None
        assert timeline.origin is not None
        least = timeline.anchor_sim + (timeline.target - timeline.origin) / STOPS
        quarantine = timedelta(seconds=QUARANTINE_S)
        due = [
            clocks.next_expiry(connection, timeline.anchor_sim, timeline.target, quarantine),
            _next_month(timeline.anchor_sim),
        ]
        stop = min((moment for moment in due if moment is not None), default=timeline.target)
        return min(max(stop, least), timeline.target)

    def _tell(
        self, connection: Connection, timeline: Timeline, now: datetime, share: float
    ) -> None:
        if share >= 1:
            done = operations.End(up_to_generation=0, status=OperationStatus.SUCCEEDED)
            operations.end(connection, {clocks.GLOBAL: done}, now)
            return
        operations.enter(connection, {clocks.GLOBAL: 0}, "apply", now)
        operations.progress(connection, clocks.GLOBAL, int(share * 100), now)

    def _ready(self, connection: Connection) -> Timeline:
        timeline = clocks.load(connection)
        if timeline.status is Status.ADVANCING:
            raise ClockAdvancing(
                f"the clock advances to {timeline.target}; wait for operation {timeline.operation}",
                operation=timeline.operation,
            )
        self._clock.follow(timeline)
        return timeline

    def _save(self, connection: Connection, timeline: Timeline) -> None:
        """Write it; ours follows before the commit, so that no later write is stamped by the old.

        Should the commit fail, `refresh` takes back the line of the database.
        """
        clocks.save(connection, timeline)
        self._clock.follow(timeline)


def _next_month(after: datetime) -> datetime:
    """Return the next beginning of a calendar month, where bills begin."""
    year, month = divmod(after.year * 12 + after.month, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)


def _refused(message: str) -> ValidationFailed:
    return ValidationFailed(message, errors=(FieldError("/to", "out_of_range", message),))
