"""The door to processes: start HAProxy, know it again later, end it, learn that it ended.

A process is known by its pid and its start time; a pidfd then keeps the name from being reused,
so a signal never meets a stranger. Processes outlive the server that started them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import resource
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from fakecloud import errors

MARKER: Final = "FAKECLOUD_LB"
OLDEST: Final = (2, 6)
INSTALL: Final = "install it (Debian, Ubuntu: apt-get install haproxy) or name it with --haproxy"
SPARE_FILES: Final = 200  # listeners, the stats socket, logs and what HAProxy reserves for itself


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


def find_program(name: str) -> str:
    """Return the path of a usable HAProxy.

    Raises: StartError when there is none, or one older than 2.6; says how to get one.
    """
    # Debian puts it in a directory that is not on an ordinary user's PATH.
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    path = shutil.which(name, path=search)
    if path is None:
        raise errors.StartError(f"HAProxy not found as {name!r}: {INSTALL}")
    try:
        told = subprocess.run(  # noqa: S603 - the operator's own program, no shell
            [path, "-v"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise errors.StartError(f"{path} does not run ({error}): {INSTALL}") from error
    version = parse_version(told.stdout)
    if version is None:
        raise errors.StartError(f"{path} is not HAProxy: {INSTALL}")
    if version < OLDEST:
        text = ".".join(map(str, version))
        raise errors.StartError(f"{path} is HAProxy {text}, at least 2.6 is needed: {INSTALL}")
    return path


def parse_version(text: str) -> tuple[int, int] | None:
    """Return major and minor version from the output of `haproxy -v`."""
    found = re.match(r"HA-?Proxy version (\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


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


def connection_budget() -> int:
    """Return how many connections one HAProxy can hold: each takes two file descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return 1_000_000
    return max(16, (hard - SPARE_FILES) // 2)


def spawn(
    program: str, directory: Path, config_file: str, log: Path, marker: str, *more: str
) -> Process:
    """Start HAProxy in `directory`, in a session of its own with nearly no environment.

    config_file: relative to `directory`. Output is appended to `log`.
    Raises: OSError when the program can't be started.
    """
    arguments = [program, "-db", "-C", str(directory), "-f", config_file, *more]
    pid = os.posix_spawn(
        program,
        arguments,
        {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", MARKER: marker},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 2, 1),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores them, children inherit that
    )
    pidfd = os.pidfd_open(pid)  # our child: its number can't be reused before we reap it
    return Process(pid, _start_time(pid) or 0, pidfd)


def recognise(pid: int, start: int | None, directory: Path, marker: str) -> Process | None:
    """Return the process `pid` if it is the HAProxy we started for `marker` in `directory`.

    start: its recorded start time in clock ticks since boot; None when none was recorded.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    process = Process(pid, _start_time(pid) or 0, pidfd)
    # The pidfd is older than these looks: what they see is the process that it names.
    ours = process.alive() and start in (None, process.start) and _is_ours(pid, directory, marker)
    if not ours:
        os.close(pidfd)
        return None
    return process


def sweep(root: Path) -> Iterator[tuple[int, str]]:
    """Yield pid and directory name of every HAProxy that runs in a directory right below `root`.

    A process in a container below us may use the same path and mean another directory: skipped.
    """
    for pid in [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]:
        directory = _directory(pid)
        if directory is not None and directory.parent == root and not _contained(pid):
            yield pid, directory.name


def _is_ours(pid: int, directory: Path, marker: str) -> bool:
    if _directory(pid) != directory:
        return False
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return True  # it dropped to another user; its command line and start time have spoken
    return f"{MARKER}={marker}".encode() in environment.split(b"\0")


def _directory(pid: int) -> Path | None:
    """Return the directory argument of an HAProxy that we started."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    if arguments[1:3] != [b"-db", b"-C"] or len(arguments) < 4:
        return None
    return Path(os.fsdecode(arguments[3]))


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
