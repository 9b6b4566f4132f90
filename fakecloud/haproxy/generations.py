"""All processes of one load balancer: the one that serves, and those that only finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import structlog

from fakecloud import errors
from fakecloud.haproxy import config, generation, state
from fakecloud.haproxy.artifacts import Artifacts, tidy
from fakecloud.haproxy.draining import Draining
from fakecloud.haproxy.host import Host


class Generations:
    """Not thread-safe: its owner takes turns. `active`: the one that serves, if any."""

    def __init__(
        self,
        host: Host,
        lb_id: str,
        log: structlog.stdlib.BoundLogger,
        farewell: Callable[[generation.Generation], None],
    ) -> None:
        """Call `farewell` with each right before it is ended: what it counted goes with it."""
        self._farewell = farewell
        self._host = host
        self._lb_id = lb_id
        self._log = log
        self._last_number = 0
        self._left: int | None = None  # a crashed generation whose files are still there
        self.active: generation.Generation | None = None
        self.draining = Draining(host.clock, log, farewell)

    def __iter__(self) -> Iterator[generation.Generation]:
        """Yield every living one, the oldest first."""
        yield from self.draining
        if self.active is not None:
            yield self.active

    def alive(self) -> bool:
        """Return whether a process accepts connections."""
        return self.active is not None and self.active.process.alive()

    def start(
        self,
        wanted: config.Config,
        was: config.Config,
        reason: str,
        note: Callable[[state.ProcessRecord], None],
    ) -> None:
        """Start the next generation; the one before, if any, only finishes its connections.

        was: what the one before runs. note: told before anything is started.
        Raises: Permanent, Transient, OSError; what served before then still serves.
        """
        self.draining.make_room()
        self._last_number += 1
        note(state.ProcessRecord(number=self._last_number))
        before = self.active
        inherits = before is not None and was.remembers() and wanted.remembers()
        first = msgspec.structs.replace(wanted, settled=not inherits)
        self._begin(first, self._last_number, (before, was) if before else None)
        assert self.active is not None
        if before is not None:
            self.draining.add(before, was.drain_timeout_s)
            if inherits:
                self._inherit(self.active, before, was, wanted)
        self._log.info(
            "generation_started",
            generation=self._last_number,
            reason=reason,
            pid=self.active.process.pid,
        )

    def start_from_old_files(self, wanted: config.Config) -> bool:
        """Start the crashed generation again, on a disk that has no room; False without files.

        Raises: as `start`.
        """
        if self._left is None:
            return False
        self._begin(wanted, self._left, None)
        self._log.warning("restarted_from_old_files", generation=self._last_number)
        return True

    def retire(self, patience_s: float) -> None:
        """Accept nothing any more; established connections drain."""
        before, self.active = self.active, None
        if before is not None:
            self.draining.add(before, patience_s)
            self._log.info("load_balancer_retired", generation=before.number)

    def bury(self) -> bool:
        """Forget the dead; return whether the one that served is among them."""
        self.draining.bury()
        if self.active is None or self.active.process.alive():
            return False
        self._farewell(self.active)
        # Its files stay until a successor serves, which may have to be made of them.
        number, ended = self.active.number, self.active.end_process()
        self.active, self._left = None, number
        self._log.error("load_balancer_crashed", generation=number, ended=ended)
        return True

    def adopt(self, record: state.Record, patience_s: float) -> None:
        """Take back what an earlier life of the server left.

        patience_s: what those that shall finish may take for it.
        """
        for known in record.processes:
            self._last_number = max(self._last_number, known.number)
            found = generation.find(self._host, record, known)
            if found is None:
                Artifacts(self._host, self._lb_id, known.number).remove()
            elif known.pid is None and not (record.desired and found.runtime.answers()):
                found.end()  # it doesn't serve, or nobody knows what
            elif known.pid is None or known.number == record.active:
                # Without a pid: the server died over its start; it has accepted connections.
                self.retire(patience_s)
                self.active = found
            else:
                self.draining.add(found, patience_s)
        tidy(self._host, self._lb_id)

    def release(self) -> None:
        """Let go of the processes; they live on."""
        for running in self:
            running.process.close()
        self._clear()

    def end(self) -> None:
        """End every process."""
        for running in self:
            self._farewell(running)
            running.end()
        self._clear()

    def _clear(self) -> None:
        self.draining.clear()
        self.active = None

    def _inherit(
        self,
        active: generation.Generation,
        before: generation.Generation,
        was: config.Config,
        wanted: config.Config,
    ) -> None:
        """Keep every client with its target across the swap."""
        try:
            active.inherit(before, was, wanted)
        except (errors.Transient, OSError) as error:
            self._log.warning("affinity_lost", generation=active.number, reason=str(error))

    def _begin(
        self,
        wanted: config.Config,
        number: int,
        held: tuple[generation.Generation, config.Config] | None,
    ) -> None:
        self.active = generation.start(self._host, self._lb_id, number, wanted, held)
        if self._left not in (None, number):
            Artifacts(self._host, self._lb_id, self._left).remove()
        self._left = None
