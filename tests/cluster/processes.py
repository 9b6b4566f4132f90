"""Child processes that can't outlive their parent, and directories that are swept after a crash."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from tests.cluster import errors

_LOCK = "owner.lock"
_STOP_TIMEOUT_S = 10.0
_YOUNG_S = 60.0
_LAST_LINES = 8

# Runs between fork and the command: a death signal for the case that the parent is killed, unless
# the parent is dead already. A small program of its own because preexec_fn may deadlock with threads.
_LAUNCHER = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"
    "if os.getppid() != int(sys.argv[1]): sys.exit('parent is gone')\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


class Child:
    """One running command: its name, process and log file."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def pid(self) -> int:
        """The process ID, which is also the ID of its process group and session."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self._process.poll()

    def last_lines(self) -> str:
        """Return the end of its log, for an error message."""
        try:
            text = self.log.read_text(errors="replace")
        except OSError as error:
            return f"(no log: {error})"
        return "\n".join(text.splitlines()[-_LAST_LINES:])

    def stop(self) -> None:
        """Kill its process group at once and reap it: nothing of its state is kept."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self._process.kill()
        self._process.wait(_STOP_TIMEOUT_S)


class Children:
    """Starts commands, each in its own session, that die when this process or object does.

    PR_SET_PDEATHSIG fires when the *thread* that started the child ends, so one thread that lives
    as long as this object starts them all: callers may come from short-lived threads.
    """

    def __init__(self) -> None:
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="cluster-children")
        self._children: list[Child] = []

    def start(self, name: str, command: Sequence[str], log: Path) -> Child:
        """Start `command` (absolute path first) with its output in `log`."""
        child = self._starter.submit(_spawn, name, command, log).result()
        self._children.append(child)
        return child

    def stop_all(self) -> None:
        """Stop every child; the object can start others afterwards."""
        while self._children:
            self._children.pop().stop()

    def close(self) -> None:
        """Stop every child and the thread that started them."""
        self.stop_all()
        self._starter.shutdown()


def tied(command: Sequence[str]) -> list[str]:
    """Return `command` (an absolute path first) made to die with the thread that starts it."""
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]


def _spawn(name: str, command: Sequence[str], log: Path) -> Child:
    with log.open("ab") as output:
        process = subprocess.Popen(
            tied(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=log.parent,
        )
    return Child(name, process, log)


class OwnedDirectory:
    """A directory that belongs to this process: locked while it lives, swept once it is dead."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        prefix: str = "fakecloud-cluster",
        before_removal: Callable[[Path], None] = lambda path: None,
    ) -> None:
        """Use `path` (made if missing; kept at the end), or a new temporary one (removed).

        before_removal: called with the directory of a dead owner before it is swept.
        Raises: ClusterError if another process owns `path`, or it can't be written.
        """
        self.temporary = path is None
        stem = f"{prefix}-{os.getuid()}-"
        try:
            if path is None:
                _sweep(Path(tempfile.gettempdir()), stem, before_removal)
                path = Path(tempfile.mkdtemp(prefix=stem))
            path = path.resolve()
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _take(path)
        except OSError as error:
            raise errors.ClusterError(f"cannot use the directory {path}: {error}") from error
        self.path = path

    def close(self, *, keep: bool = False) -> None:
        """Release it; a temporary one is removed unless `keep` (the next start sweeps it then)."""
        if self.temporary and not keep:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _take(path: Path) -> IO[str]:
    """Lock `path` for this process. The lock file appears locked: no sweeper gets in between."""
    place = path / _LOCK
    if place.exists() and not _is_free(place):
        raise errors.ClusterError(f"{path} is used by another cluster: choose another directory")
    handle, name = tempfile.mkstemp(dir=path, prefix=_LOCK)
    lock = os.fdopen(handle, "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    Path(name).rename(place)
    return lock


def _is_free(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _sweep(parent: Path, stem: str, before_removal: Callable[[Path], None]) -> None:
    """Remove the directories below `parent` whose owner is dead."""
    for path in parent.glob(f"{stem}*"):
        lock = path / _LOCK
        try:
            if lock.exists():
                dead = _is_free(lock)
            else:  # just being made, or its owner died before it took the lock
                dead = time.time() - path.stat().st_mtime > _YOUNG_S
        except OSError:
            continue
        if dead:
            before_removal(path)
            shutil.rmtree(path, ignore_errors=True)


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Return `count` different TCP ports that are free on `address` right now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((address, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
