"""One HAProxy process of a load balancer, from its files to its end.

A load balancer has one generation that accepts connections and perhaps older ones that only
finish theirs. The next generation takes the listening sockets over from the one before, so no
connection is lost between them.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from signal import Signals
from threading import Event
from typing import Final

from fakecloud import clock, errors, files, processes, pulse
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

READY_TIMEOUT_S: Final = 5.0
POLL_S: Final = 0.001
FINISH_TURNS: Final = 50
FINISH_POLL_S: Final = 0.005
MAX_LOG_BYTES: Final = 256 * 1024
_SECRET: Final = re.compile(r"(?<!\S)(stats socket|crt|password|insecure-password) \S+")


@dataclass(frozen=True, slots=True)
class Host:
    """What all load balancers of a server share; directories are absolute.

    transparent: processes may connect from their clients' addresses.
    """

    root: Path
    runtime_dir: Path
    launcher: launcher.Launcher
    clock: clock.Clock
    connections: int
    run_as: tuple[int, int] | None
    spare_sockets: bool = True
    beat_s: float = pulse.BEAT_S
    transparent: bool = False

    def directory(self, lb_id: str) -> Path:
        """Return where a load balancer keeps its files."""
        return self.root / lb_id

    def meter(self, lb_id: str) -> Path:
        """Return the file of what a load balancer has carried; it outlives the directory."""
        return self.root.parent / "meters" / f"{lb_id}.json"

    def socket(self, lb_id: str, number: int | str) -> Path:
        """Return the stats socket of a generation: short, as sockets' paths are limited."""
        name = launcher.runtime_name(lb_id)
        if self.launcher.own_network:  # a directory for each, as others must not be seen there
            return self.runtime_dir / name / f"g{number}.sock"
        return self.runtime_dir / f"{name}.g{number}.sock"

    def door(self, lb_id: str, number: int) -> runtime.Runtime:
        """Return the runtime interface of a generation."""
        spare = (self.directory(lb_id), _spare_socket(number)) if self.spare_sockets else None
        return runtime.Runtime(str(self.socket(lb_id, number)), spare)


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
        place = self._place
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
            self.runtime.replace_networks(self._place.ranges, wanted.source_ranges)
        for frontend in wanted.routes:
            self.runtime.replace_routes(self._place.routes(frontend), frontend.routes)
        for one in wanted.certificates:
            assert one.pem is not None, one.name
            self.runtime.replace_certificate(self._place.certificate(one.name), one.pem)
        if wanted.settle:
            self.runtime.replace_networks(self._place.settled, rendering.EVERYBODY)

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
        write_files(self._host, self._lb_id, self.number, wanted)

    def write_files(self, wanted: config.Config) -> None:
        """Make the files on disk say `wanted`; bound the log. Raises: OSError."""
        write_files(self._host, self._lb_id, self.number, wanted)
        log = self._path("log")
        if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
            log.write_bytes(b"")

    def configuration(self) -> str:
        """Return the configuration file without what is secret; empty if it is gone."""
        try:
            return _SECRET.sub(r"\1 <redacted>", self._path("cfg").read_text("ascii"))
        except OSError:
            return ""

    def log_tail(self, most: int) -> list[str]:
        """Return the last lines that the process wrote, at most `most`."""
        try:
            text = self._path("log").read_text("utf-8", "replace")
        except OSError:
            return []
        return text.splitlines()[-most:]

    def runs(self, wanted: config.Config | None) -> bool:
        """Return whether the process was started for `wanted`, but for what it can be told."""
        if wanted is None:
            return False
        try:
            text = self._path("cfg").read_text("ascii")
        except OSError:
            return False
        return text == rendering.text(wanted, self._place)

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
        remove_files(self._host, self._lb_id, self.number)
        return ended

    def end_process(self) -> str:
        """End the process now, leave its files, return how it ended."""
        self.process.end()
        return self.process.close()

    @property
    def _place(self) -> rendering.Place:
        return _place(self._host, self._lb_id, self.number)

    def _path(self, suffix: str) -> Path:
        return _path(self._host, self._lb_id, self.number, suffix)


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
    log = _path(host, lb_id, number, "log")
    program = host.launcher.identity()
    take_over = ("-x", _handover(host, lb_id, before[0])) if before else ()
    try:
        _make_runtime(host, lb_id)
        write_files(host, lb_id, number, wanted)
        ips = sorted({ip for ip, _ in wanted.binds()})
        name = _path(host, lb_id, number, "cfg").name
        ours = host.launcher.spawn(lb_id, host.directory(lb_id), name, ips, *take_over)
    except launcher.EndedAtOnce:
        failure = _explain(host, wanted, before, log, hung=False)
        remove_files(host, lb_id, number)
        raise failure from None
    except (OSError, errors.DataPlaneError) as error:
        remove_files(host, lb_id, number)
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


