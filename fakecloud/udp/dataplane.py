"""The front of the relays: one process for each load balancer with UDP ports, none for others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Final

import structlog

from fakecloud import clock, model
from fakecloud.domain import tally
from fakecloud.supervision import processes, pulse, refusals, supervisor
from fakecloud.udp import instance, process, worker

ADOPTERS: Final = 4

log = structlog.get_logger(__name__)


class UdpDataPlane:
    """UDP ports of load balancers, relayed by processes that outlive this object.

    root: keeps a directory for every load balancer, which is another's to make and remove.
    runtime_dir: keeps control sockets; short. meters: keeps what was carried, made if absent.
    All belong to this user alone, and to one server at a time. run_as: user and group of the relays, for a server that is root. on_crash: told
    the id after a crash, from a thread of the data plane. beat_s: pause between two looks at a
    relay that says nothing by itself.
    Every method may be called from any thread; calls for one load balancer take turns. Nothing
    here knows of epochs: who calls has made sure that no newer one was seen.
    """

    def __init__(
        self,
        root: Path,
        runtime_dir: Path,
        meters: Path,
        time: clock.Clock,
        *,
        run_as: tuple[int, int] | None = None,
        on_crash: Callable[[str], None] | None = None,
        beat_s: float = pulse.BEAT_S,
    ) -> None:
        self._host = worker.Host(
            root=root.resolve(),
            runtime_dir=runtime_dir.absolute(),
            meters=meters.resolve(),
            clock=time,
            sessions=process.session_budget(),
            version=process.version(),
            run_as=run_as,
            beat_s=beat_s,
        )
        self._host.meters.mkdir(mode=0o700, exist_ok=True)
        self._on_crash = on_crash
        self._lock = Lock()
        self._instances: dict[str, instance.Instance] = {}
        self._supervisor = supervisor.Supervisor("udp", time, self._tend)

    @contextmanager
    def turn(self, lb_id: str) -> Iterator[instance.Instance]:
        """Yield the load balancer's ports, nobody else's until it ends; then look after them.

        Raises: Transient for what the operating system refuses meanwhile.
        """
        while True:
            found = self._instance(lb_id)
            with found.turn():
                if found.over:
                    self._drop(found)
                    continue
                try:
                    with refusals.exhaustion(lb_id):
                        yield found
                finally:
                    if not found.rests():
                        self._supervisor.look(lb_id, self._host.clock.monotonic())
                return

    def set_down(
        self,
        lb_id: str,
        down: frozenset[model.ProbeKey],
        weights: frozenset[model.ProbeWeight] = frozenset(),
    ) -> None:
        """Let targets whose probe is in `down` have no new session; nothing for an unknown id.

        Raises: Transient when the relay doesn't answer; it is to be told again.
        """
        if self._known(lb_id) is not None:
            with self.turn(lb_id) as found:
                found.set_down(down, weights)

    def remove(self, lb_id: str) -> None:
        """End the relay; an unknown id is no error."""
        found = self._instance(lb_id)
        found.stop()
        self._drop(found)

    def adopt(self, known: Collection[str]) -> processes.Adoption:
        """Take back what an earlier server left, at start, before any other call.

        known: ids that shall exist. Relays that live are taken as they are, dead ones are started
        again in the background, those of other ids are ended.
        """
        kept = [lb_id for lb_id in known if (self._host.directory(lb_id) / instance.FILE).exists()]
        with ThreadPoolExecutor(ADOPTERS, thread_name_prefix="udp-adopt") as pool:
            served = dict(zip(kept, pool.map(self._adopt_one, kept), strict=True))
        return processes.Adoption(
            adopted=frozenset(lb_id for lb_id in served if served[lb_id]),
            restarted=frozenset(lb_id for lb_id in served if not served[lb_id]),
            orphans_removed=frozenset(self._sweep()),
        )

    def wanted(self, lb_id: str) -> bool:
        """Return whether the load balancer has UDP ports."""
        found = self._known(lb_id)
        return found is not None and found.wanted()

    def serving(self, lb_id: str) -> bool:
        """Return whether a relay runs for the load balancer now."""
        found = self._known(lb_id)
        return found is not None and found.serving()

    def running(self) -> frozenset[str]:
        """Return the ids of the load balancers that have a relay now."""
        with self._lock:
            known = list(self._instances.values())
        return frozenset(found.lb_id for found in known if found.serving())

    def renew(self, lb_id: str) -> None:
        """Replace the relay by a new process; no session is lost. Raises: Transient."""
        if self._known(lb_id) is not None:
            with self.turn(lb_id) as found:
                found.renew()

    def configuration(self, lb_id: str) -> str | None:
        """Return what the relay was told; None if none runs. Raises: Transient."""
        current = self._current(lb_id)
        return None if current is None else current[0].control.configuration()

    def log_tail(self, lb_id: str, most: int) -> list[str]:
        """Return the last lines that the relay wrote, at most `most`."""
        if self._current(lb_id) is None:
            return []
        return worker.log_tail(self._host.log(lb_id), most)

    def counters(self, lb_id: str) -> list[model.Counters] | None:
        """Return what was carried on this host; None if no relay ever did. Raises: Transient.

        Also of a load balancer that was removed, until `forget_counters`.
        """
        found = self._known(lb_id)
        counted = None if found is None else found.counters()
        return counted if counted is not None else tally.finished(self._host.meter(lb_id))

    def counted(self) -> list[str]:
        """Return the ids of all that `counters` knows."""
        return sorted({path.stem for path in self._host.meters.glob("*.json")} | self.running())

    def forget_counters(self, lb_id: str, told: list[model.Counters]) -> None:
        """Forget what a load balancer carried that was removed, unless it is more than `told`."""
        path = self._host.meter(lb_id)
        with self._lock:
            if lb_id not in self._instances and tally.finished(path) == told:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop watching. The relays go on; another data plane can adopt them."""
        self._supervisor.close()
        for found in self._take_all():
            found.release()

    def stop_all(self) -> None:
        """End every relay; what is desired stays, so that the next start returns to it."""
        for found in self._take_all():
            found.stop()

    def _known(self, lb_id: str) -> instance.Instance | None:
        with self._lock:
            return self._instances.get(lb_id)

    def _instance(self, lb_id: str) -> instance.Instance:
        with self._lock:
            found = self._instances.get(lb_id)
            if found is None:
                found = self._instances[lb_id] = instance.Instance(self._host, lb_id)
        return found

    def _drop(self, found: instance.Instance) -> None:
        with self._lock:
            if self._instances.get(found.lb_id) is found:
                del self._instances[found.lb_id]

    def _take_all(self) -> list[instance.Instance]:
        with self._lock:
            taken, self._instances = list(self._instances.values()), {}
        return taken

    def _current(self, lb_id: str) -> tuple[worker.Worker, model.Desired] | None:
        found = self._known(lb_id)
        return None if found is None else found.current()

    def _tend(self, lb_id: str) -> float | None:
        found = self._known(lb_id)
        if found is None:
            return None
        crashed, due = found.tend()
        ours = found.process()
        if ours is not None:
            self._supervisor.follow(lb_id, [ours.pidfd])
        if crashed and self._on_crash is not None:
            self._on_crash(lb_id)
        return due

    def _adopt_one(self, lb_id: str) -> bool:
        with self.turn(lb_id) as found:
            return found.serving()

    def _sweep(self) -> set[str]:
        """End relays of this state directory that no load balancer knows."""
        ended = set()
        for pid, lb_id in process.sweep(self._host.root):
            found = self._known(lb_id)
            ours = None if found is None else found.process()  # also one that it starts just now
            if ours is not None and ours.pid == pid:
                continue
            stray = process.recognise(pid, self._host.directory(lb_id), lb_id)
            if stray is None:
                continue
            stray.end()
            stray.close()
            for _, path in self._host.sockets(lb_id):
                path.unlink(missing_ok=True)
            ended.add(lb_id)
        return ended
