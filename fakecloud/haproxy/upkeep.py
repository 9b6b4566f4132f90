"""What one load balancer runs becomes what is desired, and is kept so.

The server may be killed anywhere: the directory says what ran.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from fakecloud import errors, model
from fakecloud.domain import fields
from fakecloud.domain.disturbances import Disturbance
from fakecloud.haproxy import artifacts, changes, config, generation, state
from fakecloud.haproxy.departures import Departures
from fakecloud.haproxy.faults import Faults
from fakecloud.haproxy.filing import Filing
from fakecloud.haproxy.generations import Generations
from fakecloud.haproxy.host import Host
from fakecloud.haproxy.journal import Journal
from fakecloud.haproxy.meter import Meter
from fakecloud.supervision.pulse import Pulse
from fakecloud.supervision.restarts import Restarts

RETELL_S: Final = 1.0

log = structlog.get_logger(__name__)


class Upkeep:
    """Of one load balancer. Not thread-safe: its owner takes turns, and calls `adopt` first.

    desired: what was last put into effect; generations: its processes.
    """

    def __init__(self, host: Host, lb_id: str, epoch: int) -> None:
        """Know of epochs up to `epoch`."""
        self._host = host
        self._lb_id = lb_id
        self._directory = host.directory(lb_id)
        self._log = log.bind(lb_id=lb_id)
        self._faults = Faults(host, lb_id, self._log)
        self._filing = Filing(host.clock, self._log)
        self._running: config.Config | None = None  # None: what runs isn't known in detail
        self._meter = Meter(host.meter(lb_id))
        self._departures = Departures()
        self._restarts = Restarts()
        self._pulse = Pulse(host.beat_s)
        self._dirty = False
        self._retell_at = float("-inf")
        self._attended: list[int] = []  # generations that are watched
        self._crashed = False
        self.desired: model.Desired | None = None
        self.generations = Generations(host, lb_id, self._log, self._count_out)
        self._journal = Journal(self._directory, lb_id, epoch, self._log, self.generations)

    def adopt(self) -> None:
        """Take back what an earlier life of the server left; `tend` starts what is dead."""
        record = self._journal.read()
        if record is None:
            return
        self.desired = record.desired
        if self.desired is not None:
            self._dirty = True  # what the last life left half done is told again
            try:
                self._running = self._build(self.desired)
            except errors.Permanent as error:  # this version is stricter than the one before
                self._log.warning("load_balancer_unknown", reason=error.message)
        self.generations.adopt(record, self._patience_s())
        self._meter.keep(running.number for running in self.generations)
        active = self.generations.active
        if active is not None and not (self._running and active.artifacts.say(self._running)):
            self._running = None
        if self._running is not None:
            self._departures.expect(self._running, self._host.clock.monotonic())

    def fence(self, epoch: int) -> None:
        """Refuse older epochs from now on. Raises: StaleEpoch when a newer one was seen; OSError."""
        self._journal.fence(epoch, self.desired)

    def apply(self, desired: model.Desired) -> None:
        """Put `desired` into effect. Raises: StaleEpoch, Permanent, Transient, OSError."""
        self._journal.admit(desired.epoch, self.desired)
        try:
            wanted = self._build(desired)
        except errors.Permanent:
            self._journal.write_soon(self.desired)  # the epoch
            raise
        self._put(desired, wanted)
        self._restarts.succeeded()

    def set_down(
        self, down: frozenset[model.ProbeKey], weights: frozenset[model.ProbeWeight]
    ) -> None:
        """Take the targets whose probes fail out of the rotation, the others in.

        Raises: Transient, OSError; it is then told again later.
        """
        if self.desired is None:
            return
        keys = fields.probe_keys(self.desired.spec)
        ours = frozenset(one for one in weights if one.key in keys)
        desired = msgspec.structs.replace(self.desired, down=down & keys, weights=ours)
        if desired == self.desired and not self._dirty:
            return
        wanted = self._build(desired)
        if not self.generations.alive():
            self.desired, self._dirty, self._running = desired, True, wanted
            self._journal.write(self.desired)
            return
        try:
            self._put(desired, wanted)
        except (errors.DataPlaneError, OSError):
            self.desired, self._dirty = desired, True
            raise

    def disturb(self, disturbance: Disturbance) -> None:
        """Let new connections meet a fault from now on; an empty one ends it.

        Raises: Transient, OSError; it is then told again later.
        """
        if disturbance == self._faults.asked:
            return
        self._faults.listen()
        self._faults.asked = disturbance
        if self.desired is None:
            return
        try:
            self._put(self.desired, self._build(self.desired))
        except (errors.DataPlaneError, OSError):
            self._dirty = True
            raise
        self._faults.impose(self.generations.active)

    def remove(self, epoch: int) -> None:
        """End every process and remove the directory. Raises: StaleEpoch, Transient."""
        with suppress(OSError):  # a full disk must not keep what shall go
            self.fence(epoch)
        self.generations.end()
        self._faults.end()
        artifacts.leave(self._host, self._lb_id)
        shutil.rmtree(self._directory, ignore_errors=True)

    def stop(self) -> None:
        """End every process; the directory stays, so that a later start returns to it."""
        self.generations.end()
        self._faults.end()
        with suppress(errors.DataPlaneError):  # the next start, or removal, comes back to it
            artifacts.leave(self._host, self._lb_id)

    def release(self) -> None:
        """Let go of the processes; they live on."""
        self._faults.end()
        self.write_files()
        self.generations.release()

    def wants(self) -> bool:
        """Return whether there is anything to serve."""
        return self._running is not None and bool(self._running.frontends)

    def counters(self) -> list[model.Counters]:
        """Return what was carried. Raises: Transient when a process doesn't say."""
        told = [self._measure(one) or not one.process.alive() for one in self.generations]
        self._meter.save()
        if not all(told):
            raise errors.Transient("runtime_unavailable", "HAProxy does not tell its counters")
        return self._meter.counters(self.desired.spec if self.desired else None)

    def rests_until(self) -> float | None:
        """Return when to look at it again if only its files are to be written, else None."""
        told = [one.number for one in self.generations] == self._attended
        quiet = told and not (self._dirty or self._departures or self._journal.overdue)
        return self._filing.due_at if quiet else None

    def write_files(self) -> None:
        """Make the files say what runs if they don't yet."""
        self._file(float("inf"))

    def tend(self) -> tuple[bool, float | None]:
        """Do what is due: restart a crashed process, end drained ones, retry what failed.

        Returns: whether a crash was found; when to look again (monotonic seconds), if ever.
        """
        now = self._host.clock.monotonic()
        self._bury(now)
        due = [
            self._revive(now),
            self._check(now),
            # After it: a command that isn't heard asks for a look, later than `now`.
            self._retell(now),
            self._drain(now),
            self._forget(now),
            self._journal.tend(self.desired, now),
            self._file(now),
        ]
        self._attended = [one.number for one in self.generations]
        crashed, self._crashed = self._crashed, False
        return crashed, min((moment for moment in due if moment is not None), default=None)

    def _count_out(self, ending: generation.Generation) -> None:
        """Count what a process carried, right before it ends."""
        self._meter.finish(ending, self._spec_of(ending))

    def _measure(self, running: generation.Generation) -> bool:
        return self._meter.measure(running, self._spec_of(running))

    def _spec_of(self, running: generation.Generation) -> model.Spec | None:
        """Return what the names in a process's counters stand for; None: for what they did."""
        serves = running is self.generations.active
        return self.desired.spec if serves and self.desired else None

    def _build(self, desired: model.Desired) -> config.Config:
        host = self._host
        whole = config.build(desired, connections=host.connections, transparent=host.transparent)
        return self._faults.applied_to(whole)

    def _put(self, desired: model.Desired, wanted: config.Config) -> None:
        """Put `desired` into effect. The record says it first: a successor goes on with it."""
        before, served = self.desired, self.generations.active
        renamed = _listeners(before) != _listeners(desired)
        if served is not None and renamed:
            self._measure(served)  # what was until now counts under the names until now
        self.desired = desired
        try:
            self._journal.write(self.desired)
            self._effect(wanted)
        except (errors.DataPlaneError, OSError):
            self.desired = before
            self._journal.write_soon(self.desired)
            raise
        self._running, self._dirty = wanted, False
        active = self.generations.active
        if active is not None and (renamed or active is not served):
            self._measure(active)
            self._meter.save()

    def _effect(self, wanted: config.Config) -> None:
        if not wanted.frontends:
            self.generations.retire(self._patience_s())
            self._journal.write_soon(self.desired)
            return
        active = self.generations.active
        if active is not None and active.process.alive():
            self._change(active, wanted)
        else:
            self._bury(self._host.clock.monotonic())
            self._start(wanted, "start")

    def _change(self, active: generation.Generation, wanted: config.Config) -> None:
        """Tell the running process, or replace it when that can't be told."""
        if self._running is None:
            self._start(wanted, "unknown")
            return
        try:
            step = self._tell(active, wanted)
        except errors.Transient:
            self._dirty = True
            self._pulse.hasten(self._host.clock.monotonic())
            raise
        if step is None:
            self._filing.later()
        else:
            self._start(wanted, step.reason)

    def _tell(self, active: generation.Generation, wanted: config.Config) -> changes.Swap | None:
        """Tell the running process what differs; return why that is not enough, if so."""
        assert self._running is not None
        step = changes.diff(self._running, wanted)
        if not step or self._dirty or self._departures:  # what runs may not be what was wished
            step = self._difference(active, wanted)
        if isinstance(step, changes.RuntimeChanges) and step:
            self._departures.note(step, self._host.clock.monotonic())
            self._log.info("load_balancer_updated", generation=active.number)
            step = self._difference(active, wanted, step)
            if step:
                return changes.Swap("read-back")
        return step if isinstance(step, changes.Swap) else None

    def _difference(
        self,
        active: generation.Generation,
        wanted: config.Config,
        told: changes.RuntimeChanges | None = None,
    ) -> changes.RuntimeChanges | changes.Swap:
        """Return what differs after it was `told`; a server that leaves, and is silent, doesn't."""
        assert self._running is not None
        seen = active.observe(self._running, told)
        self._departures.see(seen)
        step = changes.diff(seen, wanted)
        if isinstance(step, changes.Swap):
            return step
        return self._departures.besides(step)

    def _start(self, wanted: config.Config, reason: str) -> None:
        """Start the next generation of `wanted`."""
        self._faults.may_start()

        def note(starting: state.ProcessRecord) -> None:
            self._journal.write(self.desired, starting=starting)

        self.generations.start(wanted, self._running or wanted, reason, note)
        self._started()

    def _started(self) -> None:
        now = self._host.clock.monotonic()
        self._faults.listen()
        self._restarts.started(now)
        self._pulse.started(now)
        if self.generations.active is not None:
            self._meter.begin(self.generations.active.number)
        self._departures.clear()
        self._journal.write_soon(self.desired)

    def _patience_s(self) -> float:
        """Return how long connections of what runs may take to finish."""
        return self._running.drain_timeout_s if self._running else 0

    def _bury(self, now: float) -> None:
        """Notice the dead; the one that served is to be started again, the first time at once."""
        if self.generations.bury():
            self._crashed = True
            self._departures.clear()
            self._restarts.died(now)

    def _revive(self, now: float) -> float | None:
        """Start what should serve and doesn't."""
        if self.generations.active or self._running is None or not self._running.frontends:
            return None
        if now < self._restarts.due_at:
            return self._restarts.due_at
        try:
            self._restart(self._running)
        except (errors.DataPlaneError, OSError) as error:
            self._restarts.failed(now)
            self._log.warning("restart_failed", reason=str(error))
            return self._restarts.due_at
        return None

    def _restart(self, wanted: config.Config) -> None:
        """Start the next generation; on a full disk, one from the files of the crashed one."""
        try:
            self._start(wanted, "restart")
        except OSError:
            if not self.generations.start_from_old_files(wanted):
                raise
            self._started()

    def _check(self, now: float) -> float | None:
        """See whether what serves still answers; replace what hangs or can't be reached."""
        active = self.generations.active
        if active is None or self._running is None:
            return None
        if now < self._pulse.due_at:
            return self._pulse.due_at
        if not active.runtime.answers():
            return self._suspect(active)
        self._pulse.answered(now)
        if active.has_lost_its_socket():
            self._replace("socket gone")
        elif self._pulse.is_to_compare(now):
            self._dirty = True
            self._journal.doubt()
            if active.is_outdated():
                self._replace("program")
            return now
        return self._pulse.due_at

    def _suspect(self, active: generation.Generation) -> float | None:
        """Note that a process is silent; end it when it was for too long."""
        now = self._host.clock.monotonic()
        if not active.process.alive() or not self._pulse.missed(now):
            self._retell_at = now + RETELL_S
            return now
        self._log.error("load_balancer_hangs", generation=active.number)
        active.process.kill()
        self._bury(now)
        return now

    def _replace(self, reason: str) -> None:
        """Start another generation of the same; what serves goes on if that can't be done."""
        assert self._running is not None
        try:
            self._start(self._running, reason)
        except (errors.DataPlaneError, OSError) as error:
            self._log.warning("not_replaced", reason=reason, error=str(error))
            self._journal.write_soon(self.desired)

    def _retell(self, now: float) -> float | None:
        """Tell the process again what it may have missed."""
        if not self._dirty or self.desired is None or self.generations.active is None:
            return None
        if now < self._retell_at:
            return self._retell_at
        try:
            self._put(self.desired, self._build(self.desired))
        except (errors.DataPlaneError, OSError) as error:
            self._log.warning("update_failed", reason=str(error))
            self._retell_at = self._host.clock.monotonic() + RETELL_S
            return self._retell_at
        return None

    def _drain(self, now: float) -> float | None:
        """End the generations that have finished."""
        ended, again = self.generations.draining.tend(now)
        if ended:
            self._journal.write_soon(self.desired)
        return again

    def _forget(self, now: float) -> float | None:
        """Let go of servers that no connection uses any more, or have had their time."""
        active = self.generations.active
        if not self._departures or active is None or self._running is None:
            return None
        return self._departures.tend(active, self._running, now)

    def _file(self, now: float) -> float | None:
        """Make the files of what serves say what it was told."""
        return self._filing.tend(self.generations.active, self._running, now)


def _listeners(desired: model.Desired | None) -> dict[int, str]:
    return {one.port: one.name for one in desired.spec.listeners} if desired else {}
