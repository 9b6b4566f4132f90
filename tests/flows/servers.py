"""Servers as processes of their own, so that one can be killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import httpx2

from tests.fakes import postgresql
from tests.flows.conftest import CLOCK, eventually

ROOT = Path(__file__).parent.parent.parent
FAST = {
    "FAKECLOUD_LEASE_S": "1",
    "FAKECLOUD_HEARTBEAT_S": "0.2",
    "FAKECLOUD_HOST_DEAD_S": "1.5",
    "FAKECLOUD_WORKERS": "2",
}


class Process:
    """One `fakecloud serve` (or `work`) with a state directory; lives many times."""

    def __init__(
        self,
        directory: Path,
        runtime: Path,
        database: str,
        *,
        module: str = "fakecloud",
        environment: Mapping[str, str] = FAST,
        **options: str,
    ) -> None:
        self.directory = directory
        self._module = module
        self.command = options.pop("command", "serve")
        self.environment = dict(environment)
        self.prefix: list[str] = []  # runs the rest of the command line, for example elsewhere
        self._token_file = Path(options.pop("token_file", str(directory / "admin.token")))
        self.options = {
            "state-dir": str(directory),
            "runtime-dir": str(runtime),
            "database": database,
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        if self.command == "serve":
            self.options.setdefault("listen", "127.0.0.1:0")
            self.options["token-file"] = str(self._token_file)
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Return when it serves."""
        pairs = ((f"--{name}", value) for name, value in self.options.items())
        words = [word for pair in pairs for word in pair if word]
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log = self.directory / "server.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", self._module, self.command, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=os.environ | self.environment,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("fakecloud "):
            with self._process as refused:  # its output ends a moment before the process does
                refused.kill()
            self._process = None
            raise AssertionError(self.log.read_text()[-3000:])
        if self.command == "serve":
            self.http = httpx2.Client(
                base_url=line.split()[-1],
                headers={"authorization": f"Bearer {self._token_file.read_text().strip()}"},
                timeout=20,
            )

    @property
    def pid(self) -> int:
        """Return its process id."""
        assert self._process is not None
        return self._process.pid

    def died(self, seconds: float = 10.0) -> int:
        """Wait until it has ended by itself; return its exit code."""
        assert self._process is not None
        eventually(lambda: self._process is None or self._process.poll() is not None, seconds)
        code = self._process.returncode
        self._let_go()
        return code

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as the power does, if it runs; its load balancers go on."""
        if self._process is not None:
            assert self._process.poll() is None, f"it had ended: {self._process.poll()}"
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait(10)
            self._let_go()

    def balancers(self) -> set[int]:
        """Return the HAProxy processes of this state directory."""
        found = set()
        for proc in Path("/proc").glob("[0-9]*"):
            try:
                line = (proc / "cmdline").read_bytes().decode()
            except OSError:
                continue
            if f"-C\0{self.directory}/" in line and "haproxy" in line:
                found.add(int(proc.name))
        return found

    def kill_balancers(self) -> None:
        """End its load balancers too, as the machine's end does."""
        for pid in self.balancers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _let_go(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        if self.command == "serve":
            self.http.close()

    def request(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """Send a request."""
        return self.http.request(method, path, **more)

    def status(self, name: str) -> dict[str, Any]:
        """Return the status of a load balancer, empty if there is none."""
        answer = self.request("GET", f"/v1/load-balancers/{name}")
        found: dict[str, Any] = answer.json().get("status", {}) if answer.is_success else {}
        return found

    def broken(self) -> list[Any]:
        """Return the invariants that don't hold."""
        answer = self.request("POST", "/v1/admin:check")
        assert answer.is_success, answer.text
        found: list[Any] = answer.json()["violations"]
        return found


@contextmanager
def databases(kind: str, directory: Path) -> Iterator[str]:
    """Give the URL of an empty database."""
    if kind == "sqlite":
        yield f"sqlite:///{directory}/cloud.db"
        return
    with postgresql.running() as server:
        yield server.database()


def reaches(ip: str, port: int) -> bool:
    """Say whether something behind the address and port says anything."""
    try:
        with socket.create_connection((ip, port), timeout=1) as connection:
            return bool(connection.recv(64))
    except OSError:
        return False


def pause(seconds: float) -> None:
    """Let time pass."""
    CLOCK.wait(Event(), seconds)
