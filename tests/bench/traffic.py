"""Load on loopback from compiled programs, so that the client isn't what is measured.

HTTP comes from wrk; UDP from `udp.c` beside this file, which the C compiler of the machine
builds at the first use.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from tests.bench.peers import Place, program

_SOURCE: Final = Path(__file__).with_name("udp.c")
_GRACE_S: Final = 15.0


class Load(msgspec.Struct, frozen=True):
    """What a run of load came to: how many a second, and how many failed."""

    per_second: float
    failed: int
    done: int
    kinds: str = ""


class Http:
    """A run of wrk: `connections` at once for `seconds`, each request on its own one or not."""

    def __init__(self, place: Place, *, seconds: float, connections: int, short: bool) -> None:
        """Start it. Raises: peers.Missing."""
        command = [program("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{seconds:.0f}s"]
        command += ["--timeout", "5s"]
        if short:
            command += ["-H", "Connection: close"]
        self._process = subprocess.Popen(
            [*command, f"http://{place[0]}:{place[1]}/"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._limit_s = seconds + _GRACE_S

    def running(self) -> bool:
        """Say whether it goes on."""
        return self._process.poll() is None

    def result(self) -> Load:
        """Return what it came to, when it has ended."""
        text, _ = self._process.communicate(timeout=self._limit_s)
        rate = re.search(r"Requests/sec: +([\d.]+)", text)
        done = re.search(r"(\d+) requests in", text)
        if rate is None or done is None:
            raise RuntimeError(f"wrk said: {text}")
        errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        failed = sum(int(count) for count in errors.groups()) if errors else 0
        failed += int(refused[1]) if refused else 0
        kinds = errors[0] if errors else ""
        return Load(float(rate[1]), failed, int(done[1]), kinds)


def http(place: Place, *, seconds: float, connections: int, short: bool = False) -> Load:
    """Return what a run of load came to."""
    return Http(place, seconds=seconds, connections=connections, short=short).result()


def udp_program(directory: Path) -> Path:
    """Build the UDP client and echo. Raises: peers.Missing without a C compiler."""
    made = directory / "udp"
    if not made.exists():
        compiler = program("cc", "gcc libc6-dev")
        subprocess.run([compiler, "-O2", "-o", str(made), str(_SOURCE)], check=True)
    return made


@contextlib.contextmanager
def udp_echo(udp: Path, places: list[Place]) -> Iterator[None]:
    """Run the targets: every datagram comes back."""
    made = [subprocess.Popen([str(udp), "echo", ip, str(port)]) for ip, port in places]
    try:
        yield
    finally:
        for process in made:
            process.kill()
            process.wait()


def udp_ping(udp: Path, place: Place, *, sockets: int, seconds: float) -> Load:
    """Return round trips of one datagram at a time on each of `sockets`."""
    command = [str(udp), "ping", place[0], str(place[1]), str(sockets), str(seconds)]
    words = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=seconds + _GRACE_S
    ).stdout.split()
    done, lost = (int(word) for word in words)
    return Load(done / seconds, lost, done)
