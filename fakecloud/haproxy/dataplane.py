"""The data plane: one HAProxy process per load balancer on this host."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from signal import Signals
from threading import Lock
from typing import Final

import structlog

from fakecloud import clock, errors, model
from fakecloud.domain import tally
from fakecloud.domain.disturbances import Disturbance
from fakecloud.haproxy import (
    artifacts,
    generation,
    host,
    instance,
    launcher,
    process,
    runtime,
    spoiling,
    words,
)
from fakecloud.supervision import processes, pulse, refusals, supervisor

ADOPTERS: Final = 4
MOST_REMOVED: Final = 10_000
"""So many removals are remembered: more than happen while a worker can be asleep."""
STRAY_PATIENCE_S: Final = 2.0
"""So long have connections of processes that nobody knows, all together."""
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

log = structlog.get_logger(__name__)


class HaproxyDataPlane:
    """Load balancers as HAProxy processes, which outlive this object and are taken back by the next.

    state_dir: keeps `lb/<id>/` for every load balancer. runtime_dir: keeps their sockets; short.
    haproxy: program, by name or path, or what starts it elsewhere. run_as: user and group of the processes, for a server
    that is root. on_crash: told the id after a crash, from a thread of the data plane. beat_s:
    pause between two looks at a process that says nothing by itself. transparent: processes may
    connect from their clients' addresses, and what answers finds back here.
    Every method may be called from any thread; calls for one load balancer take turns.
    Raises: StartError when HAProxy is missing or too old, or a directory can't be used or is in
    use by another server.
    """

    def __init__(
        self,
        state_dir: Path,
        runtime_dir: Path,
        time: clock.Clock,
        *,
        haproxy: str | launcher.Launcher = "haproxy",
        run_as: tuple[int, int] | None = None,
        on_crash: Callable[[str], None] | None = None,
        beat_s: float = pulse.BEAT_S,
        transparent: bool = False,
    ) -> None:
        root = _private(state_dir.resolve() / "lb")
        where = (
            launcher.Beside(process.find_program(haproxy)) if isinstance(haproxy, str) else haproxy
        )
        self._host = host.Host(
            root=root,
            runtime_dir=_private(_short(runtime_dir.absolute())),
            launcher=where,
            clock=time,
            connections=process.connection_budget(),
            run_as=run_as,
            spare_sockets=runtime.can_hold_sockets(root),
            beat_s=beat_s,
            transparent=transparent,
            spoiler=None if where.own_network else spoiling.Spoiler(),
        )
        self._meters = _private(state_dir.resolve() / "meters")
        self._alone = processes.lock(self._host.root / "lock")
        self._on_crash = on_crash
        self._lock = Lock()
        self._instances: dict[str, instance.Instance] = {}
        self._removed: dict[str, int] = {}  # epochs, the oldest first
        self._watch = supervisor.Supervisor("haproxy", time, self._tend)

    def apply(self, desired: model.Desired) -> None:
        """Make the load balancer equal to `desired`; returns when it is. Repeating is harmless.

        Raises: StaleEpoch when a newer epoch was seen; Permanent or Transient when it can't be
        done, and then what served before still serves.
        """
        applied = False
        while not applied:
            with self._tended(desired.lb_id) as found, refusals.exhaustion(desired.lb_id):
                applied = found.apply(desired)
            if not applied:
                self._drop(found)

    def fence(self, lb_id: str, epoch: int) -> None:
        """Refuse older epochs of the load balancer from now on, also after a power failure.

        Raises: StaleEpoch when a newer one was seen; Transient.
        """
        fenced = False
        while not fenced:
            found = self._instance(lb_id)
            with refusals.exhaustion(lb_id):
                fenced = found.fence(epoch)
            if not fenced:
                self._drop(found)

    def set_down(
        self,
        lb_id: str,
        down: frozenset[model.ProbeKey],
        weights: frozenset[model.ProbeWeight] = frozenset(),
    ) -> None:
        """Let targets whose probe is in `down` take no new connection, all others do.

        weights: what targets say their own weight is, as in `Desired`.

        Probes of other load balancers are ignored, as is an unknown id.
        Raises: Transient when HAProxy doesn't answer; the data plane itself repeats it.
        """
        with self._lock:
            known = lb_id in self._instances
        if known:
            with self._tended(lb_id) as found, refusals.exhaustion(lb_id):
                found.set_down(down, weights)

    def disturb(self, lb_id: str, disturbance: Disturbance) -> None:
        """Let new connections of a load balancer meet a fault until it is told an empty one.

        Nothing of it survives this object; an unknown id is ignored. Raises: Transient.
        """
        with self._lock:
            known = lb_id in self._instances
        if known:
            with self._tended(lb_id) as found, refusals.exhaustion(lb_id):
                found.disturb(disturbance)

    def signal(self, lb_id: str, number: Signals) -> None:
        """Send a signal to the process that serves, if one does: a fault."""
        with self._lock:
            found = self._instances.get(lb_id)
        if found is not None:
            found.signal(number)

    def remove(self, lb_id: str, epoch: int) -> None:
        """End the load balancer; an unknown id is no error. Raises: StaleEpoch.

        A worker that slept meanwhile, and still holds an older epoch, can't bring it back.
        """
        with self._lock:
            unknown = lb_id not in self._instances
            if unknown and not self._host.directory(_checked(lb_id)).exists():
                self._remember(lb_id, epoch)
                return
        found = self._instance(lb_id)
        found.remove(epoch)
        self._drop(found, epoch)

    def adopt(self, known: Collection[str]) -> processes.Adoption:
        """Take back what an earlier server left, at start, before any other call.

        known: ids that shall exist. Those that serve are taken as they are; those that don't
        are started from their files in the background; all others are ended and removed.
        """
        left = [entry.name for entry in self._host.root.iterdir() if entry.is_dir()]
        with ThreadPoolExecutor(ADOPTERS, thread_name_prefix="haproxy-adopt") as pool:
            ours = [lb_id for lb_id in left if lb_id in known and _ID.fullmatch(lb_id)]
            served = dict(zip(ours, pool.map(self._adopt_one, ours), strict=True))
            orphans = {lb_id for lb_id in left if lb_id not in served}
            list(pool.map(self._remove_orphan, orphans))
        orphans |= self._sweep() - served.keys()
        orphans |= self._host.launcher.sweep(self._host.root, served.keys())
        adoption = processes.Adoption(
            adopted=frozenset(lb_id for lb_id in served if served[lb_id]),
            restarted=frozenset(lb_id for lb_id in served if not served[lb_id]),
            orphans_removed=frozenset(orphans),
        )
        log.info(
            "load_balancers_adopted",
            adopted=len(adoption.adopted),
            restarted=len(adoption.restarted),
            orphans_removed=len(adoption.orphans_removed),
        )
        return adoption

    def wanted(self, lb_id: str) -> bool:
        """Return whether HAProxy has anything to serve for the load balancer."""
        with self._lock:
            found = self._instances.get(lb_id)
        return found is not None and found.wanted()

    def serving(self, lb_id: str) -> bool:
        """Return whether a process accepts connections for the load balancer now."""
        with self._lock:
            found = self._instances.get(lb_id)
        return found is not None and found.serving()

    def running(self) -> frozenset[str]:
        """Return the ids of the load balancers that this host runs now."""
        with self._lock:
            known = list(self._instances.values())
        return frozenset(found.lb_id for found in known if found.serving())

    def configuration(self, lb_id: str) -> str | None:
        """Return what HAProxy was given, without secrets; None if nothing runs here."""
        found = self._current(lb_id)
        return None if found is None else found[0].artifacts.configuration()

    def log_tail(self, lb_id: str, most: int) -> list[str]:
        """Return the last lines that HAProxy wrote, at most `most`."""
        found = self._current(lb_id)
        return [] if found is None else found[0].artifacts.log_tail(most)

    def counters(self, lb_id: str) -> list[model.Counters] | None:
        """Return what the load balancer has carried on this host; None if it never was here.

        Also of one that was removed, until `forget_counters`.
        Raises: Transient when HAProxy doesn't answer.
        """
        with self._lock:
            found = self._instances.get(lb_id)
        counted = None if found is None else found.counters()
        if counted is None and _ID.fullmatch(lb_id):
            return tally.finished(self._host.meter(lb_id))
        return counted

    def counted(self) -> list[str]:
        """Return the ids of all that `counters` knows."""
        return [path.stem for path in self._meters.glob("*.json")]

    def forget_counters(self, lb_id: str, told: list[model.Counters]) -> None:
        """Forget what a load balancer carried that was removed, unless it is more than `told`."""
        if not _ID.fullmatch(lb_id):
            return
        path = self._host.meter(lb_id)
        with self._lock:
            if lb_id not in self._instances and tally.finished(path) == told:
                path.unlink(missing_ok=True)

    def _current(self, lb_id: str) -> tuple[generation.Generation, model.Desired] | None:
        with self._lock:
            found = self._instances.get(lb_id)
        return None if found is None else found.current()

    def close(self) -> None:
        """Stop watching. The load balancers go on; another data plane can adopt them."""
        self._watch.close()
        for found in self._take_all():
            found.release()
        if self._host.spoiler is not None:
            self._host.spoiler.close()
        self._alone.close()

    def stop_all(self) -> None:
        """End every process; directories stay, so that the next start returns to them."""
        for found in self._take_all():
            found.stop()
        if self._host.spoiler is not None:
            self._host.spoiler.close()

    @contextmanager
    def _tended(self, lb_id: str) -> Iterator[instance.Instance]:
        """Yield the load balancer and have a look taken at it afterwards, come what may."""
        found = self._instance(lb_id)
        at = None
        try:
            yield found
            at = found.rests_until()
        finally:
            self._watch.look(lb_id, at or self._host.clock.monotonic())

    def _instance(self, lb_id: str) -> instance.Instance:
        with self._lock:
            found = self._instances.get(lb_id)
            if found is None:
                epoch = self._removed.get(lb_id, 0)
                found = instance.Instance(self._host, _checked(lb_id), epoch)
                self._instances[lb_id] = found
        return found

    def _take_all(self) -> list[instance.Instance]:
        with self._lock:
            taken, self._instances = list(self._instances.values()), {}
        return taken

    def _remember(self, lb_id: str, epoch: int) -> None:
        self._removed[lb_id] = max(epoch, self._removed.pop(lb_id, 0))
        if len(self._removed) > MOST_REMOVED:
            del self._removed[next(iter(self._removed))]

    def _drop(self, found: instance.Instance, epoch: int | None = None) -> None:
        with self._lock:
            if epoch is not None:
                self._remember(found.lb_id, epoch)
            if self._instances.get(found.lb_id) is found:
                del self._instances[found.lb_id]

    def _tend(self, lb_id: str) -> float | None:
        with self._lock:
            found = self._instances.get(lb_id)
        if found is None:
            return None
        crashed, due = found.tend()
        self._watch.follow(lb_id, [running.process.pidfd for running in found.processes()])
        if crashed and self._on_crash is not None:
            self._on_crash(lb_id)
        return due

    def _adopt_one(self, lb_id: str) -> bool:
        with self._tended(lb_id) as found:
            return found.serving()

    def _remove_orphan(self, lb_id: str) -> None:
        if _ID.fullmatch(lb_id):
            found = instance.Instance(self._host, lb_id)
            found.stop()
        shutil.rmtree(self._host.root / lb_id, ignore_errors=True)

    def _sweep(self) -> set[str]:
        """End processes of this state directory that no load balancer knows.

        One that an earlier server was starting when it died may serve by now, on the sockets of
        the one that it was to replace: it finishes what it has accepted.
        """
        strays = {}
        for pid, lb_id in process.sweep(self._host.root):
            if self._has(lb_id, pid):
                continue
            stray = process.recognise(pid, None, self._host.directory(lb_id), lb_id)
            if stray is not None:
                stray.signal(Signals.SIGUSR1)
                strays[stray] = lb_id
        until = self._host.clock.monotonic() + STRAY_PATIENCE_S
        for stray, lb_id in strays.items():
            if not stray.wait(max(0.0, until - self._host.clock.monotonic())):
                stray.end()
            stray.close()
            artifacts.tidy(self._host, lb_id)
        return set(strays.values())

    def _has(self, lb_id: str, pid: int) -> bool:
        """Return whether a load balancer knows a process; one that it starts just now it does."""
        with self._lock:
            found = self._instances.get(lb_id)
        return found is not None and pid in {one.process.pid for one in found.processes()}


def _checked(lb_id: str) -> str:
    """Return `lb_id` if it can name a directory."""
    if not _ID.fullmatch(lb_id):
        raise errors.Permanent("config_invalid", "the load balancer's id is not a plain word")
    return lb_id


def _short(directory: Path) -> Path:
    """Return `directory` if HAProxy can name sockets in it, also while it makes them."""
    longest = f"{directory}/{'0' * 10}.g9999999.sock.9999999.tmp"
    if len(longest) > runtime.MAX_PATH_BYTES:
        room = runtime.MAX_PATH_BYTES - len(longest) + len(str(directory))
        raise errors.StartError(
            f"runtime directory {directory} is too long for sockets: at most {room} bytes;"
            " choose another with --runtime-dir"
        )
    try:
        words.Word(str(directory))
    except ValueError:
        raise errors.StartError(
            f"runtime directory {directory} may have only letters, digits and _ . : / @ -;"
            " choose another with --runtime-dir"
        ) from None
    return directory


def _private(directory: Path) -> Path:
    """Return `directory`, made if absent, for this user alone."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_uid != os.geteuid():
            raise errors.StartError(
                f"{directory} belongs to another user; choose another directory"
            )
        directory.chmod(0o700)
    except OSError as error:
        raise errors.StartError(f"{directory} can't be used: {error.strerror}") from error
    return directory
