"""Where the processes of load balancers run: beside the server, or each in a place of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from fakecloud.haproxy import process
from fakecloud.supervision import processes


def runtime_name(lb_id: str) -> str:
    """Return a short name for the sockets of a load balancer, whose paths are limited."""
    return hashlib.blake2s(lb_id.encode(), digest_size=5).hexdigest()


class EndedAtOnce(Exception):
    """The process had ended before anybody could hold on to it; its log says why."""


class Launcher(Protocol):
    """Starts HAProxy. `own_network`: its addresses are not this host's."""

    own_network: bool

    def identity(self) -> str:
        """Return what tells the program from one that replaces it; empty if that can't be told."""

    def missing(self) -> str | None:
        """Return what to do when the program is not there; None if it is."""

    def spawn(
        self, lb_id: str, directory: Path, config_file: str, ips: Collection[str], *more: str
    ) -> processes.Process:
        """Start HAProxy in `directory` with what is needed to have `ips`.

        config_file: relative to `directory`; what HAProxy says is appended to a file beside it.
        Raises: OSError, EndedAtOnce, Transient, Permanent.
        """

    def discard(self, lb_id: str) -> None:
        """Leave nothing of a load balancer that has no process any more. Raises: Transient."""

    def sweep(self, root: Path, known: Collection[str]) -> frozenset[str]:
        """End places of load balancers of `root` that are not `known`; return which."""


class Beside:
    """Processes of this host, with this host's addresses."""

    own_network = False

    def __init__(self, program: str) -> None:
        """Run the file `program`."""
        self._program = program

    def identity(self) -> str:
        """Return device, inode and time of the file."""
        return process.identity(self._program)

    def missing(self) -> str | None:
        """Return what to do when the file is not there."""
        return None if self.identity() else f"{self._program} is gone: {process.INSTALL}"

    def spawn(
        self, lb_id: str, directory: Path, config_file: str, ips: Collection[str], *more: str
    ) -> processes.Process:
        """Start HAProxy. Raises: OSError."""
        log = (directory / config_file).with_suffix(".log")
        return process.spawn(self._program, directory, config_file, log, lb_id, *more)

    def discard(self, lb_id: str) -> None:
        """Do nothing: a process leaves nothing."""

    def sweep(self, root: Path, known: Collection[str]) -> frozenset[str]:
        """Return nobody: the data plane itself finds processes of this host."""
        return frozenset()
