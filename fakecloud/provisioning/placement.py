"""Which host runs a load balancer: the one with the least to run among those that can.

Hosts announce the pools that they serve. What is known of them here is as old as the last
`refresh`, so that a placement costs no query; it need not be right, since a host that is dead
loses what was placed on it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import timedelta
from threading import Lock

from fakecloud.clock import Clock
from fakecloud.domain.addresses import parse_pool
from fakecloud.errors import StartError
from fakecloud.model import Address, PoolKey
from fakecloud.store import hosts, load_balancers
from fakecloud.store.database import Database


def pools_of(addresses: Iterable[Address]) -> frozenset[PoolKey]:
    """Return the pools that these addresses are of."""
    return frozenset((one.pool, one.family) for one in addresses)


def served(texts: Iterable[str]) -> frozenset[PoolKey]:
    """Return the pools that a host announces; what this version doesn't understand is left out."""
    found = set()
    for text in texts:
        try:
            pool = parse_pool(text)
        except StartError:
            continue
        found.add((pool.name, pool.family))
    return frozenset(found)


class Placement:
    """Chooses hosts. `refresh` may raise Unavailable."""

    def __init__(self, database: Database, clock: Clock, *, dead_after_s: float) -> None:
        """Know no host yet."""
        self._database = database
        self._clock = clock
        self._dead_after = timedelta(seconds=dead_after_s)
        self._serves: dict[str, frozenset[PoolKey]] = {}
        self._loads: dict[str, int] = {}
        self._lock = Lock()

    def refresh(self) -> None:
        """Look who is alive, and how much each of several runs."""
        wall = self._clock.wall()
        with self._database.read() as connection:
            alive = [
                host
                for host in hosts.living_and_dead(connection)
                if wall - host.heartbeat_at < self._dead_after
            ]
            loads = load_balancers.count_by_host(connection) if len(alive) > 1 else {}
        with self._lock:
            self._serves = {host.name: served(host.pools) for host in alive}
            self._loads = {host.name: loads.get(host.name, 0) for host in alive}

    def choose(
        self,
        pools: Collection[PoolKey],
        *,
        keep: str | None = None,
        besides: str | None = None,
    ) -> str | None:
        """Return a living host that serves all of `pools`, None if no such host is known.

        keep: stay there if it can. besides: not there unless there is no other.
        """
        with self._lock:
            able = [name for name, serves in self._serves.items() if serves.issuperset(pools)]
            if keep is not None and keep in able:
                return keep
            others = [name for name in able if name != besides] or able
            if not others:
                return keep
            chosen = min(others, key=lambda name: (self._loads[name], name))
            self._loads[chosen] += 1
            return chosen
