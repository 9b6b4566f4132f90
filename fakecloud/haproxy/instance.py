"""One load balancer: brings what runs to what is desired, and keeps it there.

The server may be killed anywhere: the directory says what ran. Methods take turns by a lock.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import RLock
from typing import Final

import msgspec
import structlog

from fakecloud import errors, model
from fakecloud.haproxy import changes, config, generation, state
from fakecloud.haproxy.departures import Departures
from fakecloud.haproxy.draining import Draining
from fakecloud.haproxy.meter import Meter
from fakecloud.haproxy.restarts import Restarts

RETELL_S: Final = 1.0

log = structlog.get_logger(__name__)


class Instance:
    """A load balancer on this host, running or not."""

    def __init__(self, host: generation.Host, lb_id: str, epoch: int = 0) -> None:
        """Speak for `lb_id`; calls with an epoch older than `epoch` are refused."""
        self._host = host
        self._directory = host.directory(lb_id)
        self._log = log.bind(lb_id=lb_id)
        self._lock = RLock()
        self._epoch = epoch
        self._desired: model.Desired | None = None
        self._running: config.Config | None = None  # None: what runs isn't known in detail
        self._active: generation.Generation | None = None
        self._meter = Meter(host.meter(lb_id))
        self._draining = Draining(
            host.clock, self._log, lambda gone: self._meter.finish(gone, None)
        )
        self._departures = Departures()
        self._restarts = Restarts()
        self._last_number = 0
        self._dirty = False
        self._crashed = False
        self.lb_id = lb_id
        self._over = False  # another object may speak for the load balancer now
        self._known = False

    def apply(self, desired: model.Desired) -> bool:
        """Put `desired` into effect; False, having done nothing, if removed or let go meanwhile.

        Raises: StaleEpoch, Permanent, Transient; what served before then still serves.
        """
        with self._turn():
            if self._over:
                return False
            self._fence(desired.epoch)
            wanted = self._build(desired)
            self._put(desired, wanted)
            self._restarts.succeeded()
            return True

    def set_down(
        self, down: frozenset[model.ProbeKey], weights: frozenset[model.ProbeWeight] = frozenset()
    ) -> None:
        """Take the targets whose probes fail out of the rotation, the others in.

        weights: what targets say their own weight is.

        Raises: Transient when HAProxy doesn't answer; it is then told again later.
        """
        with self._turn():
            if self._desired is None or self._over:
                return
            keys = config.probe_keys(self._desired.spec)
            ours = frozenset(one for one in weights if one.key in keys)
            desired = msgspec.structs.replace(self._desired, down=down & keys, weights=ours)
            if desired == self._desired and not self._dirty:
                return
            wanted = self._build(desired)
            self._desired, self._dirty = desired, True
            if self._active is not None and self._active.process.alive():
                self._put(desired, wanted)
            else:
                self._running = wanted
                self._save(durable=False)

    def remove(self, epoch: int) -> None:
        """End every process and remove the directory. Raises: StaleEpoch."""
        with self._turn():
            if not self._over:
                with suppress(OSError):  # a full disk must not keep what shall go
                    self._fence(epoch)
                self._end_all()
                shutil.rmtree(self._directory, ignore_errors=True)

    def stop(self) -> None:
        """End every process; the directory stays, so that a later start returns to it."""
        with self._turn():
            if not self._over:
                self._end_all()

    def release(self) -> None:
        """Let go of the processes; they live on."""
        with self._lock:
            for running in self._generations():
                running.process.close()
            self._forget_all()

    def serving(self) -> bool:
        """Return whether a process accepts connections now."""
        with self._turn():
            return self._active is not None and self._active.process.alive()

    def counters(self) -> list[model.Counters] | None:
        """Return what was carried since the load balancer came to this host; None if it has left.

        Raises: Transient when a process doesn't say.
        """
        with self._turn():
            if self._over:
                return None
            told = [self._measure(one) or not one.process.alive() for one in self._generations()]
            self._meter.save()
            if not all(told):
                raise errors.Transient("runtime_unavailable", "HAProxy does not tell its counters")
            return self._meter.counters(self._desired.spec if self._desired else None)

    def current(self) -> tuple[generation.Generation, model.Desired] | None:
        """Return what serves now and what it was told, None if nothing does."""
        with self._turn():
            if self._active is None or self._desired is None:
                return None
            return self._active, self._desired

    def processes(self) -> list[generation.Generation]:
        """Return the generations to watch."""
        with self._turn():
            return self._generations()

    def tend(self) -> tuple[bool, float | None]:
        """Do what is due: restart a crashed process, end drained ones, retry what failed.

        Returns: whether a crash was found; when to look again (monotonic seconds), if ever.
        """
        with self._turn():
            if self._over:
                return False, None
            now = self._host.clock.monotonic()
            self._bury(now)
            crashed, self._crashed = self._crashed, False
            due = [self._revive(now), self._retell(now), self._drain(now), self._forget(now)]
            return crashed, min((moment for moment in due if moment is not None), default=None)

    # applying

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for our turn; the first one takes back what an earlier server left."""
        with self._lock:
            if not self._known:
                self._known = True
                self._adopt()
            yield

    def _end_all(self) -> None:
        for running in self._generations():
            self._end(running)
        self._forget_all()

    def _end(self, running: generation.Generation) -> str:
        """End a process and count what it carried."""
        spec = self._desired.spec if self._desired and running is self._active else None
        self._meter.finish(running, spec)
        return running.end()

    def _measure(self, running: generation.Generation) -> bool:
        spec = self._desired.spec if self._desired and running is self._active else None
        return self._meter.measure(running, spec)

    def _forget_all(self) -> None:
        self._draining.clear()
        self._active, self._over = None, True

    def _fence(self, epoch: int) -> None:
        if epoch < self._epoch:
            raise errors.StaleEpoch(self.lb_id, epoch, self._epoch)
        if epoch > self._epoch or not self._directory.exists():
            self._epoch = epoch
            self._directory.mkdir(mode=0o700, exist_ok=True)
            self._save(durable=True)

    def _build(self, desired: model.Desired) -> config.Config:
        return config.build(desired, connections=self._host.connections)

    def _put(self, desired: model.Desired, wanted: config.Config) -> None:
        before = self._active
        renamed = _listeners(self._desired) != _listeners(desired)
        if before is not None and renamed:
            self._measure(before)  # what was until now counts under the names until now
        if not wanted.frontends:
            self._retire()
        elif self._active is None or not self._active.process.alive():
            self._bury(self._host.clock.monotonic())
            self._start(wanted, "start")
        else:
            self._change(self._active, wanted)
        self._desired, self._running, self._dirty = desired, wanted, False
        self._save(durable=False)
        if self._active is not None and (renamed or self._active is not before):
            self._measure(self._active)
            self._meter.save()

    def _change(self, active: generation.Generation, wanted: config.Config) -> None:
        """Tell the running process, or replace it when that can't be told."""
        if self._running is None:
            self._start(wanted, "unknown")
            return
        try:
            step = self._difference(active, wanted)
            if isinstance(step, changes.RuntimeChanges):
                if step:
                    active.tell(step)
                    self._departures.note(
                        step, self._host.clock.monotonic() + wanted.drain_timeout_s
                    )
                    step = self._difference(active, wanted)
                    self._log.info("load_balancer_updated", generation=active.number)
                if not step:
                    active.write_files(wanted)
                    return
                step = changes.Swap("read-back")
        except errors.Transient:
            self._dirty = True
            raise
        self._start(wanted, step.reason)

    def _difference(
        self, active: generation.Generation, wanted: config.Config
    ) -> changes.RuntimeChanges | changes.Swap:
        """Return what still differs; a server on its way out, already silent, doesn't."""
        assert self._running is not None
        seen = active.observe(self._running)
        step = changes.diff(seen, wanted)
        if isinstance(step, changes.Swap):
            return step
        return self._departures.besides(step)

    def _start(self, wanted: config.Config, reason: str) -> None:
        """Start the next generation; the one before, if any, only finishes its connections."""
        now = self._host.clock.monotonic()
        before = self._active
        self._draining.make_room()
        self._last_number += 1
        starting = state.ProcessRecord(number=self._last_number)
        self._save(durable=False, starting=starting)
        was = self._running or wanted
        held = (before, was) if before else None
        try:
            self._active = generation.start(self._host, self.lb_id, self._last_number, wanted, held)
        except errors.DataPlaneError:
            self._save(durable=False)
            raise
        self._restarts.started(now)
        self._meter.begin(self._active)
        self._departures.clear()
        self._save(durable=False)
        if before is not None:
            self._draining.add(before, was.drain_timeout_s)
        self._log.info(
            "generation_started",
            generation=self._last_number,
            reason=reason,
            pid=self._active.process.pid,
        )

    def _retire(self) -> None:
        """Accept nothing any more; established connections drain."""
        before, self._active = self._active, None
        if before is not None:
            self._draining.add(before, self._running.drain_timeout_s if self._running else 0)
            self._log.info("load_balancer_retired", generation=before.number)

    # tending

    def _bury(self, now: float) -> None:
        """Notice the dead; the one that served is to be started again, the first time at once."""
        self._draining.bury()
        if self._active is None or self._active.process.alive():
            return
        number, ended = self._active.number, self._end(self._active)
        self._active, self._crashed = None, True
        self._departures.clear()
        self._restarts.died(now)
        self._log.error("load_balancer_crashed", generation=number, ended=ended)

    def _revive(self, now: float) -> float | None:
        """Start what should serve and doesn't."""
        if self._active is not None or self._running is None or not self._running.frontends:
            return None
        if now < self._restarts.due_at:
            return self._restarts.due_at
        try:
            self._start(self._running, "restart")
        except errors.DataPlaneError as error:
            self._restarts.failed(now)
            self._log.warning("restart_failed", code=error.code, reason=error.message)
            return self._restarts.due_at
        return None

    def _retell(self, now: float) -> float | None:
        """Tell the process again what it may have missed."""
        if not self._dirty or self._desired is None or self._active is None:
            return None
        try:
            self._put(self._desired, self._build(self._desired))
        except errors.DataPlaneError as error:
            self._log.warning("update_failed", code=error.code, reason=error.message)
            return now + RETELL_S
        return None

    def _drain(self, now: float) -> float | None:
        """End the generations that have finished."""
        ended, again = self._draining.tend(now)
        if ended:
            self._save(durable=False)
        return again

    def _forget(self, now: float) -> float | None:
        """Delete removed servers that no connection uses any more, or have had their time."""
        if not self._departures or self._active is None or self._running is None:
            return None
        again = self._departures.tend(self._active, self._running, now)
        return again if self._departures else None

    # the directory

    def _adopt(self) -> None:
        """Take back what an earlier life of the server left; `tend` starts what is dead."""
        record = state.load(self._directory)
        if record is None:
            return
        self._epoch, self._desired = max(record.epoch, self._epoch), record.desired
        for known in record.processes:
            self._last_number = max(self._last_number, known.number)
            self._adopt_process(record, known)
        generation.tidy(self._host, self.lb_id)
        self._meter.keep(running.number for running in self._generations())
        if self._desired is not None:
            self._dirty = True  # what the last life left half done is told again
            try:
                self._running = self._build(self._desired)
            except errors.Permanent as error:  # this version is stricter than the one before
                self._log.warning("load_balancer_unknown", reason=error.message)
        if self._active is not None and not self._active.runs(self._running):
            self._running = None

    def _adopt_process(self, record: state.Record, known: state.ProcessRecord) -> None:
        found = generation.find(self._host, record, known)
        if found is None:
            generation.remove_files(self._host, self.lb_id, known.number)
        elif known.number == record.active:
            self._active = found
        elif known.number > (record.active or 0):
            found.end()  # it was about to take over; what it should become is told anew
        else:
            self._draining.add(found, _patience_s(record.desired))

    def _generations(self) -> list[generation.Generation]:
        return [*self._draining, *([self._active] if self._active else [])]

    def _save(self, *, durable: bool, starting: state.ProcessRecord | None = None) -> None:
        living = [running.record() for running in self._generations()]
        record = state.Record(
            lb_id=self.lb_id,
            epoch=self._epoch,
            desired=self._desired,
            active=self._active.number if self._active else None,
            processes=(*living, *([starting] if starting else [])),
        )
        state.save(self._directory, record, durable=durable)


def _listeners(desired: model.Desired | None) -> dict[int, str]:
    return {one.port: one.name for one in desired.spec.listeners} if desired else {}


def _patience_s(desired: model.Desired | None) -> int:
    groups = desired.spec.target_groups if desired else ()
    return max((group.drain_timeout_s for group in groups), default=0)
