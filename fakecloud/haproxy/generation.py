"""One HAProxy process of a load balancer, from its files to its end.

A load balancer has one generation that accepts connections and perhaps older ones that only
finish theirs. The next generation takes the listening sockets over from the one before, so no
connection is lost between them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from signal import Signals
from threading import Event
from typing import Final

from fakecloud import errors
from fakecloud.haproxy import (
    affinity,
    changes,
    config,
    diagnosis,
    launcher,
    process,
    rendering,
    runtime,
    state,
    words,
)
from fakecloud.haproxy.artifacts import Artifacts
from fakecloud.haproxy.host import Host, spare_socket
from fakecloud.supervision import processes

READY_TIMEOUT_S: Final = 5.0
POLL_S: Final = 0.001
FINISH_TURNS: Final = 50
FINISH_POLL_S: Final = 0.005


class Generation:
    """A process that answers on its socket (or did, until it ended)."""

    def __init__(
        self, host: Host, lb_id: str, number: int, ours: processes.Process, program: str
    ) -> None:
        self._host = host
        self._lb_id = lb_id
        self.number = number
        self.process = ours
        self.program = program
        self.runtime = host.door(lb_id, number)
        self.artifacts = Artifacts(host, lb_id, number)
        self.deadline = float("inf")

    def record(self) -> state.ProcessRecord:
        """Return what makes the process known again."""
        ours = self.process
        return state.ProcessRecord(
            number=self.number, pid=ours.pid, start=ours.start, program=self.program
        )

    def has_lost_its_socket(self) -> bool:
        """Return whether somebody removed or took the name of the process's first socket."""
        return self.runtime.first_pid() != self.process.pid

    def is_outdated(self) -> bool:
        """Return whether another HAProxy was installed since the process was started."""
        now = self._host.launcher.identity()
        return bool(now) and bool(self.program) and now != self.program

    def observe(
        self, assumed: config.Config, told: changes.RuntimeChanges | None = None
    ) -> config.Config:
        """Return `assumed` as the process has it now, after it was `told`. Raises: Transient."""
        place = self.artifacts.place
        commands = changes.commands(told) if told is not None else []
        if told is not None and told.beyond_commands():
            # A change of limits, too: HAProxy 2.6 says nothing more on that connection, seen.
            self._tell(commands, told)
            commands = []
        settled = place.settled if assumed.remembers() else None
        seen = replace(
            self.runtime.look(commands, place.ranges, settled),
            routes={
                one.name: self.runtime.routes(place.routes(one))
                for one in assumed.frontends
                if one.routes
            },
            fingerprints={
                one.name: self.runtime.fingerprint(place.certificate(one.name))
                for one in assumed.certificates
            },
        )
        return changes.observed(assumed, seen)

    def tell(self, wanted: changes.RuntimeChanges) -> None:
        """Tell the process to change. Raises: Transient."""
        self._tell(changes.commands(wanted), wanted)

    def _tell(self, commands: list[words.Line], wanted: changes.RuntimeChanges) -> None:
        self.runtime.execute(commands)
        if wanted.source_ranges is not None:
            self.runtime.replace_networks(self.artifacts.place.ranges, wanted.source_ranges)
        for frontend in wanted.routes:
            self.runtime.replace_routes(self.artifacts.place.routes(frontend), frontend.routes)
        for one in wanted.certificates:
            assert one.pem is not None, one.name
            self.runtime.replace_certificate(self.artifacts.place.certificate(one.name), one.pem)
        if wanted.settle:
            self.runtime.replace_networks(self.artifacts.place.settled, rendering.EVERYBODY)

    def inherit(self, before: Generation, was: config.Config, wanted: config.Config) -> None:
        """Remember the clients that `before`, which accepts no more, remembers; then settle.

        Raises: Transient, OSError.
        """
        try:
            told: list[runtime.Command] = []
            had = affinity.server_ids(before.runtime.server_rows())
            has = affinity.server_ids(self.runtime.server_rows())
            for old, new in affinity.pairs(was, wanted):
                told += affinity.commands(old, new, before.runtime.remembered(old), had, has)
            self.runtime.execute(told)
        finally:
            self.tell(changes.RuntimeChanges(settle=True))
        self.artifacts.write(wanted)

    def stop_accepting(self, deadline: float) -> None:
        """Close the listening sockets; connections live on until `deadline` at the latest.

        Raises: Transient.
        """
        self.deadline = deadline
        names = self.runtime.frontends()
        self.runtime.execute([words.line("shutdown", "frontend", name) for name in names])

    def idle(self) -> bool:
        """Return whether no connection is left."""
        try:
            return self.runtime.sessions() == 0
        except errors.Transient:
            return not self.process.alive()

    def finish(self) -> bool:
        """Cut what connections are left, so that all are counted; False if that is not known.

        HAProxy counts a living connection every few seconds only.
        """
        if not self.process.alive():
            return False
        never = Event()
        try:
            if self.runtime.sessions():
                self.stop_accepting(self.deadline)
            for _ in range(FINISH_TURNS):
                living = self.runtime.session_ids()
                if not living:
                    return True
                self.runtime.execute([words.line("shutdown", "session", one) for one in living])
                self._host.clock.wait(never, FINISH_POLL_S)
        except errors.Transient:
            pass
        return False

    def end(self) -> str:
        """End the process now, remove its files, return how it ended."""
        ended = self.end_process()
        self.artifacts.remove()
        return ended

    def end_process(self) -> str:
        """End the process now, leave its files, return how it ended."""
        self.process.end()
        return self.process.close()


