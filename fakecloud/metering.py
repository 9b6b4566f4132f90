"""What load balancers carry, from the data plane of this host to the store, for bills and looks.

The data plane's totals only grow while their epoch lasts, so a turn can be repeated, and killed
anywhere: the store keeps the totals it has seen in the same transaction as what they added.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final, Protocol

import msgspec
import structlog

from fakecloud.clock import Clock
from fakecloud.domain import traffic
from fakecloud.domain.traffic import HourPart, Totals
from fakecloud.errors import Transient
from fakecloud.metrics import Carried
from fakecloud.model import Counters
from fakecloud.store import late
from fakecloud.store import traffic as rows
from fakecloud.store.database import Connection, Database

log = structlog.get_logger()

BATCH: Final = 200
IDLE_S: Final = 600.0
"""A listener that carries nothing is written so often, so that a restart knows when it was idle."""
RECENT_S: Final = 60.0
LATE: Final = timedelta(days=2)
"""Totals of a load balancer that turn up so long after its deletion are not counted any more."""
LOG_LINES: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Meters(Protocol):
    """The part of the data plane that counts."""

    def counted(self) -> list[str]:
        """Return the ids of all whose totals are known, also such as were removed."""

    def counters(self, lb_id: str) -> list[Counters] | None:
        """Return the totals; None if they aren't known. Raises: Transient."""

    def forget_counters(self, lb_id: str, told: list[Counters]) -> None:
        """Forget what was removed, unless it has counted more than was told."""

    def configuration(self, lb_id: str) -> str | None:
        """Return the configuration without secrets; None if nothing runs here."""

    def log_tail(self, lb_id: str, most: int) -> list[str]:
        """Return the last lines of the log, at most `most`."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a load balancer of this host had carried at a moment (monotonic seconds).

    recent: connections that each target got within the last minute, by its name.
    """

    project: str
    name: str
    taken_at: float
    counters: tuple[Counters, ...]
    recent: dict[str, int] = {}


