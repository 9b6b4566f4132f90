"""The whole cloud in this process: real HTTP, real SQLite, real HAProxy."""

from __future__ import annotations

import fcntl
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx2
import pytest
import structlog

from fakecloud import app, serving, settings
from fakecloud.clock import SystemClock

CLOCK = SystemClock()


def eventually(holds: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Return the first true value of `holds`; fail when there is none in time."""
    deadline = CLOCK.monotonic() + seconds
    while True:
        value = holds()
        if value:
            return value
        assert CLOCK.monotonic() < deadline, f"waited {seconds} s in vain; last: {value!r}"
        CLOCK.wait(Event(), 0.01)


class Running:
    """One cloud with one state directory; `start` and `stop` make lives of its server."""

    def __init__(self, directory: Path, runtime: Path, network: str, **options: object) -> None:
        self.directory = directory
        self.network = network
        self._host = str(options.pop("host", "127.0.0.1"))
        self._options = {
            "listen": "127.0.0.1:0",
            "state_dir": directory,
            "runtime_dir": runtime,
            "pool": (f"default=loopback:{network}.0.0/16", f"tiny=loopback:{network}.9.0/30"),
            **options,
        }

    def start(self) -> None:
        """Serve until `stop`, on a free port."""
        self._stack = ExitStack()
        self.app = self._stack.enter_context(app.running(settings.load(**self._options)))
        listener = socket.create_server((self._host, 0))
        self.url = f"http://{self._host}:{listener.getsockname()[1]}"
        hub = self.app.state.cloud.hub
        self._server = serving.server(self.app, hub, max_watches=2000, cert=None, key=None)
        self._thread = Thread(target=self._server.run, args=([listener],))
        self._thread.start()
        eventually(lambda: self._server.started)
        self.token = (self.directory / "admin.token").read_text().strip()
        self.http = httpx2.Client(
            base_url=self.url, headers={"authorization": f"Bearer {self.token}"}, timeout=10
        )

    def stop(self) -> None:
        """End the server as SIGTERM does; load balancers go on running."""
        self.http.close()
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._stack.close()

    def put(self, name: str, document: dict[str, Any], **more: Any) -> httpx2.Response:
        """PUT a load balancer."""
        return self.http.put(f"/v1/load-balancers/{name}", json=document, **more)

    def get(self, name: str) -> dict[str, Any]:
        """Return the document of a load balancer."""
        answer = self.http.get(f"/v1/load-balancers/{name}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def active(self, name: str, document: dict[str, Any]) -> dict[str, Any]:
        """Return the document of a load balancer that serves."""
        answer = self.put(name, document, params={"wait": "20s"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"]["state"] == "ACTIVE"
        found: dict[str, Any] = answer.json()
        return found

    def remove(self, name: str) -> None:
        """Delete a load balancer and wait until it is gone."""
        assert self.http.delete(f"/v1/load-balancers/{name}").status_code in (202, 404)
        eventually(lambda: self.http.get(f"/v1/load-balancers/{name}").status_code == 404)

    def clear(self) -> None:
        """Delete every load balancer."""
        for document in self.http.get("/v1/load-balancers").json()["items"]:
            name = document["name"]  # it may be on its way out, and gone at any moment
            if document["spec"]["deletion_protection"]:
                document["spec"]["deletion_protection"] = False
                self.put(name, document)
            self.http.delete(f"/v1/load-balancers/{name}")
        eventually(lambda: not self.http.get("/v1/load-balancers").json()["items"])


@pytest.fixture(scope="session")
def network() -> Iterator[str]:
    """Two octets of a loopback network that no other test run on this machine has.

    The lock on a file outside any checkout says so, until its process ends, however it does.
    """
    for second in range(130, 230):
        try:
            lock = (Path(tempfile.gettempdir()) / f"fakecloud-127.{second}.lock").open("a")
        except OSError:
            continue  # another user's
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield f"127.{second}"
            return
    raise AssertionError("no free network below 127.0.0.0/8")


@pytest.fixture
def new_cloud(tmp_path, network) -> Iterator[Callable[..., Running]]:
    """Return a function that starts one more cloud; all are emptied and stopped after the test."""
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed; for these tests: apt-get install haproxy")
    with ExitStack() as stack:

        def make(name: str = "state", **options: object) -> Running:
            runtime = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fc-")))
            made = Running(tmp_path / name, runtime, network, **options)
            made.start()
            stack.callback(made.stop)
            stack.callback(made.clear)
            return made

        yield make


@pytest.fixture(scope="module")
def shared_cloud(tmp_path_factory, network) -> Iterator[Running]:
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed; for these tests: apt-get install haproxy")
    with tempfile.TemporaryDirectory(prefix="fc-") as runtime:
        made = Running(tmp_path_factory.mktemp("cloud") / "state", Path(runtime), network)
        made.start()
        yield made
        made.clear()
        made.stop()


@pytest.fixture
def cloud(shared_cloud) -> Iterator[Running]:
    """One cloud for a module's tests, emptied after each."""
    yield shared_cloud
    shared_cloud.clear()


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"{self.server.server_address[1]}\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def targets(network) -> Iterator[list[dict[str, Any]]]:
    """Two HTTP servers, as targets; each answers with its port."""
    servers = [ThreadingHTTPServer((f"{network}.0.0", 0), _Answer) for _ in range(2)]
    for server in servers:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield [{"ip": s.server_address[0], "port": s.server_address[1]} for s in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


def document(targets: list[dict[str, Any]], port: int = 8080, **spec: Any) -> dict[str, Any]:
    """Return a document with one listener that leads to `targets`."""
    return {
        "labels": {"team": "a"},
        "spec": {
            "listeners": [{"name": "web", "protocol": "tcp", "port": port, "target_group": "web"}],
            "target_groups": [
                {"name": "web", "targets": targets, "health_check": {"interval_s": 1}}
            ],
            **spec,
        },
    }


def ask(ip: str, port: int = 8080) -> str:
    """Return what a target answers through a load balancer."""
    return httpx2.get(f"http://{ip}:{port}/", timeout=5).text.strip()


@pytest.fixture(autouse=True, scope="session")
def _plain_logs() -> None:
    """Without the values of variables, whose layout takes seconds."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )
