"""Networks and routes: how load balancers reach what is behind the machines, such as pods."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from fakecloud.access.quotas import Quotas
from fakecloud.clock import Clock
from fakecloud.domain import routing
from fakecloud.domain.addresses import Pool
from fakecloud.domain.routing import Network, NetworkWish, Route, RouteWish
from fakecloud.errors import FieldError, InUse, RangeInUse, ValidationFailed
from fakecloud.requests.desk import Desk
from fakecloud.store import networks as network_rows
from fakecloud.store import routes as route_rows
from fakecloud.store.database import Connection, Database


class Networks(Desk[Network]):
    """The customer's desk for networks. Every method may raise Unavailable."""

    def __init__(
        self, database: Database, pools: Iterable[Pool], clock: Clock, quotas: Quotas
    ) -> None:
        """Write to `database`; keep networks apart from `pools`; count them by `quotas`."""
        super().__init__(database, clock, quotas, network_rows.rows)
        self._pools = [str(pool.network) for pool in pools]

    def put(self, project: str, name: str, wish: NetworkWish) -> tuple[Network, bool]:
        """Create or replace a network; say whether it is new.

        Raises: RangeInUse, InUse when a route leads out of the new ranges, QuotaExceeded.
        """
        with self._database.write() as connection:
            current = network_rows.find(connection, project, name)
            if current is not None and current.wish == wish:
                return current, False
            self._refuse_overlap(connection, current, wish)
            if current is None:
                made = self._add(connection, project, name, **msgspec.structs.asdict(wish))
                return made, True
            for route in route_rows.of_network(connection, project, current.name):
                if not routing.within(route.destination, wish.ranges):
                    raise InUse(
                        f"route {route.name} leads to {route.destination}, which is in none of "
                        "the new ranges; delete it first"
                    )
            return self._change(connection, current, **msgspec.structs.asdict(wish)), False

    def find(self, project: str, name: str) -> Network:
        """Return the network of that name or id. Raises: NotFound."""
        with self._database.read() as connection:
            return self._find(connection, project, name)

    def delete(self, project: str, name: str) -> None:
        """Delete a network. Raises: NotFound, InUse while it has routes."""
        with self._database.write() as connection:
            found = self._find(connection, project, name)
            routes = route_rows.of_network(connection, project, found.name)
            if routes:
                raise InUse(
                    f"{found.name} has {len(routes)} routes, {routes[0].name} first; "
                    "delete them before it"
                )
            self._remove(connection, found)

    def _refuse_overlap(
        self, connection: Connection, current: Network | None, wish: NetworkWish
    ) -> None:
        mine = None if current is None else current.id
        others = [
            text for one in network_rows.living(connection) if one.id != mine for text in one.ranges
        ]
        shared = routing.overlapping(wish.ranges, [*self._pools, *others])
        if shared is None:
            return
        raise RangeInUse(
            f"{shared[0]} overlaps {shared[1]}, a pool or another network, perhaps of another "
            "project: load balancers share one table of routes; give each cluster a range of its "
            "own"
        )


class Routes(Desk[Route]):
    """The customer's desk for routes. Every method may raise Unavailable."""

    def __init__(
        self, database: Database, clock: Clock, quotas: Quotas, on_change: Callable[[], None]
    ) -> None:
        """Call `on_change` after commits that changed a route."""
        super().__init__(database, clock, quotas, route_rows.rows)
        self._on_change = on_change
        self._changed = False
        database.on_commit(self._committed)

    def put(self, project: str, name: str, wish: RouteWish) -> tuple[Route, bool]:
        """Create or replace a route; say whether it is new. It is PENDING until hosts have it.

        Raises: ValidationFailed, RangeInUse, QuotaExceeded.
        """
        with self._database.write() as connection:
            current = route_rows.find(connection, project, name)
            if current is not None and current.wish == wish:
                return current, False
            self._refuse(connection, project, current, wish)
            self._changed = True
            fields = msgspec.structs.asdict(wish)
            anew = {"state": "PENDING", "last_error": None}
            if current is None:
                return self._add(connection, project, name, **fields, **anew), True
            leads_elsewhere = (current.destination, current.next_hop) != (
                wish.destination,
                wish.next_hop,
            )
            return self._change(
                connection, current, **fields, **(anew if leads_elsewhere else {})
            ), False

    def find(self, project: str, name: str) -> Route:
        """Return the route of that name or id. Raises: NotFound."""
        with self._database.read() as connection:
            return self._find(connection, project, name)

    def delete(self, project: str, name: str) -> None:
        """Delete a route. Raises: NotFound."""
        with self._database.write() as connection:
            found = self._find(connection, project, name)
            self._changed = True
            self._remove(connection, found)

    def _committed(self) -> None:
        # A commit of somebody else's may come first; whoever waits looks again before long.
        if self._changed:
            self._changed = False
            self._on_change()

    def _refuse(
        self, connection: Connection, project: str, current: Route | None, wish: RouteWish
    ) -> None:
        network = network_rows.find(connection, project, wish.network)
        if network is None or network.name != wish.network:
            raise _wrong("/network", f"there is no network {wish.network!r}")
        if not routing.within(wish.destination, network.ranges):
            raise _wrong(
                "/destination",
                f"{wish.destination} is in none of the ranges of {network.name}: "
                f"{', '.join(network.ranges)}",
            )
        other = route_rows.leading_to(connection, project, network.name, wish.destination)
        if other is not None and (current is None or other.id != current.id):
            raise RangeInUse(
                f"route {other.name} leads to {wish.destination} already; delete it first"
            )


def _wrong(pointer: str, message: str) -> ValidationFailed:
    return ValidationFailed(
        f"{pointer}: {message}", errors=(FieldError(pointer, "invalid", message),)
    )
