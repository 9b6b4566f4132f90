"""What a generation has on disk: the files that it reads, its log and its sockets."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Final

from fakecloud import files
from fakecloud.haproxy import config, rendering, runtime, words
from fakecloud.haproxy.host import Host, spare_socket

MAX_LOG_BYTES: Final = 256 * 1024
_SECRET: Final = re.compile(r"(?<!\S)(stats socket|crt|password|insecure-password) \S+")


class Artifacts:
    """Of one generation of a load balancer; nothing of it has to be there."""

    def __init__(self, host: Host, lb_id: str, number: int) -> None:
        """Know the names."""
        self._host = host
        self._lb_id = lb_id
        self._number = number
        self._directory = host.directory(lb_id)

    @property
    def place(self) -> rendering.Place:
        """Return what the generation's configuration has of its own."""
        spare = words.Word(spare_socket(self._number)) if self._host.spare_sockets else None
        socket = words.Word(str(self._host.socket(self._lb_id, self._number)))
        return rendering.Place(
            socket=socket, number=self._number, spare=spare, run_as=self._host.run_as
        )

    def path(self, suffix: str) -> Path:
        """Return a file: "cfg", "log" and what the configuration names."""
        return self._directory / f"g{self._number}.{suffix}"

    def make_runtime(self) -> None:
        """Make the directories of the sockets: they may have been tidied away. Raises: OSError."""
        self._host.runtime_dir.mkdir(mode=0o700, exist_ok=True)
        self._host.socket(self._lb_id, 0).parent.mkdir(mode=0o700, exist_ok=True)

    def write(self, wanted: config.Config) -> None:
        """Write the files that don't say `wanted` already; bound the log. Raises: OSError."""
        # The configuration after what it reads.
        for path in sorted(self._stage(wanted), key=lambda path: path.suffix == ".cfg"):
            files.commit(path)
        log = self.path("log")
        if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
            log.write_bytes(b"")

    def say(self, wanted: config.Config) -> bool:
        """Return whether the configuration is that of `wanted`, but for what can be told."""
        try:
            return self.path("cfg").read_text("ascii") == rendering.text(wanted, self.place)
        except OSError:
            return False

    def configuration(self) -> str:
        """Return the configuration file without what is secret; empty if it is gone."""
        try:
            return _SECRET.sub(r"\1 <redacted>", self.path("cfg").read_text("ascii"))
        except OSError:
            return ""

    def log_tail(self, most: int) -> list[str]:
        """Return the last lines that the process wrote, at most `most`."""
        try:
            text = self.path("log").read_text("utf-8", "replace")
        except OSError:
            return []
        return text.splitlines()[-most:]

    def remove(self) -> None:
        """Remove everything."""
        for path in self._directory.glob(f"g{self._number}.*"):
            path.unlink(missing_ok=True)
        self._host.socket(self._lb_id, self._number).unlink(missing_ok=True)

    def _stage(self, wanted: config.Config) -> list[Path]:
        """Write beside the files that say something else what they shall say; return those."""
        staged: list[Path] = []
        try:
            for name, text in rendering.files(wanted, self.place).items():
                path, content = self._directory / name, text.encode("ascii")
                if _content(path) != content:
                    files.stage(path, content)
                    staged.append(path)
        except OSError:
            for path in staged:
                files.drop(path)
            raise
        return staged


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


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
