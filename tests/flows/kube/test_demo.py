"""`make demo` in a terminal: what Ctrl-C and kill -9 leave behind."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakecloud.clock import SystemClock
from tests.demo import programs

pytestmark = [pytest.mark.kube, pytest.mark.haproxy, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[3]


class Terminal:
    """A demo in the foreground of a terminal of its own."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.text = ""
        self._screen, child = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.demo"],
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(tmp), "TERM": "xterm"},
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
        )
        os.close(child)

    def read_until(self, wanted: str, seconds: float) -> None:
        """Return once the screen has shown `wanted`."""
        clock = SystemClock()
        deadline = clock.monotonic() + seconds
        while wanted not in self.text:
            left = deadline - clock.monotonic()
            assert left > 0, f"{wanted!r} not shown within {seconds} s:\n{self.text}"
            if select.select([self._screen], [], [], left)[0]:
                try:
                    self.text += os.read(self._screen, 65536).decode(errors="replace")
                except OSError:  # the terminal is gone with its last process
                    assert wanted in self.text, self.text
                    return

    def haproxies(self) -> dict[str, int]:
        """Return the load balancers of this demo that still run."""
        return {
            lb: pid
            for directory in self.tmp.glob("fakecloud-demo-*")
            for lb, pid in programs.haproxies(directory / "cloud").items()
        }


def runs(pid: int) -> bool:
    """Say whether a process runs; a zombie that nobody reaped yet doesn't."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


@pytest.fixture
def terminal(cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """The cluster fixture is only asked whether the binaries are there."""
    made = Terminal(tmp_path_factory.mktemp("t"))
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.wait()


def test_ctrl_c_removes_everything(terminal: Terminal) -> None:
    terminal.read_until("Ctrl-C removes everything", 90)
    assert terminal.haproxies()
    pids = terminal.haproxies().values()

    os.killpg(terminal.process.pid, signal.SIGINT)  # what a terminal does: the whole group

    terminal.read_until("everything is removed", 60)
    assert terminal.process.wait(30) == 0
    assert "Traceback" not in terminal.text
    assert not re.search(r"FAILED", terminal.text)
    assert [path for path in terminal.tmp.iterdir() if path.name.startswith("fakecloud")] == []
    assert not any(map(runs, pids))


def test_what_a_killed_demo_left_is_swept_by_the_next(terminal: Terminal) -> None:
    terminal.read_until("Ctrl-C removes everything", 90)
    pids = list(terminal.haproxies().values())
    terminal.process.kill()
    terminal.process.wait()
    assert terminal.haproxies()

    after = Terminal(terminal.tmp)
    try:
        after.read_until("Ctrl-C removes everything", 90)
        assert not any(map(runs, pids))
    finally:
        os.killpg(after.process.pid, signal.SIGINT)
        after.process.wait(60)
