"""One relay process of a load balancer, from its start to its end."""

from __future__ import annotations

import hashlib
import re
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final

from fakecloud import clock, errors
from fakecloud.supervision import processes
from fakecloud.udp import control, process

READY_TIMEOUT_S: Final = 5.0
POLL_S: Final = 0.001
MAX_LOG_BYTES: Final = 256 * 1024
MAX_MESSAGE: Final = 500
_NUMBER: Final = re.compile(r"\.u(\d+)\.sock$")


@dataclass(frozen=True, slots=True)
class Host:
    """What all relays of a server share; directories are absolute."""

    root: Path
    runtime_dir: Path
    meters: Path
    clock: clock.Clock
    sessions: int
    version: str
    run_as: tuple[int, int] | None
    beat_s: float

    def directory(self, lb_id: str) -> Path:
        """Return where a load balancer keeps its files."""
        return self.root / lb_id

    def meter(self, lb_id: str) -> Path:
        """Return the file that remembers what a load balancer's relays have carried."""
        return self.meters / f"{lb_id}.json"

    def log(self, lb_id: str) -> Path:
        """Return the file that a load balancer's relays write to."""
        return self.directory(lb_id) / "udp.log"

    def socket(self, lb_id: str, number: int | str) -> Path:
        """Return the control socket of a relay: short, as sockets' paths are limited."""
        name = hashlib.blake2s(lb_id.encode(), digest_size=5).hexdigest()
        return self.runtime_dir / f"{name}.u{number}.sock"

    def sockets(self, lb_id: str) -> list[tuple[int, Path]]:
        """Return the control sockets there are, the newest first."""
        paths = self.runtime_dir.glob(self.socket(lb_id, "*").name)
        numbered = [(int(n[1]), path) for path in paths if (n := _NUMBER.search(path.name))]
        return sorted(numbered, reverse=True)


class Worker:
    """A relay process that answers (or did, until it ended).

    epoch: the number of the first one in its line: a successor goes on with what that has counted.
    """

    def __init__(self, path: Path, number: int, epoch: int, ours: processes.Process) -> None:
        self.number = number
        self.epoch = epoch
        self.process = ours
        self.control = control.Control(str(path))
        self._path = path

    def end(self) -> str:
        """End the process now; return how it ended."""
        self.process.end()
        self._path.unlink(missing_ok=True)
        return self.process.close()


def start(host: Host, lb_id: str, number: int, before: Worker | None) -> Worker:
    """Start a relay and return it when it takes orders; it continues what `before` did.

    Raises: Transient when it doesn't; then nothing of it is left, and `before` goes on.
    """
    path = host.socket(lb_id, number)
    path.unlink(missing_ok=True)
    shorten(host.log(lb_id))
    user = "-" if host.run_as is None else f"{host.run_as[0]}:{host.run_as[1]}"
    epoch = number if before is None else before.epoch
    said = (host.version, str(epoch), user)
    try:
        predecessor = before.control.hand_over() if before is not None else None
        try:
            with closing(control.listening(str(path))) as socket:
                path.chmod(0o600)
                arguments = host.directory(lb_id), host.log(lb_id), lb_id, said, socket, predecessor
                ours = process.spawn(*arguments)
        finally:
            if predecessor is not None:
                predecessor.close()
    except OSError as error:
        path.unlink(missing_ok=True)
        message = f"the UDP relay can't be started: {error.strerror}"
        raise errors.Transient("start_failed", message) from error
    started = Worker(path, number, epoch, ours)
    if not _wait_ready(host, started):
        hung = ours.alive()
        started.end()
        reason = f"not ready in {READY_TIMEOUT_S:g} s" if hung else _last_words(host, lb_id)
        raise errors.Transient("start_failed", f"the UDP relay did not start: {reason}")
    return started


def find(host: Host, lb_id: str, number: int, path: Path) -> Worker | None:
    """Return the relay that listens on `path` if it is ours and answers; otherwise end it."""
    pid = control.Control(str(path)).peer_pid()
    ours = None if pid is None else process.recognise(pid, host.directory(lb_id), lb_id)
    if ours is None:
        path.unlink(missing_ok=True)
        return None
    hello = control.Control(str(path)).hello()
    found = Worker(path, number, hello.epoch if hello else 0, ours)
    if hello is None:
        found.end()
        return None
    return found


def log_tail(path: Path, most: int) -> list[str]:
    """Return the last lines that relays wrote, at most `most`."""
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        return []
    return text.splitlines()[-most:]


def shorten(log: Path) -> None:
    """Empty a log that has grown too long."""
    with suppress(OSError):
        if log.stat().st_size > MAX_LOG_BYTES:
            log.write_bytes(b"")


def _wait_ready(host: Host, started: Worker) -> bool:
    deadline = host.clock.monotonic() + READY_TIMEOUT_S
    never = Event()  # a stop of the server lets a start finish: it takes milliseconds
    while host.clock.monotonic() < deadline:
        if started.control.hello() is not None:
            return True
        if not started.process.alive():
            return False
        host.clock.wait(never, POLL_S)
    return False


def _last_words(host: Host, lb_id: str) -> str:
    """Return what it complained of, without the paths of this machine."""
    said = (log_tail(host.log(lb_id), 1) or ["it ended without a word"])[0]
    return said.replace(str(host.root), "").replace(str(host.runtime_dir), "")[:MAX_MESSAGE]
