"""This host among others: its heartbeat, and what becomes of load balancers whose host is dead."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
import structlog

from fakecloud import outcomes, placement
from fakecloud.clock import Clock
from fakecloud.errors import StartError
from fakecloud.model import LoadBalancer
from fakecloud.placement import Placement
from fakecloud.store import hosts as host_rows
from fakecloud.store import load_balancers as rows
from fakecloud.store.database import Connection, Database
from fakecloud.store.hosts import Host

FAILOVER: Final = "system.failover"
BATCH: Final = 200

log = structlog.get_logger()


def identity(state_dir: Path) -> str:
    """Return what tells this state directory from every other; made at the first start.

    Raises: StartError.
    """
    path = state_dir / "host-id"
    try:
        if not path.exists():
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_text(secrets.token_hex(16) + "\n", encoding="ascii")
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise StartError(f"{path} can't be used: {error}") from None


class Hosts:
    """Keeps this host alive in the eyes of the others, and buries those that are silent."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        name: str,
        identity: str,
        pools: Sequence[str],
        *,
        dead_after_s: float,
        placement: Placement | None = None,
    ) -> None:
        """Be `name`, with the load balancers that the state directory `identity` runs.

        placement: who chooses another host for those of a dead one; None: who claims them first.
        """
        self._placement = placement
        self._database = database
        self._clock = clock
        self._dead_after = timedelta(seconds=dead_after_s)
        self._beaten = self._since = clock.monotonic()
        now = clock.wall()
        self._me = Host(
            name=name,
            identity=identity,
            pools=tuple(pools),
            version=version("fakecloud"),
            started_at=now,
            heartbeat_at=now,
        )

    @property
    def name(self) -> str:
        """Return this host's name."""
        return self._me.name

    def register(self) -> None:
        """Enter this host, at start; one that was renamed takes its load balancers along.

        A SQLite database has one host at a time, so whatever it holds is ours.
        Raises: StartError when a living host has the name.
        """
        me = self._me
        with self._database.write() as connection:
            wall = self._clock.wall()
            for other in host_rows.living_and_dead(connection):
                ours = self._database.is_sqlite or other.identity == me.identity
                if other.name == me.name and not ours and self._is_alive(other):
                    raise StartError(
                        f"another server is the host {me.name!r}; give this one another --host-name"
                    )
                if ours and other.name != me.name:
                    rows.place(connection, other.name, me.name)
                    host_rows.forget(connection, other.name)
            if self._database.is_sqlite:
                rows.place(connection, None, me.name)
            host_rows.save(connection, msgspec.structs.replace(me, heartbeat_at=wall))

    def beat(self) -> bool:
        """Say that this host is alive; False if the others thought otherwise meanwhile."""
        me = self._me
        moment = self._clock.monotonic()
        if moment - self._beaten >= self._dead_after.total_seconds():
            self._since = moment  # whatever silenced us may have silenced everybody
        with self._database.write() as connection:
            wall = self._clock.wall()
            known = host_rows.beat(connection, me.name, me.identity, wall)
            self._beaten = moment
            if known:
                return True
            log.warning("host_was_buried", host=me.name)
            host_rows.save(connection, msgspec.structs.replace(me, heartbeat_at=wall))
            return False

    def sweep(self) -> int:
        """Free load balancers of hosts that are dead (T15); return how many.

        Their workers' leases are void, so that one that wakes up again can't write. A host
        judges others only after it has been heard itself for as long as they may be silent: when
        the database was away, or all servers start again, nobody is dead yet.
        """
        if self._clock.monotonic() - self._since < self._dead_after.total_seconds():
            return 0
        with self._database.read() as connection:
            if not self._dead(connection):
                return 0
        if self._placement is not None:
            self._placement.refresh()
        freed = 0
        with self._database.write() as connection:
            for host in self._dead(connection):
                balancers = rows.of_host(connection, host.name, BATCH)
                for lb in balancers:
                    self._free(connection, lb)
                freed += len(balancers)
                if len(balancers) < BATCH:
                    host_rows.forget(connection, host.name)
                    log.warning("host_dead", host=host.name, freed=len(balancers))
        return freed

    def _free(self, connection: Connection, lb: LoadBalancer) -> None:
        rows.free(connection, lb.pk)
        freed = rows.get(connection, lb.pk)
        assert freed is not None
        now, wall = self._clock.now(), self._clock.wall()
        again = outcomes.lost(freed, wall)
        if again is None:
            return  # due anyway, and now for any host
        if self._placement is not None:
            host = self._placement.choose(placement.pools_of(lb.addresses))
            again = msgspec.structs.replace(again, host=host)
        rows.begin(connection, again, FAILOVER, now)

    def _dead(self, connection: Connection) -> list[Host]:
        return [
            host
            for host in host_rows.living_and_dead(connection)
            if host.name != self._me.name and not self._is_alive(host)
        ]

    def _is_alive(self, host: Host) -> bool:
        return self._clock.wall() - host.heartbeat_at < self._dead_after
