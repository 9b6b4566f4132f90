"""Load balancers that are due, claimed many at a time and handed out to workers one by one.

Each is claimed for a lease of its own, with an epoch that fences what is done under it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from threading import Lock
from typing import Final

import msgspec
import structlog

from fakecloud.clock import Clock
from fakecloud.domain import lifecycle
from fakecloud.domain.lifecycle import Event
from fakecloud.model import LoadBalancer, PoolKey, State
from fakecloud.network import host_ports
from fakecloud.store import leases, operations
from fakecloud.store import load_balancers as rows
from fakecloud.store.database import Connection, Database

MOST: Final = 32

log = structlog.get_logger()


class Claims:
    """The leases of one host's workers. Every method may raise Unavailable."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        host: str,
        owner: str,
        lease_s: float,
        pools: Collection[PoolKey] | None,
        published: Sequence[int],
    ) -> None:
        """Claim rows of `host` as `owner`, for `lease_s` each; and rows that no host has if their
        addresses are of `pools` (None: of any). `published`: ports of the machine for listeners.
        """
        self._database = database
        self._clock = clock
        self._host = host
        self._owner = owner
        self._lease_s = lease_s
        self._pools = pools
        self._published = published
        self._claiming = Lock()
        self._waiting: deque[tuple[LoadBalancer, float]] = deque()  # and until when it may wait
        self._lock = Lock()
        self._busy: dict[tuple[int, int], float] = {}  # key and epoch, and until when to renew

    def take(self) -> LoadBalancer | None:
        """Return one that is claimed and that nobody works on yet, None if nothing is due."""
        with self._claiming:
            taken = self._next()
            if taken is None:
                half = self._clock.monotonic() + self._lease_s / 2
                self._waiting.extend((lb, half) for lb in self._claim())
                taken = self._next()
            return taken

    def _next(self) -> LoadBalancer | None:
        """Return the first that waits whose lease lasts, or can be made to."""
        while self._waiting:
            lb, until = self._waiting.popleft()
            if self._clock.monotonic() < until or self._renew([(lb.pk, lb.lease_epoch)]):
                return lb
        return None

    def _claim(self) -> list[LoadBalancer]:
        with self._database.read() as connection:
            if not leases.is_due(connection, self._host, self._clock.wall(), self._pools):
                return []  # a look without the write lock, which an idle cloud need not take
        with self._database.write() as connection:
            wall, now = self._clock.wall(), self._clock.now()
            claimed = leases.claim(
                connection, self._host, self._owner, wall, self._lease_s, self._pools, most=MOST
            )
            begun = {lb.pk: one for lb in claimed if (one := self._begun(connection, lb))}
            generations = {lb.id: lb.generation for lb in begun.values()}
            operations.enter(connection, generations, "apply", now)
            changed = [begun[lb.pk] for lb in claimed if begun.get(lb.pk, lb) != lb]
            begun |= {lb.pk: lb for lb in rows.save_all(connection, changed, now)}
        return list(begun.values())

    def _begun(self, connection: Connection, lb: LoadBalancer) -> LoadBalancer | None:
        """Return it as work on it begins; None, and its lease goes by, if that is impossible."""
        try:
            if lb.state is State.ERROR:
                state = lifecycle.next_state(State.ERROR, Event.RETRIED, was_active=lb.was_active)
                wall = self._clock.wall()
                lb = msgspec.structs.replace(lb, state=state, attempts=0, asked_at=wall)
            state = lifecycle.next_state(lb.state, Event.CLAIMED)
        except lifecycle.IllegalTransition:
            log.exception("claim_impossible", lb_id=lb.id)
            return None
        given = host_ports.assign(connection, lb, self._published, self._clock.now())
        return msgspec.structs.replace(lb, state=state, host_ports=given)

    @contextmanager
    def renewed(self, lb: LoadBalancer) -> Iterator[None]:
        """Let `renew` lengthen the lease while the block runs, up to a deadline."""
        lease = (lb.pk, lb.lease_epoch)
        with self._lock:
            self._busy[lease] = self._clock.monotonic() + lifecycle.DEADLINE_S
        try:
            yield
        finally:
            with self._lock:
                self._busy.pop(lease, None)

    def renew(self) -> int:
        """Lengthen the leases of long work; return how many.

        Work that hangs for longer than a deadline is given up: its lease ends, another tries.
        """
        moment = self._clock.monotonic()
        with self._lock:
            busy = [lease for lease, until in self._busy.items() if moment < until]
        return self._renew(busy) if busy else 0

    def _renew(self, held: Sequence[tuple[int, int]]) -> int:
        with self._database.write() as connection:
            until = self._clock.wall() + timedelta(seconds=self._lease_s)
            return leases.renew(connection, held, self._owner, until)
