"""Networks and routes: how load balancers reach what is behind the machines, such as pods."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from fakecloud.access import suspension
from fakecloud.access.quotas import Quotas
from fakecloud.billing.events import seconds_us
from fakecloud.clock import Clock
from fakecloud.domain import routing
from fakecloud.domain.addresses import Pool
from fakecloud.domain.routing import Network, NetworkWish, Route, RouteWish
from fakecloud.errors import FieldError, InUse, NotFound, RangeInUse, ValidationFailed
from fakecloud.ids import new_id
from fakecloud.store import events, listings
from fakecloud.store import networks as network_rows
from fakecloud.store import routes as route_rows
from fakecloud.store.database import Connection, Database


class Networks:
    """The customer's desk for networks. Every method may raise Unavailable."""

    def __init__(
        self, database: Database, pools: Iterable[Pool], clock: Clock, quotas: Quotas
    ) -> None:
        """Write to `database`; keep networks apart from `pools`; count them by `quotas`."""
        self._database = database
        self._pools = [str(pool.network) for pool in pools]
        self._clock = clock
        self._quotas = quotas

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
                return self._add(connection, project, name, wish), True
            for route in route_rows.of_network(connection, project, current.name):
                if not routing.within(route.destination, wish.ranges):
                    raise InUse(
                        f"route {route.name} leads to {route.destination}, which is in none of "
                        "the new ranges; delete it first"
                    )
            changed = msgspec.structs.replace(
                current, **msgspec.structs.asdict(wish), updated_at=self._clock.now()
            )
            return network_rows.save(connection, changed), False

    def find(self, project: str, name: str) -> Network:
        """Return the network of that name or id. Raises: NotFound."""
        with self._database.read() as connection:
            return _network(network_rows.find(connection, project, name), name)

    def page(
        self, project: str, page: listings.Page
    ) -> tuple[int, list[tuple[listings.Key, Network]]]:
        """Return a page of networks and the version of it."""
        with self._database.read() as connection:
            found = network_rows.listing(connection, project, page)
            return events.current_version(connection), found

    def delete(self, project: str, name: str) -> None:
        """Delete a network. Raises: NotFound, InUse while it has routes."""
        with self._database.write() as connection:
            found = _network(network_rows.find(connection, project, name), name)
            routes = route_rows.of_network(connection, project, found.name)
            if routes:
                raise InUse(
                    f"{found.name} has {len(routes)} routes, {routes[0].name} first; "
                    "delete them before it"
                )
            self._quotas.give_back(connection, project, "networks")
            gone = msgspec.structs.replace(found, updated_at=self._clock.now())
            network_rows.remove(connection, gone)

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

    def _add(self, connection: Connection, project: str, name: str, wish: NetworkWish) -> Network:
        suspension.refuse(connection, project, seconds_us(self._clock.now()))
        self._quotas.take(connection, project, "networks")
        now = self._clock.now()
        made = Network(
            id=new_id("net", now),
            project=project,
            name=name,
            **msgspec.structs.asdict(wish),
            resource_version=0,
            created_at=now,
            updated_at=now,
        )
        return network_rows.add(connection, made)


class Routes:
    """The customer's desk for routes. Every method may raise Unavailable."""

    def __init__(
        self, database: Database, clock: Clock, quotas: Quotas, on_change: Callable[[], None]
    ) -> None:
        """Call `on_change` after commits that changed a route."""
        self._database = database
        self._clock = clock
        self._quotas = quotas
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
            if current is None:
                return self._add(connection, project, name, wish), True
            leads_elsewhere = (current.destination, current.next_hop) != (
                wish.destination,
                wish.next_hop,
            )
            changed = msgspec.structs.replace(
                current, **msgspec.structs.asdict(wish), updated_at=self._clock.now()
            )
            if leads_elsewhere:
                changed = msgspec.structs.replace(changed, state="PENDING", last_error=None)
            return route_rows.save(connection, changed), False

    def find(self, project: str, name: str) -> Route:
        """Return the route of that name or id. Raises: NotFound."""
        with self._database.read() as connection:
            return _route(route_rows.find(connection, project, name), name)

    def page(
        self, project: str, page: listings.Page
    ) -> tuple[int, list[tuple[listings.Key, Route]]]:
        """Return a page of routes and the version of it."""
        with self._database.read() as connection:
            return events.current_version(connection), route_rows.listing(connection, project, page)

    def delete(self, project: str, name: str) -> None:
        """Delete a route. Raises: NotFound."""
        with self._database.write() as connection:
            found = _route(route_rows.find(connection, project, name), name)
            self._changed = True
            self._quotas.give_back(connection, project, "routes")
            gone = msgspec.structs.replace(found, updated_at=self._clock.now())
            route_rows.remove(connection, gone)

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

    def _add(self, connection: Connection, project: str, name: str, wish: RouteWish) -> Route:
        suspension.refuse(connection, project, seconds_us(self._clock.now()))
        self._quotas.take(connection, project, "routes")
        now = self._clock.now()
        made = Route(
            id=new_id("rt", now),
            project=project,
            name=name,
            **msgspec.structs.asdict(wish),
            state="PENDING",
            last_error=None,
            resource_version=0,
            created_at=now,
            updated_at=now,
        )
        return route_rows.add(connection, made)


def _wrong(pointer: str, message: str) -> ValidationFailed:
    return ValidationFailed(
        f"{pointer}: {message}", errors=(FieldError(pointer, "invalid", message),)
    )


def _network(found: Network | None, name: str) -> Network:
    if found is None:
        raise NotFound(f"there is no network {name!r}")
    return found


def _route(found: Route | None, name: str) -> Route:
    if found is None:
        raise NotFound(f"there is no route {name!r}")
    return found
