"""Process 1 of the container: keeps the server running and its load balancers untouched.

    python -m fakecloud.container COMMAND [ARGUMENT…]    run COMMAND, restart it when it crashes
    python -m fakecloud.container --health               exit 0 when the server is ready, else 1

HAProxy processes outlive the server that started them and become children of process 1: they are
reaped here when they end, and stopped here, after the server, when the container is stopped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Final

from fakecloud.clock import Clock, SystemClock

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 10.0
STEADY_S: Final = 30.0  # a server that ran this long starts again at the first pause
SERVER_STOP_S: Final = 6.0
REST_STOP_S: Final = 2.0  # both together below Docker's ten seconds
HEALTH_TIMEOUT_S: Final = 3.0
WRONG_CONFIGURATION: Final = 2

_STOPPING: Final = frozenset({signal.SIGTERM, signal.SIGINT})
_WATCHED: Final = _STOPPING | {signal.SIGCHLD}
_PR_SET_CHILD_SUBREAPER: Final = 36


class Init:
    """Runs one server. All signals of interest are blocked and taken one by one: no handlers."""

    def __init__(self, command: list[str], clock: Clock) -> None:
        self._command = command
        self._clock = clock
        self._server = 0
        self._exit_code: int | None = None

    def run(self) -> int:
        """Return the exit code once the server ended for good or the container is to stop."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        pause = FIRST_PAUSE_S
        while True:
            started = self._clock.monotonic()
            try:
                self._start()
            except OSError as error:
                _say(f"{self._command[0]}: {os.strerror(error.errno or 0)}")
                return WRONG_CONFIGURATION
            if self._wait_for_signal(None) or self._exit_code == 0:
                return self._stop()
            if self._exit_code == WRONG_CONFIGURATION and not children():
                return WRONG_CONFIGURATION  # it has said why; nothing is served that could be lost
            if self._clock.monotonic() - started >= STEADY_S:
                pause = FIRST_PAUSE_S
            _say(f"server ended with {self._exit_code}; load balancers go on, restart in {pause} s")
            if self._wait_for_signal(pause):
                return self._stop()
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _start(self) -> None:
        """Start the server with no signal blocked."""
        self._exit_code = None
        self._server = os.posix_spawnp(self._command[0], self._command, os.environ, setsigmask=[])

    def _wait_for_signal(self, seconds: float | None) -> bool:
        """Reap until told to stop (True); otherwise until `seconds` passed or the server ended."""
        deadline = None if seconds is None else self._clock.monotonic() + seconds
        while True:
            left = 3600.0 if deadline is None else deadline - self._clock.monotonic()
            if left <= 0:
                return False
            taken = signal.sigtimedwait(_WATCHED, left)
            self._reap()
            if taken is not None and taken.si_signo in _STOPPING:
                return True
            if deadline is None and self._exit_code is not None:
                return False

    def _reap(self) -> None:
        """Collect every child that ended; several ends may have come as one signal."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._server:
                    self._exit_code = os.waitstatus_to_exitcode(status)

    def _stop(self) -> int:
        """Stop the server, then everything it left; return the server's exit code."""
        if self._exit_code is None:
            self._end([self._server], SERVER_STOP_S)
        self._end(children(), REST_STOP_S)
        return max(self._exit_code or 0, 0)

    def _end(self, pids: list[int], seconds: float) -> None:
        """Ask `pids` to end, kill those that haven't after `seconds`."""
        deadline = self._clock.monotonic() + seconds
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            while (pids := [p for p in pids if p in children()]) and (
                (left := deadline - self._clock.monotonic()) > 0
            ):
                signal.sigtimedwait({signal.SIGCHLD}, left)
                self._reap()
            deadline = self._clock.monotonic() + 1


def children() -> list[int]:
    """Return the process ids of this process's children that haven't ended."""
    me, found = os.getpid(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # After the name in parentheses: state, parent.
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == me and state != "Z":
                found.append(int(entry.name))
    return found


def healthy() -> bool:
    """Return whether the server of this container says it is ready.

    Where it listens is read from FAKECLOUD_LISTEN and FAKECLOUD_TLS_CERT, as the server does.
    """
    import http.client
    import ssl

    port = int(os.environ.get("FAKECLOUD_LISTEN", "127.0.0.1:8440").rpartition(":")[2])
    if os.environ.get("FAKECLOUD_TLS_CERT"):
        # Asks its own process for a yes or no; the certificate names the host outside, not this.
        context = ssl._create_unverified_context()
        door: http.client.HTTPConnection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=HEALTH_TIMEOUT_S, context=context
        )
    else:
        door = http.client.HTTPConnection("127.0.0.1", port, timeout=HEALTH_TIMEOUT_S)
    try:
        door.request("GET", "/readyz")
        return door.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        door.close()


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit code."""
    if arguments == ["--health"]:
        return 0 if healthy() else 1
    if not arguments:
        _say("usage: python -m fakecloud.container COMMAND [ARGUMENT…] | --health")
        return WRONG_CONFIGURATION
    if os.getpid() != 1:
        # Below another init (docker run --init): orphans still come to this process.
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return Init(arguments, SystemClock()).run()


def _say(line: str) -> None:
    sys.stderr.write(f"fakecloud container: {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
