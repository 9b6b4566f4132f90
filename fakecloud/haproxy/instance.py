"""One load balancer, for many threads at a time: they take turns by a lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from signal import Signals
from threading import RLock

from fakecloud import model
from fakecloud.domain.disturbances import Disturbance
from fakecloud.haproxy import generation
from fakecloud.haproxy.host import Host
from fakecloud.haproxy.upkeep import Upkeep


class Instance:
    """A load balancer on this host, running or not."""

    def __init__(self, host: Host, lb_id: str, epoch: int = 0) -> None:
        """Speak for `lb_id`; calls with an epoch older than `epoch` are refused."""
        self._lock = RLock()
        self._upkeep = Upkeep(host, lb_id, epoch)
        self._over = False  # another object may speak for the load balancer now
        self._known = False
        self.lb_id = lb_id

    def apply(self, desired: model.Desired) -> bool:
        """Put `desired` into effect; False, having done nothing, if removed or let go meanwhile.

        Raises: StaleEpoch, Permanent, Transient; what served before then still serves.
        """
        with self._turn():
            if not self._over:
                self._upkeep.apply(desired)
            return not self._over

    def fence(self, epoch: int) -> bool:
        """Refuse older epochs from now on; False, having done nothing, if removed meanwhile.

        Raises: StaleEpoch when a newer one was seen.
        """
        with self._turn():
            if not self._over:
                self._upkeep.fence(epoch)
            return not self._over

    def set_down(
        self, down: frozenset[model.ProbeKey], weights: frozenset[model.ProbeWeight] = frozenset()
    ) -> None:
        """Take the targets whose probes fail out of the rotation, the others in.

        weights: what targets say their own weight is.

        Raises: Transient when HAProxy doesn't answer; it is then told again later.
        """
        with self._turn():
            if not self._over:
                self._upkeep.set_down(down, weights)

    def disturb(self, disturbance: Disturbance) -> None:
        """Let new connections meet a fault from now on; an empty one ends it.

        Raises: Transient when HAProxy can't be told; it is then told again later.
        """
        with self._turn():
            if not self._over:
                self._upkeep.disturb(disturbance)

    def signal(self, number: Signals) -> None:
        """Send a signal to the process that serves, if one does."""
        with self._turn():
            active = self._upkeep.generations.active
            if active is not None:
                active.process.signal(number)

    def remove(self, epoch: int) -> None:
        """End every process and remove the directory. Raises: StaleEpoch, Transient."""
        with self._turn():
            if not self._over:
                self._upkeep.remove(epoch)
                self._over = True

    def stop(self) -> None:
        """End every process; the directory stays, so that a later start returns to it."""
        with self._turn():
            if not self._over:
                self._upkeep.stop()
                self._over = True

    def release(self) -> None:
        """Let go of the processes; they live on."""
        with self._lock:
            self._upkeep.release()
            self._over = True

    def wanted(self) -> bool:
        """Return whether there is anything to serve."""
        with self._turn():
            return self._upkeep.wants()

    def serving(self) -> bool:
        """Return whether a process accepts connections now."""
        with self._turn():
            return self._upkeep.generations.alive()

    def counters(self) -> list[model.Counters] | None:
        """Return what was carried since the load balancer came to this host; None if it has left.

        Raises: Transient when a process doesn't say.
        """
        with self._turn():
            return None if self._over else self._upkeep.counters()

    def current(self) -> tuple[generation.Generation, model.Desired] | None:
        """Return what serves now and what it was told, None if nothing does."""
        with self._turn():
            active, desired = self._upkeep.generations.active, self._upkeep.desired
            if active is None or desired is None:
                return None
            self._upkeep.write_files()
            return active, desired

    def rests_until(self) -> float | None:
        """Return when to look at it again if only its files are to be written, else None."""
        with self._turn():
            return self._upkeep.rests_until()

    def processes(self) -> list[generation.Generation]:
        """Return the generations to watch."""
        with self._turn():
            return list(self._upkeep.generations)

    def tend(self) -> tuple[bool, float | None]:
        """Do what is due: restart a crashed process, end drained ones, retry what failed.

        Returns: whether a crash was found; when to look again (monotonic seconds), if ever.
        """
        with self._turn():
            return (False, None) if self._over else self._upkeep.tend()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for our turn; the first one takes back what an earlier server left."""
        with self._lock:
            if not self._known:
                self._known = True
                self._upkeep.adopt()
            yield
