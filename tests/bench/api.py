"""`python -m tests.bench.api`: the API against an empty handler, watches, memory, crashes.

A table for people, and as the last line one JSON object for machines.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

from tests.bench import api_crashes, api_server, api_watch, load, memory
from tests.demo.screen import Screen
from tests.fakes import postgresql

STORED = 10_000
CONNECTIONS = 16
SECONDS = 3.0
PUT_SECONDS = 5.0
SETTLE_S = 180.0
WATCHERS = 100
EVENTS = 10_000
EVENTS_PER_S = 250.0
_FIELDS = "name,status.state,status.addresses"
_AIMS = {
    "reads_vs_empty": ">= 0.5",
    "puts_vs_empty_sqlite": ">= 0.1",
    "puts_vs_empty_postgresql": ">= 0.1",
    "watch_lost": f"0 of {EVENTS} events x {WATCHERS} watchers",
    "watch_p99_ms_sqlite": "< 50",
    "watch_p99_ms_postgresql": "< 150",
    "list_10k_ms": "<= 300",
    "rss_10k_mb": "<= 200",
    "crash_cells_held": "all",
}


class Server:
    """A server with `STORED` load balancers, in a process of its own."""

    def __init__(self, directory: Path, database: str) -> None:
        self._log = (directory / "server.log").open("ab")
        state = directory / "state"
        command = [sys.executable, "-m", "tests.bench.api_server", str(state), database]
        self._process = subprocess.Popen(
            [*command, str(STORED)], stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        while line and "ready" not in line:
            line = self._process.stdout.readline()
        if not line:
            raise SystemExit((directory / "server.log").read_text()[-3000:])
        self.url = line.split()[-1]
        self.token = (state / "admin.token").read_text().strip()
        self.pid = self._process.pid

    def rate(self, requests: Iterator[bytes], seconds: float = SECONDS) -> load.Result:
        """Return how it answers `requests`. Raises: RuntimeError when it refuses one."""
        result = uvloop.run(load.run(self.url, requests, connections=CONNECTIONS, seconds=seconds))
        if not set(result.statuses) <= {200, 201, 202}:
            raise RuntimeError(f"the server answered {result.statuses}")
        return result

    def empty(self) -> load.Result:
        """Return how it answers with nothing to do."""
        return self.rate(itertools.repeat(load.request("GET", "/bench/empty", self.token)))

    def reads(self) -> Iterator[bytes]:
        """Yield reads of any of the load balancers."""
        while True:
            name = f"lb-{random.randrange(STORED)}"
            yield load.request("GET", f"/v1/load-balancers/{name}", self.token)

    def puts(self) -> Iterator[bytes]:
        """Yield PUTs that each make another load balancer."""
        for n in itertools.count():
            body = {"labels": api_server.labels(n), "spec": api_server.spec()}
            path = f"/v1/load-balancers/new-{n}"
            yield load.request("PUT", path, self.token, json.dumps(body).encode())

    def converged(self) -> int:
        """Return how often a worker has brought a load balancer a step further, here to its end."""
        request = urllib.request.Request(
            f"{self.url}/metrics", headers={"authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            found = re.search(rb"^fakecloud_provisioner_steps_total (\S+)", answer.read(), re.M)
        assert found is not None
        return int(float(found[1]))

    def settle(self, converged: int) -> float:
        """Wait until so many have converged; return the seconds. Raises: RuntimeError."""
        began = time.monotonic()
        while self.converged() < converged:
            if time.monotonic() - began > SETTLE_S:
                raise RuntimeError(f"after {SETTLE_S:.0f} s not all load balancers are ACTIVE")
            time.sleep(0.2)
        return time.monotonic() - began

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()


def main() -> int:
    """Measure everything; print a table and one line of JSON."""
    screen = Screen()
    screen.act(f"The API with {STORED} load balancers, data plane off, {CONNECTIONS} connections")
    figures: dict[str, float] = {"watch_lost": 0}
    with tempfile.TemporaryDirectory(prefix="fakecloud-bench-") as name:
        for kind in ("sqlite", "postgresql"):
            if kind == "postgresql" and postgresql.binaries() is None:
                screen.failure(postgresql.MISSING)
                return 1
            directory = Path(name) / kind
            directory.mkdir()
            with contextlib.ExitStack() as stack:
                server = Server(directory, _database(kind, directory, stack))
                stack.callback(server.stop)
                _measure(screen, server, kind, figures)
    screen.act("A server killed at each point of each operation")
    cells = api_crashes.run(screen.line)
    figures |= {"crash_cells": len(cells), "crash_cells_held": sum(cells.values())}
    _crash_table(screen, cells)
    rounded = {key: round(value, 3) for key, value in figures.items()}
    screen.act("All figures")
    rows = [[key, f"{value:g}", _AIMS.get(key, "")] for key, value in rounded.items()]
    screen.table(["figure", "value", "aim"], rows, {1})
    print(json.dumps(rounded), flush=True)
    return 0


def _database(kind: str, directory: Path, stack: contextlib.ExitStack) -> str:
    if kind == "sqlite":
        return f"sqlite:///{directory}/cloud.db"
    return stack.enter_context(postgresql.running(durable=True)).database()


def _measure(screen: Screen, server: Server, kind: str, figures: dict[str, float]) -> None:
    """Add the figures of one database."""
    empty = server.empty()
    _say(screen, kind, "empty handler", empty)
    if kind == "sqlite":
        reads = server.rate(server.reads())
        _say(screen, kind, "reads", reads)
        figures["reads_vs_empty"] = reads.per_second / empty.per_second
        figures["reads_p99_ms"] = reads.p99_ms
        figures["list_10k_ms"] = min(_list_ms(server) for _ in range(3))
        figures["rss_10k_mb"] = memory.rss_mb(server.pid)
    lost, p99_ms = uvloop.run(
        api_watch.run(
            server.url,
            server.token,
            watchers=WATCHERS,
            events=EVENTS,
            per_second=EVENTS_PER_S,
        )
    )
    screen.line(f"{kind}: {EVENTS} events to {WATCHERS} watchers: {lost} lost, p99 {p99_ms:.1f} ms")
    figures["watch_lost"] += lost
    figures[f"watch_p99_ms_{kind}"] = p99_ms
    before = server.converged()
    puts = server.rate(server.puts(), PUT_SECONDS)
    meanwhile = server.converged() - before
    _say(screen, kind, "new load balancers accepted (PUT, 201, on the disk)", puts)
    figures[f"puts_vs_empty_{kind}"] = puts.per_second / empty.per_second
    rest_s = server.settle(before + sum(puts.statuses.values()))
    screen.line(
        f"{kind}: meanwhile {meanwhile / PUT_SECONDS:.0f}/s of them became ACTIVE, "
        f"the rest within {rest_s:.0f} s"
    )


def _say(screen: Screen, kind: str, what: str, result: load.Result) -> None:
    p50_ms = load.percentile(result.seconds, 0.5) * 1000
    screen.line(
        f"{kind}: {what} {result.per_second:.0f}/s, p50 {p50_ms:.1f} ms, p99 {result.p99_ms:.1f} ms"
    )


def _list_ms(server: Server) -> float:
    """Return how long it takes to list everything, page by page."""
    place = urlsplit(server.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port)
    began, token, listed = time.perf_counter(), "", 0
    while token is not None:
        path = f"/v1/load-balancers?page_size=1000&fields={_FIELDS}"
        path += f"&page_token={token}" if token else ""
        connection.request("GET", path, headers={"authorization": f"Bearer {server.token}"})
        page: dict[str, Any] = json.loads(connection.getresponse().read())
        token, listed = page["next_page_token"], listed + len(page["items"])
    took_ms = (time.perf_counter() - began) * 1000
    connection.close()
    assert listed == STORED, listed
    return took_ms


def _crash_table(screen: Screen, cells: dict[tuple[str, str, str], bool]) -> None:
    points = list(dict.fromkeys(point for _, _, point in cells))
    rows = [
        [kind, operation, *("held" if cells[kind, operation, p] else "BROKEN" for p in points)]
        for kind, operation in dict.fromkeys((kind, operation) for kind, operation, _ in cells)
    ]
    screen.table(["database", "operation", *points], rows, set())


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