class Metering:
    """Reads the totals and adds them up, in turns of `step()`.

    share: let other hosts see what this one runs, through the store.
    """

    def __init__(
        self, database: Database, meters: Meters, clock: Clock, *, host: str, share: bool
    ) -> None:
        self._database = database
        self._meters = meters
        self._clock = clock
        self._host = host
        self._share = share
        self._seen: dict[rows.Key, Totals] = {}
        self._written: dict[rows.Key, float] = {}  # when (monotonic)
        self._shared: dict[str, rows.View] = {}
        self._history: dict[str, deque[tuple[float, dict[str, int]]]] = {}
        self._lock = Lock()  # guards _latest
        self._latest: dict[str, Reading] = {}

    def step(self) -> int:
        """Read all totals once and store what they add; return how many were read."""
        ids = self._meters.counted()
        read: dict[str, Reading] = {}
        ids.sort()
        for start in range(0, len(ids), BATCH):
            read |= self._some(ids[start : start + BATCH])
        with self._lock:
            self._latest = read
        kept = set(ids)
        for of_id in (self._shared, self._history):
            for gone in of_id.keys() - kept:
                of_id.pop(gone)
        for key in [key for key in self._seen if key[0] not in kept]:
            del self._seen[key], self._written[key]
        return len(read)

    def carried(self) -> list[Carried]:
        """Return the newest readings for the metrics, the oldest load balancer first."""
        now = self._clock.monotonic()
        latest = self.latest()
        return [
            (one.project, one.name, now - one.taken_at, one.counters)
            for one in (latest[id] for id in sorted(latest))
        ]

    def latest(self) -> dict[str, Reading]:
        """Return the newest reading of every load balancer of this host."""
        with self._lock:
            return dict(self._latest)

    def _some(self, ids: Sequence[str]) -> dict[str, Reading]:
        with self._database.read() as connection:
            places = rows.places(connection, ids)
            # Looked up before the totals are read: who is gone then counts no more.
            known = {key[0] for key in self._seen}
            self._know(connection, places.keys() - known)
        told = {id: counters for id in ids if (counters := self._read(id)) is not None}
        late = self._clock.now() - LATE
        with self._database.write() as connection:
            news, carried = [], []
            for id, counters in told.items():
                if id not in places or self._is_over(places[id], late):
                    continue
                for key, totals, parts in self._record(counters, places[id]):
                    news.append((key, totals))
                    carried += [(places[id].project, key, part) for part in parts]
            rows.save_totals(connection, news)
            rows.add_hours(connection, carried)
            self._mark_late(connection, carried)
            if self._share:
                for id in told.keys() & places.keys():
                    self._show(connection, places[id], told[id])
        now = self._clock.monotonic()
        self._seen.update(news)
        self._written.update((key, now) for key, _ in news)
        for id, counters in told.items():
            place = places.get(id)
            if place is None or place.deleted_at is not None or place.host != self._host:
                self._meters.forget_counters(id, counters)
        return {
            id: self._reading(places[id], counters, now)
            for id, counters in told.items()
            if id in places and places[id].deleted_at is None
        }

    def _is_over(self, place: rows.Place, late: datetime) -> bool:
        """Return whether the store has forgotten what it had seen of a load balancer."""
        if place.deleted_at is None or place.deleted_at >= late:
            return False
        return not any(key[0] == place.id for key in self._seen)

    def _know(self, connection: Connection, ids: Iterable[str]) -> None:
        """Take up what an earlier life of the server had stored."""
        now = self._clock.monotonic()
        for key, totals in rows.totals(connection, list(ids)).items():
            self._seen[key] = totals
            self._written[key] = now

    def _read(self, id: str) -> list[Counters] | None:
        try:
            return self._meters.counters(id)
        except Transient as error:
            log.warning("not_metered", lb_id=id, reason=error.message)
            return None

    def _record(
        self, counters: list[Counters], place: rows.Place
    ) -> Iterable[tuple[rows.Key, Totals, list[HourPart]]]:
        """Yield the totals to be written, with what they add to the hours."""
        at = self._clock.now()
        for one in counters:
            if one.kind != "listener":
                continue
            key = (place.id, one.name, one.epoch)
            totals = _totals(one, at)
            before = self._seen.get(key)
            if before is not None and not traffic.changed(before, totals):
                # Nothing was carried until now: what comes belongs to the time from here on.
                self._seen[key] = totals
                if self._clock.monotonic() - self._written[key] < IDLE_S:
                    continue
            yield key, totals, list(traffic.parts(before, totals))

    def _mark_late(
        self, connection: Connection, carried: Iterable[tuple[str, rows.Key, HourPart]]
    ) -> None:
        """Say from which day on the charges of projects may have changed: it may be closed."""
        today = (self._clock.now() - _EPOCH).days
        first: dict[str, int] = {}
        for project, _, part in carried:
            day = (part.hour - _EPOCH).days
            if day < today:
                first[project] = min(day, first.get(project, day))
        for project, day in sorted(first.items()):
            late.mark(connection, project, day)

    def _show(self, connection: Connection, place: rows.Place, counters: list[Counters]) -> None:
        if place.host != self._host or place.deleted_at is not None:
            return
        view = rows.View(
            load_balancer_id=place.id,
            host=self._host,
            at=self._clock.wall(),
            counters=tuple(counters),
            configuration=self._meters.configuration(place.id) or "",
            log=tuple(self._meters.log_tail(place.id, LOG_LINES)),
        )
        before = self._shared.get(place.id)
        if before is not None:
            fresh = (view.at - before.at).total_seconds() < IDLE_S
            if fresh and before == msgspec.structs.replace(view, at=before.at):
                return
        rows.save_view(connection, view)
        self._shared[place.id] = view

    def _reading(self, place: rows.Place, counters: list[Counters], now: float) -> Reading:
        targets = {one.name: one.connections_total for one in counters if one.kind == "target"}
        history = self._history.setdefault(place.id, deque())
        history.append((now, targets))
        while now - history[0][0] > RECENT_S and len(history) > 1:
            history.popleft()
        first = history[0][1]
        return Reading(
            project=place.project,
            name=place.name,
            taken_at=now,
            counters=tuple(counters),
            recent={name: max(0, count - first.get(name, 0)) for name, count in targets.items()},
        )


def _totals(one: Counters, at: datetime) -> Totals:
    return Totals(
        at=at,
        active=one.connections,
        connections=one.connections_total,
        bytes_in=one.bytes_in,
        bytes_out=one.bytes_out,
        requests=one.requests_total,
        gaps=one.gaps,
    )
