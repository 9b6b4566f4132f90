"""This host among others: its heartbeat, and what becomes of load balancers whose host is dead."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
import structlog

from fakecloud.clock import Clock
from fakecloud.domain import outcomes
from fakecloud.errors import StartError
from fakecloud.model import LoadBalancer
from fakecloud.provisioning import placement
from fakecloud.provisioning.placement import Placement
from fakecloud.store import hosts as host_rows
from fakecloud.store import leases
from fakecloud.store import load_balancers as rows
from fakecloud.store.database import Connection, Database
from fakecloud.store.hosts import Host

FAILOVER: Final = "system.failover"
BATCH: Final = 200
EXPIRY_SLACK_S: Final = 1.0
"""The kernel takes an address off within this time after its lifetime has ended."""

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
        self._beaten = clock.monotonic()
        self._alone = False
        self._heard: dict[str, tuple[datetime, float]] = {}
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
            self._heard = {}  # whatever silenced us may have silenced everybody
        with self._database.write() as connection:
            wall = self._clock.wall()
            known = host_rows.beat(connection, me.name, me.identity, wall)
            if not known:
                log.warning("host_was_buried", host=me.name)
                host_rows.save(connection, msgspec.structs.replace(me, heartbeat_at=wall))
            self._alone = all(h.name == me.name for h in host_rows.living_and_dead(connection))
        self._beaten = moment
        return known

    def may_answer_s(self) -> int | None:
        """Return for how many whole seconds from now this host may answer without another beat.

        None: for ever, as there is no other host to take its load balancers over. 0: not at all.
        """
        if self._alone:
            return None
        silent_s = self._clock.monotonic() - self._beaten
        return max(0, int(self._dead_after.total_seconds() - silent_s - EXPIRY_SLACK_S))

    def sweep(self) -> int:
        """Free load balancers of hosts that are dead (T15); return how many.

        Their workers' leases are void, so that one that wakes up again can't write. A host is
        dead when its heartbeat hasn't changed for long by our own monotonic clock: the machines'
        clocks may differ. When the database was away, everybody's time starts anew.
        """
        with self._database.read() as connection:
            dead = {host.name: host.heartbeat_at for host in self._silent(connection)}
        if not dead:
            return 0
        if self._placement is not None:
            self._placement.refresh()
        freed = 0
        with self._database.write() as connection:
            for host in host_rows.living_and_dead(connection):
                if dead.get(host.name) != host.heartbeat_at:
                    continue
                balancers = rows.of_host(connection, host.name, BATCH)
                for lb in balancers:
                    self._free(connection, lb)
                freed += len(balancers)
                if len(balancers) < BATCH:
                    host_rows.forget(connection, host.name)
                    log.warning("host_dead", host=host.name, freed=len(balancers))
        return freed

    def _silent(self, connection: Connection) -> list[Host]:
        """Listen to the others; return those that have been silent for too long."""
        now, longest_s = self._clock.monotonic(), self._dead_after.total_seconds()
        others = [h for h in host_rows.living_and_dead(connection) if h.name != self._me.name]
        self._heard = {
            host.name: heard
            if (heard := self._heard.get(host.name)) and heard[0] == host.heartbeat_at
            else (host.heartbeat_at, now)
            for host in others
        }
        return [host for host in others if now - self._heard[host.name][1] >= longest_s]

    def _free(self, connection: Connection, lb: LoadBalancer) -> None:
        leases.free(connection, lb.pk)
        freed = rows.get(connection, lb.pk)
        assert freed is not None
        now, wall = self._clock.now(), self._clock.wall()
        again = outcomes.lost(freed, wall)
        if again is None:
            return  # due anyway, and now for any host
        if self._placement is not None:
            pools = placement.pools_of(lb.addresses)
            host = self._placement.choose(pools, besides=lb.host)
            again = msgspec.structs.replace(again, host=host)
        rows.begin(connection, again, FAILOVER, now)

    def _is_alive(self, host: Host) -> bool:
        return self._clock.wall() - host.heartbeat_at < self._dead_after
