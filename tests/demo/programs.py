"""fakecloud and fakecloud-ccm as their own processes, and what they leave in /proc."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster import processes


class ProgramError(Exception):
    """A program didn't do what it should; names its log."""


class Program:
    """A child process with its log."""

    def __init__(self, name: str, arguments: list[str], log: Path, env: dict[str, str]) -> None:
        """Describe the command; `start` runs it, also again."""
        self.name = name
        self.log = log
        self._command = [str(Path(sys.executable).parent / name), *arguments]
        self._env = os.environ | env
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def start(self, ready: str | None = None, timeout_s: float = 60.0) -> str:
        """Run it; return the line of standard output that contains `ready`, once it is there."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                processes.tied(self._command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if ready else log,
                stderr=log,
                env=self._env,
                start_new_session=True,  # Ctrl-C is for the demo, which ends them in order
            )
        return self._line(ready, timeout_s) if ready else ""

    def _line(self, ready: str, timeout_s: float) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        text = b""
        descriptor = self._process.stdout.fileno()
        while (left := deadline - time.monotonic()) > 0:
            if select.select([descriptor], [], [], left)[0]:
                data = os.read(descriptor, 4096)
                text += data
                for line in text.decode(errors="replace").splitlines():
                    if ready in line:
                        return line
                if not data:
                    break
        self.stop()
        raise ProgramError(f"{self.name} did not become ready: {self.last_words()}")

    def running(self) -> bool:
        """Say whether it runs."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._reap(5.0)

    def stop(self, timeout_s: float = 15.0) -> None:
        """SIGTERM, and SIGKILL after `timeout_s`; nothing if it doesn't run."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._reap(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._reap(5.0)

    def _reap(self, timeout_s: float) -> None:
        assert self._process is not None
        self._process.wait(timeout_s)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def last_words(self) -> str:
        """Return the last line of its log, and where that is."""
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return f"{lines[-1][:300] if lines else 'no output'} (log: {self.log})"


def haproxies(state_dir: Path) -> dict[str, int]:
    """Return the HAProxy processes of a state directory: pid by load balancer id."""
    found = {}
    root = str(state_dir / "lb") + "/"
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        for word in words:
            if word.startswith(root) and "haproxy" in words[0]:
                found[word.removeprefix(root).split("/")[0]] = int(entry.name)
    return found


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def free_pool() -> tuple[str, socket.socket]:
    """Return a loopback range where nobody listens, and the socket that keeps others off it."""
    taken = _listening_networks()
    for octet in range(78, 100):
        if octet in taken:
            continue
        held = socket.socket()
        try:
            held.bind((f"127.{octet}.255.254", 8439))
        except OSError:
            held.close()
            continue
        return f"127.{octet}.0.0/16", held
    raise ProgramError("no free loopback range between 127.78.0.0 and 127.99.255.255")


def _listening_networks() -> set[int]:
    """Return the second octets of the 127.x addresses that somebody listens on."""
    listening = "0A"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    addresses = [bytes.fromhex(row[1].split(":")[0]) for row in rows if row[3] == listening]
    return {address[2] for address in addresses if address[3] == 127}


def end_haproxies(state_dir: Path) -> None:
    """End the HAProxy processes of a state directory, whether its server lives or not."""
    for pid in haproxies(state_dir).values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