def write_files(host: Host, lb_id: str, number: int, wanted: config.Config) -> None:
    """Write the files of a generation that don't say `wanted` already. Raises: OSError."""
    stage_files(host, lb_id, number, wanted)
    _commit_files(host, lb_id, number)


def stage_files(host: Host, lb_id: str, number: int, wanted: config.Config) -> None:
    """Write beside the files of a generation what they shall say. Raises: OSError."""
    try:
        for name, text in rendering.files(wanted, _place(host, lb_id, number)).items():
            path, content = host.directory(lb_id) / name, text.encode("ascii")
            if _content(path) != content:
                files.stage(path, content)
    except OSError:
        for path in _staged(host, lb_id, number):
            files.drop(path)
        raise


def remove_files(host: Host, lb_id: str, number: int) -> None:
    """Remove everything a generation left on disk."""
    for path in host.directory(lb_id).glob(f"g{number}.*"):
        path.unlink(missing_ok=True)
    host.socket(lb_id, number).unlink(missing_ok=True)


def tidy(host: Host, lb_id: str) -> None:
    """Remove the sockets of a load balancer that nobody listens on.

    A process that starts meanwhile is safe: it names its socket when it listens already.
    """
    pattern = host.socket(lb_id, "*")
    for path in pattern.parent.glob(pattern.name):
        if runtime.Runtime(str(path)).peer_pid() is None:
            path.unlink(missing_ok=True)


def leave(host: Host, lb_id: str) -> None:
    """Remove what was made for the processes of a load balancer. Raises: Transient."""
    host.launcher.discard(lb_id)
    if host.launcher.own_network:
        with contextlib.suppress(OSError):
            host.socket(lb_id, 0).parent.rmdir()


def _commit_files(host: Host, lb_id: str, number: int) -> None:
    """Put what was staged in place, the configuration after what it reads."""
    for path in sorted(_staged(host, lb_id, number), key=lambda path: path.suffix == ".cfg"):
        files.commit(path)


def _staged(host: Host, lb_id: str, number: int) -> list[Path]:
    return files.staged(host.directory(lb_id), f"g{number}.*")


def _place(host: Host, lb_id: str, number: int) -> rendering.Place:
    socket = words.Word(str(host.socket(lb_id, number)))
    spare = words.Word(_spare_socket(number)) if host.spare_sockets else None
    return rendering.Place(socket=socket, number=number, spare=spare, run_as=host.run_as)


def _handover(host: Host, lb_id: str, before: Generation) -> str:
    """Return the socket over which a generation gives its listening sockets away."""
    lost = host.spare_sockets and before.has_lost_its_socket()
    return _spare_socket(before.number) if lost else str(host.socket(lb_id, before.number))


def _spare_socket(number: int) -> str:
    return f"g{number}.sock"


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _not_started(host: Host, error: Exception) -> Exception:
    """Return why no process was made."""
    remedy = host.launcher.missing()
    if isinstance(error, FileNotFoundError) and remedy is not None:
        return errors.Transient("haproxy_missing", remedy)
    return error


def _make_runtime(host: Host, lb_id: str) -> None:
    """Make the directories of the sockets: somebody may have tidied them away. Raises: OSError."""
    host.runtime_dir.mkdir(mode=0o700, exist_ok=True)
    host.socket(lb_id, 0).parent.mkdir(mode=0o700, exist_ok=True)


def _path(host: Host, lb_id: str, number: int, suffix: str) -> Path:
    return host.directory(lb_id) / f"g{number}.{suffix}"


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