def start(
    host: Host,
    lb_id: str,
    number: int,
    wanted: config.Config,
    before: tuple[Generation, config.Config] | None,
) -> Generation:
    """Start a generation and return it when it serves; takes over the sockets of `before`.

    before: the generation that serves now, with its configuration.

    Raises: Permanent or Transient when it doesn't; then nothing of it is left, and `before`
    serves as if nothing had happened.
    """
    artifacts = Artifacts(host, lb_id, number)
    log = artifacts.path("log")
    program = host.launcher.identity()
    take_over = ("-x", _handover(host, lb_id, before[0])) if before else ()
    try:
        artifacts.make_runtime()
        artifacts.write(wanted)
        ips = sorted({ip for ip, _ in wanted.binds()})
        name = artifacts.path("cfg").name
        ours = host.launcher.spawn(lb_id, host.directory(lb_id), name, ips, *take_over)
    except launcher.EndedAtOnce:
        failure = _explain(host, wanted, before, log, hung=False)
        artifacts.remove()
        raise failure from None
    except (OSError, errors.DataPlaneError) as error:
        artifacts.remove()
        raise _not_started(host, error) from error
    started = Generation(host, lb_id, number, ours, program)
    if not _wait_ready(host, started):
        failure = _explain(host, wanted, before, log, hung=ours.alive())
        started.end()
        raise failure
    try:
        if changes.diff(started.observe(wanted), wanted):
            raise errors.Permanent("config_invalid", "HAProxy runs other targets than it was told")
    except errors.DataPlaneError:
        started.end()
        raise
    return started


def find(host: Host, record: state.Record, known: state.ProcessRecord) -> Generation | None:
    """Return the generation that `known` tells of if it still lives."""
    pid = host.door(record.lb_id, known.number).peer_pid()
    if pid is None:
        return None
    # The kernel says who listens on a socket of our private directories. A start time is only
    # compared for the process that was recorded: a full disk may have kept a newer one's away.
    start = known.start if pid == known.pid else None
    ours = process.recognise(pid, start, host.directory(record.lb_id), record.lb_id)
    if ours is None:
        return None
    ours.signal(Signals.SIGCONT)  # a fault may have stopped it in an earlier life of the server
    return Generation(host, record.lb_id, known.number, ours, known.program)


def _handover(host: Host, lb_id: str, before: Generation) -> str:
    """Return the socket over which a generation gives its listening sockets away."""
    lost = host.spare_sockets and before.has_lost_its_socket()
    return spare_socket(before.number) if lost else str(host.socket(lb_id, before.number))


def _not_started(host: Host, error: Exception) -> Exception:
    """Return why no process was made."""
    remedy = host.launcher.missing()
    if isinstance(error, FileNotFoundError) and remedy is not None:
        return errors.Transient("haproxy_missing", remedy)
    return error


def _wait_ready(host: Host, started: Generation) -> bool:
    deadline = host.clock.monotonic() + READY_TIMEOUT_S
    never = Event()  # a stop of the server lets a start finish: it takes milliseconds
    while host.clock.monotonic() < deadline:
        if started.runtime.answers():
            return True
        if not started.process.alive():
            return False
        host.clock.wait(never, POLL_S)
    return False


def _explain(
    host: Host,
    wanted: config.Config,
    before: tuple[Generation, config.Config] | None,
    log: Path,
    *,
    hung: bool,
) -> errors.DataPlaneError:
    """Return why a generation doesn't serve."""
    if hung:
        return errors.Transient("start_timeout", f"HAProxy was not ready in {READY_TIMEOUT_S:g} s")
    if before is not None and not before[0].process.alive():
        return errors.Transient("start_failed", "HAProxy died while its successor started")
    tried = wanted.binds() - (before[1].binds() if before else frozenset())
    ours = frozenset() if host.launcher.own_network else tried
    return diagnosis.explain(ours, log, hidden=(host.root, host.runtime_dir))
