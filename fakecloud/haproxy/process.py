"""The door to HAProxy's program: find it, start it, know its processes again."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fakecloud import errors
from fakecloud.supervision import processes

OLDEST: Final = (2, 6)
INSTALL: Final = "install it (Debian, Ubuntu: apt-get install haproxy) or name it with --haproxy"
SPARE_FILES: Final = 200  # listeners, the stats socket, logs and what HAProxy reserves for itself


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


def program_version(program: str) -> tuple[int, int]:
    """Return major and minor version of a usable HAProxy; (0, 0) when it is gone."""
    try:
        told = subprocess.run(  # noqa: S603 - found at the start, no shell
            [program, "-v"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    return parse_version(told.stdout) or (0, 0)


def identity(program: str) -> str:
    """Return what tells this file from one that replaces it; empty while there is none."""
    try:
        seen = os.stat(program)
    except OSError:
        return ""
    return f"{seen.st_dev}:{seen.st_ino}:{seen.st_mtime_ns}"


def parse_version(text: str) -> tuple[int, int] | None:
    """Return major and minor version from the output of `haproxy -v`."""
    found = re.match(r"HA-?Proxy version (\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def connection_budget() -> int:
    """Return how many connections one HAProxy can hold: each takes two file descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return 1_000_000
    return max(16, (hard - SPARE_FILES) // 2)


def spawn(
    program: str, directory: Path, config_file: str, log: Path, marker: str, *more: str
) -> processes.Process:
    """Start HAProxy in `directory`; output is appended to `log`.

    config_file: relative to `directory`. Raises: OSError when the program can't be started.
    """
    arguments = [program, "-db", "-C", str(directory), "-f", config_file, *more]
    return processes.spawn(arguments, log, marker)


def recognise(
    pid: int, start: int | None, directory: Path, marker: str
) -> processes.Process | None:
    """Return the process `pid` if it is the HAProxy we started for `marker` in `directory`.

    start: its recorded start time in clock ticks since boot; None when none was recorded.
    """
    return processes.recognise(pid, start, directory, marker, _directory)


def sweep(root: Path) -> Iterator[tuple[int, str]]:
    """Yield pid and directory name of every HAProxy that runs in a directory right below `root`."""
    return processes.sweep(root, _directory)


def _directory(arguments: list[bytes]) -> bytes | None:
    """Return the directory argument of an HAProxy that we started."""
    if arguments[1:3] != [b"-db", b"-C"] or len(arguments) < 4:
        return None
    return arguments[3]
