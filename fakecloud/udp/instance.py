"""One load balancer's UDP ports: what is relayed becomes what is desired, and is kept so.

The server holds the sockets of the ports as well as the relay: what arrives while a relay is
dead or replaced waits in them. The server may be killed anywhere: the directory says what was
desired, the relay what runs. Methods take turns by a lock.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Final

import msgspec
import structlog

from fakecloud import errors, files, model
from fakecloud.domain import fields
from fakecloud.supervision import processes
from fakecloud.supervision.pulse import Pulse
from fakecloud.supervision.restarts import Restarts
from fakecloud.udp import config, control, wire, worker
from fakecloud.udp.meter import Meter

FILE: Final = "udp.json"
RETELL_S: Final = 1.0

log = structlog.get_logger(__name__)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a load balancer's directory remembers: what was last put into effect."""

    lb_id: str
    desired: model.Desired


class Instance:
    """The UDP ports of a load balancer on this host; there may be none."""

    def __init__(self, host: worker.Host, lb_id: str) -> None:
        self._host = host
        self._file = host.directory(lb_id) / FILE
        self._log = log.bind(lb_id=lb_id)
        self._lock = RLock()
        self._desired: model.Desired | None = None
        self._config = wire.Config()
        self._worker: worker.Worker | None = None
        self._sockets: dict[tuple[str, int], socket.socket] = {}
        self._restarts = Restarts()
        self._pulse = Pulse(host.beat_s)
        self._meter = Meter(host.meter(lb_id))
        self._last_number = 0
        self._dirty = self._crashed = self._known = False
        self.over = False  # another object may speak for the load balancer now
        self.lb_id = lb_id

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for our turn; the first one takes back what an earlier server left."""
        with self._lock:
            if not self._known:
                self._known = True
                self._adopt()
            yield

    @contextmanager
    def change(self, desired: model.Desired) -> Iterator[Callable[[], None]]:
        """Prepare `desired`, so that what it gives has only to be called to put it into effect.

        Everything that can fail is done before; if it isn't called, all is as it was.
        Raises: Permanent, Transient; what was relayed before still is.
        """
        with self.turn():
            if not self.concerns(desired):
                yield lambda: None
                return
            wanted = config.build(desired, sessions=self._host.sessions)
            try:
                self._bind(wanted)
                if wanted.listeners:
                    self._stage(desired)
                    self._ensure_running()
                yield lambda: self._put(desired, wanted)
            finally:
                files.drop(self._file)
                self._drop_unused()

    def set_down(
        self, down: frozenset[model.ProbeKey], weights: frozenset[model.ProbeWeight]
    ) -> None:
        """Let the targets whose probes fail have no new session, the others some.

        Raises: Transient when the relay doesn't answer.
        """
        with self.turn():
            if self._desired is None or self.over:
                return
            down, weights = fields.told(self._desired, down, weights)
            desired = msgspec.structs.replace(self._desired, down=down, weights=weights)
            if desired == self._desired:
                return
            wanted = config.build(desired, sessions=self._host.sessions)
            if not wanted.listeners:
                return
            self._stage(desired)
            try:
                if self._is_alive():
                    self._put(desired, wanted)
                else:  # the next relay is told
                    self._desired, self._config = desired, wanted
                    files.commit(self._file)
            finally:
                files.drop(self._file)

    def renew(self) -> None:
        """Replace the relay by one of our own version; no session is lost. Raises: Transient."""
        with self.turn():
            if self._worker is not None and not self.over:
                self._start("renewed")

    def stop(self) -> None:
        """End the relay; the directory stays, so that a later start returns to it."""
        with self.turn():
            self._end()
            self._close_sockets()
            self.over = True

    def release(self) -> None:
        """Let go of the relay; it lives on."""
        with self._lock:
            if self._worker is not None:
                self._worker.process.close()
            self._close_sockets()
            self._worker, self.over = None, True

    def wanted(self) -> bool:
        """Return whether there are ports to relay."""
        with self.turn():
            return bool(self._config.listeners)

    def rests(self) -> bool:
        """Return whether nothing is relayed, nor shall be: then there is nothing to look after."""
        with self.turn():
            return self._worker is None and not (self._config.listeners or self._dirty)

    def concerns(self, desired: model.Desired) -> bool:
        """Return whether `desired` has UDP ports, or anything of earlier ones is still there."""
        return not self.rests() or bool(config.listeners_of(desired.spec))

    def serving(self) -> bool:
        """Return whether datagrams are relayed now."""
        with self.turn():
            return self._is_alive()

    def process(self) -> processes.Process | None:
        """Return the relay's process, to watch it."""
        with self.turn():
            return None if self._worker is None else self._worker.process

    def counters(self) -> list[model.Counters] | None:
        """Return what was carried on this host; None if it is let go, or never was UDP.

        Raises: Transient when the relay doesn't say.
        """
        with self.turn():
            if self.over or not (self._worker or self._host.meter(self.lb_id).exists()):
                return None
            spec = self._desired.spec if self._desired else None
            self._measure()
            return self._meter.counters(spec)

    def current(self) -> tuple[worker.Worker, model.Desired] | None:
        """Return what relays now and what it was told, None if nothing does."""
        with self.turn():
            if self._worker is None or self._desired is None:
                return None
            return self._worker, self._desired

    def tend(self) -> tuple[bool, float | None]:
        """Do what is due: restart a crashed relay, renew an old one, retry what failed.

        Returns: whether a crash was found; when to look again (monotonic seconds), if ever.
        """
        with self.turn():
            if self.over:
                return False, None
            now = self._host.clock.monotonic()
            self._bury(now)
            crashed, self._crashed = self._crashed, False
            due = [self._revive(now), self._retell(now), self._check(now)]
            return crashed, min((moment for moment in due if moment is not None), default=None)

    # applying

    def _bind(self, wanted: wire.Config) -> None:
        for ip, port in wanted.binds():
            if (ip, port) not in self._sockets:
                self._sockets[ip, port] = control.bound(ip, port)

    def _ensure_running(self) -> None:
        """Have a relay that answers. Raises: Transient."""
        self._bury(self._host.clock.monotonic())
        if self._worker is None:
            self._start("started")
        elif self._worker.control.hello() is None:
            raise errors.Transient("runtime_unavailable", "the UDP relay does not answer")

    def _put(self, desired: model.Desired, wanted: wire.Config) -> None:
        if wanted.listeners:
            self._dirty = True
            self._measure()  # what was until now counts under the names until now
            self._tell(wanted)
        else:
            self._end()
        self._desired, self._config, self._dirty = desired, wanted, False
        self._restarts.succeeded()
        if not wanted.listeners:
            self._file.unlink(missing_ok=True)
        files.commit(self._file)

    def _measure(self) -> None:
        if self._worker is not None and self._desired is not None:
            self._meter.measure(self._worker, self._desired.spec)
            self._meter.save()

    def _tell(self, wanted: wire.Config) -> None:
        assert self._worker is not None
        text = wire.render(wanted)
        sockets = [self._sockets[bind] for bind in wanted.binds()]
        self._worker.control.apply(text, sockets)
        if self._worker.control.configuration() != text:
            raise errors.Transient("runtime_unavailable", "the UDP relay runs something else")
        worker.shorten(self._host.log(self.lb_id))

    def _start(self, why: str) -> None:
        before = self._worker
        self._last_number += 1
        self._file.parent.mkdir(mode=0o700, exist_ok=True)
        self._worker = worker.start(self._host, self.lb_id, self._last_number, before)
        self._restarts.started(self._host.clock.monotonic())
        self._pulse.started(self._host.clock.monotonic())
        if before is not None:
            before.end()
        else:
            self._meter.begin(self._worker.epoch)
        self._log.info(
            "relay_started", number=self._last_number, why=why, pid=self._worker.process.pid
        )

    def _end(self) -> None:
        if self._worker is not None:
            self._meter.finish(self._worker, self._desired.spec if self._desired else None)
            self._worker.end()
            self._log.info("relay_ended", number=self._worker.number)
            self._worker = None

    def _drop_unused(self) -> None:
        """Close the sockets of ports that are not relayed, end a relay without ports."""
        binds = set(self._config.binds())
        for bind in self._sockets.keys() - binds:
            self._sockets.pop(bind).close()
        if not binds:
            self._end()

    # tending

    def _bury(self, now: float) -> None:
        """Notice that the relay died; it is to be started again, the first time at once."""
        if self._worker is None or self._worker.process.alive():
            return
        number, ended = self._worker.number, self._worker.end()
        self._meter.ended(self._worker.epoch, complete=False)
        self._meter.save()
        self._worker, self._crashed = None, True
        self._restarts.died(now)
        self._log.error("relay_crashed", number=number, ended=ended)

    def _revive(self, now: float) -> float | None:
        """Start what should run and doesn't."""
        if self._worker is not None or not self._config.listeners:
            return None
        if now < self._restarts.due_at:
            return self._restarts.due_at
        try:
            self._bind(self._config)
            self._start("restarted")
            self._tell(self._config)
        except errors.DataPlaneError as error:
            self._restarts.failed(now)
            self._dirty = True
            self._log.warning("restart_failed", code=error.code, reason=error.message)
            return self._restarts.due_at
        return None

    def _retell(self, now: float) -> float | None:
        """Tell the relay again what it may have missed; replace one of another version."""
        if not self._dirty or self._worker is None or self._desired is None:
            return None
        try:
            hello = self._worker.control.hello()
            if hello is not None and hello.version != self._host.version:
                self._start("of another version")
            self._bind(self._config)
            self._put(self._desired, self._config)
        except errors.DataPlaneError as error:
            self._log.warning("update_failed", code=error.code, reason=error.message)
            return now + RETELL_S
        finally:
            self._drop_unused()
        return None

    def _check(self, now: float) -> float | None:
        """End a relay that hangs; it is then one that died."""
        if self._worker is None or not self._worker.process.alive():
            return None
        if now >= self._pulse.due_at:
            if self._worker.control.hello() is not None:
                self._pulse.answered(now)
            elif self._pulse.missed(now):
                self._log.error("relay_hangs", number=self._worker.number)
                self._worker.process.signal(signal.SIGKILL)
                return None
        return self._pulse.due_at

    # the directory

    def _adopt(self) -> None:
        """Take back what an earlier life of the server left; `tend` starts what is dead."""
        self._read_record()
        self._meter.keep([] if self._worker is None else [self._worker.epoch])

    def _read_record(self) -> None:
        try:
            record = msgspec.json.decode(self._file.read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return
        self._desired, self._dirty = record.desired, True
        for number, path in self._host.sockets(self.lb_id):
            self._last_number = max(self._last_number, number)
            found = worker.find(self._host, self.lb_id, number, path)
            if found is not None and self._worker is None:
                self._worker = found
            elif found is not None:
                found.end()  # it had begun to hand over to the newer one
        try:
            self._config = config.build(record.desired, sessions=self._host.sessions)
            if self._worker is not None:
                for one in self._worker.control.sockets():
                    self._sockets[control.place(one)] = one
        except errors.DataPlaneError as error:  # it is told anew, with new sockets if need be
            self._log.warning("load_balancer_unknown", reason=error.message)

    def _is_alive(self) -> bool:
        return self._worker is not None and self._worker.process.alive()

    def _close_sockets(self) -> None:
        for one in self._sockets.values():
            one.close()
        self._sockets.clear()

    def _stage(self, desired: model.Desired) -> None:
        """Write the record beside its place: a full disk is met before anything has changed."""
        self._file.parent.mkdir(mode=0o700, exist_ok=True)
        record = Record(lb_id=self.lb_id, desired=desired)
        files.stage(self._file, msgspec.json.encode(record))
