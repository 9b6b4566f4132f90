"""The door to processes that outlive the server: start one, know it again later, end it.

A process is known by its pid and its start time; a pidfd then keeps the name from being reused,
so a signal never meets a stranger. Which load balancer it serves stands in its environment, where
it works in its command line.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from fakecloud import errors

MARKER: Final = "FAKECLOUD_LB"
DirectoryOf = Callable[[list[bytes]], bytes | None]
"""Finds the directory that a process of a kind works in, in its command line; None: another kind."""


class Adoption(msgspec.Struct, frozen=True, kw_only=True):
    """What a start found: ids still served, ids being started again, ids that were ended."""

    adopted: frozenset[str] = frozenset()
    restarted: frozenset[str] = frozenset()
    orphans_removed: frozenset[str] = frozenset()


class Process:
    """A living or ended process that this server may signal."""

    def __init__(self, pid: int, start: int, pidfd: int) -> None:
        self.pid = pid
        self.start = start
        self.pidfd = pidfd

    def alive(self) -> bool:
        """Return False once the process has ended, also while nobody has reaped it."""
        return not self.wait(0)

    def wait(self, seconds: float) -> bool:
        """Return whether the process has ended within `seconds`."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(round(seconds * 1000)))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process is gone."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def end(self, patience_s: float = 2.0) -> None:
        """End the process: SIGTERM, after `patience_s` SIGKILL. Returns when it is gone."""
        self.signal(signal.SIGTERM)
        if not self.wait(patience_s):
            self.kill(patience_s)

    def kill(self, patience_s: float = 2.0) -> None:
        """End the process without asking: it doesn't listen. Returns when it is gone."""
        self.signal(signal.SIGKILL)
        self.wait(patience_s)

    def close(self) -> str:
        """Reap the process if it is our child, forget it, return how it ended (for the log)."""
        ended = None
        with contextlib.suppress(ChildProcessError):
            ended = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        os.close(self.pidfd)
        if ended is None:
            return "unknown"
        kind = "exit" if ended.si_code == os.CLD_EXITED else "signal"
        return f"{kind} {ended.si_status}"


def lock(path: Path) -> BinaryIO:
    """Return an open file that nobody else can get this way until it is closed or we end.

    Raises: StartError when another process has it.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise errors.StartError(
            f"another server works in {path.parent}; stop it or choose another --state-dir"
        ) from error
    return file


def spawn(
    arguments: list[str], output: Path, marker: str, inherit: Sequence[tuple[int, int]] = ()
) -> Process:
    """Start a program by its path, in a session of its own with nearly no environment.

    What it says is appended to the file `output`. inherit: open files as (descriptor, descriptor in the child).
    Raises: OSError when the program can't be started.
    """
    pid = os.posix_spawn(
        arguments[0],
        arguments,
        {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", MARKER: marker},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(output), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 2, 1),
            *((os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in inherit),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores them, children inherit that
    )
    pidfd = os.pidfd_open(pid)  # our child: its number can't be reused before we reap it
    return Process(pid, _start_time(pid) or 0, pidfd)


def attach(pid: int) -> Process:
    """Return a living process that somebody else has just started for us.

    Raises: ProcessLookupError.
    """
    pidfd = os.pidfd_open(pid)
    return Process(pid, _start_time(pid) or 0, pidfd)


def recognise(
    pid: int, start: int | None, directory: Path, marker: str, directory_of: DirectoryOf
) -> Process | None:
    """Return the process `pid` if it is the one we started for `marker` in `directory`.

    start: its recorded start time in clock ticks since boot; None when none was recorded.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    process = Process(pid, _start_time(pid) or 0, pidfd)
    # The pidfd is older than these looks: what they see is the process that it names.
    ours = (
        process.alive()
        and start in (None, process.start)
        and _directory(pid, directory_of) == directory
        and _is_marked(pid, marker)
    )
    if not ours:
        os.close(pidfd)
        return None
    return process


def sweep(root: Path, directory_of: DirectoryOf) -> Iterator[tuple[int, str]]:
    """Yield pid and directory name of every process of a kind that works right below `root`.

    A process in a container below us may use the same path and mean another directory: skipped.
    """
    for pid in [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]:
        directory = _directory(pid, directory_of)
        if directory is not None and directory.parent == root and not _contained(pid):
            yield pid, directory.name


def _is_marked(pid: int, marker: str) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return True  # it dropped to another user; its command line and start time have spoken
    return f"{MARKER}={marker}".encode() in environment.split(b"\0")


def _directory(pid: int, directory_of: DirectoryOf) -> Path | None:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    found = directory_of(arguments)
    return None if found is None else Path(os.fsdecode(found))


def _contained(pid: int) -> bool:
    """Return whether the process has a number in a namespace below ours (proc(5), NSpid)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return True
    found = re.search(r"^NSpid:(.*)$", status, re.MULTILINE)
    return found is not None and len(found[1].split()) > 1


def _start_time(pid: int) -> int | None:
    """Return field 22 of /proc/PID/stat: clock ticks since boot."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])
