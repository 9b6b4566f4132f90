"""The door to relay processes: start one, know it again, and which version of it this is."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import sys
from collections.abc import Iterator
from hashlib import blake2s
from pathlib import Path
from typing import Final

from fakecloud.supervision import processes
from fakecloud.udp import relay

_PACKAGE: Final = Path(__file__).parent
_SOURCES: Final = [
    "clock",
    "handover",
    "networks",
    "orders",
    "passing",
    "relay",
    "sessions",
    "targets",
    "wire",
]  # what it imports
# Isolated from the user's environment and packages: nothing but the standard library and us.
_BOOT: Final = (
    "import sys; sys.path.append(sys.argv[2]);"
    " from fakecloud.udp.relay import main; main(sys.argv[1:])"
)
_FLAGS: Final = ["-I", "-S", "-c", _BOOT]
SPARE_FILES: Final = 1000  # ports, orders and what the interpreter has open


def version() -> str:
    """Return what differs whenever the program of the relay does."""
    digest = blake2s(sys.version.encode(), digest_size=8)
    for name in _SOURCES:
        digest.update((_PACKAGE / f"{name}.py").read_bytes())
    return digest.hexdigest()


def session_budget() -> int:
    """Return how many sessions one relay can hold: each takes a file descriptor."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return 1_000_000
    return max(16, hard - SPARE_FILES)


def spawn(
    directory: Path,
    log: Path,
    marker: str,
    said: tuple[str, str, str],
    control: socket.socket,
    predecessor: socket.socket | None,
) -> processes.Process:
    """Start a relay for the load balancer of `directory`.

    said: version, epoch and user (uid:gid or -). control: bound, it will listen there.
    predecessor: connection to a relay that was told to hand over.
    Raises: OSError when it can't be started.
    """
    takes_over = "yes" if predecessor is not None else "no"
    root = str(_PACKAGE.parent.parent)
    arguments = [sys.executable, *_FLAGS, str(directory), root, *said, takes_over]
    given = [(control, relay.CONTROL)]
    if predecessor is not None:
        given.append((predecessor, relay.PREDECESSOR))
    # Out of the way of the child's numbers, so that none is overwritten before it is copied.
    inherit = [(fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 64), child) for one, child in given]
    try:
        return processes.spawn(arguments, log, marker, inherit)
    finally:
        for ours, _ in inherit:
            os.close(ours)


def recognise(pid: int, directory: Path, marker: str) -> processes.Process | None:
    """Return the process `pid` if it is the relay we started for `marker` in `directory`."""
    return processes.recognise(pid, None, directory, marker, _directory)


def sweep(root: Path) -> Iterator[tuple[int, str]]:
    """Yield pid and directory name of every relay that works in a directory right below `root`."""
    return processes.sweep(root, _directory)


def _directory(arguments: list[bytes]) -> bytes | None:
    """Return the directory argument of a relay that we started."""
    if arguments[1:3] != [b"-I", b"-S"] or len(arguments) < 6 or b"udp.relay" not in arguments[4]:
        return None
    return arguments[5]
