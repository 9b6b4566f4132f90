"""What makes routes real on this host: step() brings its table in line and tells how that went."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

import msgspec
import structlog

from fakecloud.clock import Clock
from fakecloud.domain.routing import Route, RouteError
from fakecloud.errors import DataPlaneError, Permanent
from fakecloud.store import hosts, routes
from fakecloud.store.database import Database

log = structlog.get_logger()

RETRY_S: Final = 5.0
"""How often a host that can't have a route tries again."""


class RouteTable(Protocol):
    """The routes that this cloud put into the host's table. Raises: Transient, Permanent."""

    def changed(self) -> bool:
        """Say whether anybody changed the host's routes, addresses or links since the last call."""

    def present(self) -> Mapping[str, str]:
        """Return ours, destination to next hop, also those of a predecessor that crashed."""

    def put(self, destination: str, next_hop: str) -> None:
        """Lead `destination` to `next_hop`, in place of ours that leads elsewhere."""

    def remove(self, destination: str) -> None:
        """Remove our route to `destination`; none is fine."""


class Router:
    """Keeps the table of this host. One thread; every method may raise Unavailable."""

    def __init__(
        self, database: Database, table: RouteTable | None, clock: Clock, host: str
    ) -> None:
        """Use `table`; None: targets of this host's load balancers need no routes (loopback)."""
        self._database = database
        self._table = table
        self._clock = clock
        self._host = host
        self._wanted: dict[str, str] | None = None
        self._failed: dict[str, DataPlaneError] = {}
        self._retry_at = 0.0

    def step(self) -> None:
        """Bring the table in line with all routes, and note on each how that went.

        Costs one query while nothing changes.
        """
        with self._database.read() as connection:
            found = routes.everyones(connection)
        failed = self._bring_in_line(found)
        if all(self._is_told(route, failed.get(route.id)) for route in found):
            return
        with self._database.read() as connection:
            alive = frozenset(host.name for host in hosts.living_and_dead(connection))
        for route in found:
            note = self._note(failed.get(route.id))
            if not self._is_told(route, failed.get(route.id)) and self._may_tell(route, alive):
                self._tell(route, note)

    def _bring_in_line(self, found: Sequence[Route]) -> Mapping[str, DataPlaneError]:
        """Return why which route, by id, can't be had here."""
        if self._table is None:
            return {}
        wanted: dict[str, str] = {}
        doubles: dict[str, DataPlaneError] = {}
        for route in found:
            if wanted.setdefault(route.destination, route.next_hop) != route.next_hop:
                doubles[route.id] = Permanent(
                    "range_in_use", f"another route leads to {route.destination}; delete one"
                )
        now = self._clock.monotonic()
        is_due = bool(self._failed) and now >= self._retry_at
        if self._table.changed() or wanted != self._wanted or is_due:
            self._failed = self._apply(self._table, wanted)
            self._wanted, self._retry_at = wanted, now + RETRY_S
        here = {
            one.id: self._failed[one.destination]
            for one in found
            if one.destination in self._failed
        }
        return here | doubles

    def _apply(self, table: RouteTable, wanted: Mapping[str, str]) -> dict[str, DataPlaneError]:
        """Return why which destination can't be led to."""
        try:
            present = table.present()
        except DataPlaneError as error:
            return dict.fromkeys(wanted, error)
        failed: dict[str, DataPlaneError] = {}
        stale = present.keys() - wanted.keys()
        lacking = {to: via for to, via in wanted.items() if present.get(to) != via}
        for destination in stale:
            _try(failed, destination, partial(table.remove, destination))
        for destination, next_hop in lacking.items():
            _try(failed, destination, partial(table.put, destination, next_hop))
        if stale or lacking:
            log.info(
                "routes_changed",
                added=sorted(lacking.keys() - failed.keys()),
                removed=sorted(stale - failed.keys()),
                failed={to: error.message for to, error in failed.items()},
            )
        return failed

    def _note(self, error: DataPlaneError | None) -> RouteError | None:
        if error is None:
            return None
        return RouteError(code=error.code, message=error.message, host=self._host)

    def _is_told(self, route: Route, error: DataPlaneError | None) -> bool:
        if error is None:
            return route.state == "ACTIVE"
        return route.last_error == self._note(error)

    def _may_tell(self, route: Route, alive: frozenset[str]) -> bool:
        """Say whether no other living host has trouble with it, which is for that one to lift."""
        told = route.last_error
        return told is None or told.host == self._host or told.host not in alive

    def _tell(self, route: Route, note: RouteError | None) -> None:
        with self._database.write() as connection:
            current = routes.get(connection, route.id)
            if current is None or current.resource_version != route.resource_version:
                return  # changed meanwhile: the next step sees what it is now
            routes.save(
                connection,
                msgspec.structs.replace(
                    current,
                    state="ACTIVE" if note is None else "ERROR",
                    last_error=note,
                    updated_at=self._clock.now(),
                ),
            )


def _try(failed: dict[str, DataPlaneError], destination: str, act: Callable[[], None]) -> None:
    try:
        act()
    except DataPlaneError as error:
        failed[destination] = error
