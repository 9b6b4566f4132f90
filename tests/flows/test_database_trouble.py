"""The database is locked, full, read-only or gone: callers hear 503, traffic flows, then it goes on.

Nothing is restarted: when the cause is gone, so is the trouble.
"""

from __future__ import annotations

import re
import resource
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import httpx2
import psycopg
import pytest

from tests.fakes import postgresql
from tests.flows import servers
from tests.flows.conftest import CLOCK, ask, document, eventually

pytestmark = [pytest.mark.haproxy, pytest.mark.timeout(90)]

PATH = "/v1/load-balancers/web"
MISSING_RIGHT = "needs root: {}"


@dataclass(frozen=True)
class Place:
    """A server and its database; `file` for SQLite, `cluster` for PostgreSQL."""

    server: servers.Process
    file: Path
    cluster: postgresql.Server | None = None
    url: str = ""


Trouble = Callable[[Place], AbstractContextManager[None]]


@contextmanager
def locked(place: Place) -> Iterator[None]:
    with closing(sqlite3.connect(place.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def limited(place: Place) -> Iterator[None]:
    """No file of the server may grow, as under a quota of the file system."""
    _, hard = resource.prlimit(place.server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(place.server.pid, resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.prlimit(place.server.pid, resource.RLIMIT_FSIZE, (hard, hard))


@contextmanager
def full(place: Place) -> Iterator[None]:
    """Not a byte is left where the database and the server's log are."""
    filler = place.file.parent / "filler"
    with filler.open("wb", buffering=0) as rest:
        for size in (65536, 512, 1):
            with suppress(OSError):
                while True:
                    rest.write(bytes(size))
        yield
    filler.unlink()


@contextmanager
def immutable(place: Place) -> Iterator[None]:
    """The database and its log can't be written, by nobody, as after an error of the disk.

    Its -shm file is left alone: that is shared memory, and would end the process by SIGBUS.
    """
    files = [str(place.file), f"{place.file}-wal"]
    tried = subprocess.run(["chattr", "+i", *files], capture_output=True, text=True, check=False)
    try:
        if tried.returncode:
            pytest.skip(MISSING_RIGHT.format(f"chattr +i: {tried.stderr.strip()[-200:]}"))
        yield
    finally:
        subprocess.run(["chattr", "-i", *files], capture_output=True, check=False)


@contextmanager
def taken_away(place: Place) -> Iterator[None]:
    away = place.file.with_name("away.db")
    place.file.rename(away)
    yield
    assert not place.file.exists(), "an empty one in its place would be mistaken for it"
    away.rename(place.file)


@contextmanager
def replaced(place: Place) -> Iterator[None]:
    away = place.file.with_name("away.db")
    place.file.rename(away)
    with closing(sqlite3.connect(place.file)) as other:
        other.execute("CREATE TABLE something_else (x)")
    yield
    away.rename(place.file)


@contextmanager
def stopped(place: Place) -> Iterator[None]:
    assert place.cluster is not None
    place.cluster.stop()
    yield
    place.cluster.start()


@contextmanager
def read_only(place: Place) -> Iterator[None]:
    """As a standby is, and a primary whose disk is nearly full."""
    with psycopg.connect(place.url, autocommit=True) as connection:
        for value in ("on", "off"):
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            connection.execute("SELECT pg_reload_conf()")
            if value == "on":
                yield


@contextmanager
def row_locked(place: Place) -> Iterator[None]:
    """Somebody sits in a transaction that holds what every writer needs."""
    with psycopg.connect(place.url) as connection:
        connection.execute("SELECT value FROM version FOR UPDATE")
        yield
        connection.rollback()


ON_SQLITE: dict[Trouble, str] = {
    locked: "database is (locked|busy)",
    limited: "disk I/O error",
    full: "database or disk is full",
    immutable: "",  # the words differ between versions of SQLite
    taken_away: "was removed or replaced; put it back",
    replaced: "was removed or replaced; put it back",
}
ON_POSTGRESQL: dict[Trouble, str] = {
    stopped: "",  # refused, or closed in the middle
    read_only: "read-only transaction",
    row_locked: "timeout",
}


@pytest.fixture
def sqlite_place(request, tmp_path: Path, network: str) -> Iterator[Place]:
    with ExitStack() as stack:
        directory = tmp_path
        if request.node.callspec.params["trouble"] is full:
            directory = stack.enter_context(small_disk(tmp_path))
        file = directory / "cloud.db"
        yield stack.enter_context(serving(directory, f"sqlite:///{file}", network, file))


@contextmanager
def small_disk(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(directory)]
    tried = subprocess.run(mount, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(MISSING_RIGHT.format(f"mount: {tried.stderr.strip()[-200:]}"))
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def postgresql_place(tmp_path: Path, network: str) -> Iterator[Place]:
    if postgresql.binaries() is None:
        pytest.skip(postgresql.MISSING)
    with postgresql.running() as cluster:
        url = cluster.database()
        with serving(tmp_path, url, network, Path()) as place:
            yield Place(place.server, place.file, cluster, url)


@contextmanager
def serving(directory: Path, url: str, network: str, file: Path) -> Iterator[Place]:
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed; for these tests: apt-get install haproxy")
    with tempfile.TemporaryDirectory(prefix="fc-") as runtime:
        pool = f"default=loopback:{network}.66.0/24"
        server = servers.Process(directory / "state", Path(runtime), url, pool=pool)
        server.start()
        try:
            yield Place(server, file)
        finally:
            server.kill()
            server.kill_balancers()


class Traffic:
    """Somebody who asks through the load balancer again and again."""

    def __init__(self, ip: str) -> None:
        self.answers = 0
        self.failures: list[str] = []
        self._ip = ip
        self._stop = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                assert ask(self._ip)
                self.answers += 1
            except (httpx2.HTTPError, AssertionError) as error:
                self.failures.append(repr(error))
            CLOCK.wait(self._stop, 0.02)


def refused(answer: httpx2.Response, words: str) -> None:
    """Check that it is a 503 that says why, and when to try again."""
    assert answer.status_code == 503, answer.text
    body = answer.json()
    assert (body["code"], body["retryable"]) == ("unavailable", True)
    # Or it waited for a write that met the trouble before it.
    assert re.search(f"{words}|busy with other writes", body["detail"])
    assert int(answer.headers["retry-after"]) >= 1


def through(trouble: Trouble, place: Place, words: str, targets: list) -> None:
    """Lead a server with traffic into the trouble and out of it."""
    server = place.server
    assert server.request("PUT", PATH, json=document(targets), params={"wait": "20s"}).is_success
    first = server.status("web")
    with Traffic(first["addresses"][0]["ip"]) as traffic:
        eventually(lambda: traffic.answers > 3)
        with trouble(place):
            before = traffic.answers
            moved = document(targets, port=8081)
            refused(server.request("PUT", PATH, json=moved), words)
            assert server.request("GET", "/readyz").status_code == 503
            eventually(lambda: re.search(words, server.request("GET", "/readyz").text))
            assert server.request("GET", "/healthz").status_code == 200
            eventually(lambda: traffic.answers > before + 3)
        eventually(lambda: server.request("GET", "/readyz").status_code == 200, 20)
        assert server.request("PUT", PATH, json=document(targets, port=8080)).status_code == 200
        assert traffic.failures == []
    assert server.status("web")["generation"] == first["generation"]
    assert server.request("PUT", PATH, json=moved, params={"wait": "20s"}).status_code == 200
    assert ask(first["addresses"][0]["ip"], 8081)
    assert not server.broken()
    log = server.log.read_text()
    assert "Traceback" not in log, log[-5000:]


@pytest.mark.parametrize("trouble", ON_SQLITE, ids=lambda one: one.__name__)
def test_sqlite_in_trouble(sqlite_place: Place, targets: list, trouble: Trouble) -> None:
    through(trouble, sqlite_place, ON_SQLITE[trouble], targets)


@pytest.mark.parametrize("trouble", ON_POSTGRESQL, ids=lambda one: one.__name__)
def test_postgresql_in_trouble(postgresql_place: Place, targets: list, trouble: Trouble) -> None:
    through(trouble, postgresql_place, ON_POSTGRESQL[trouble], targets)


@pytest.mark.parametrize("trouble", [locked], ids=lambda one: one.__name__)
def test_trouble_is_noticed_by_the_heartbeat_without_any_request(
    sqlite_place: Place, trouble: Trouble
) -> None:
    server = sqlite_place.server
    assert server.request("GET", "/readyz").status_code == 200
    with trouble(sqlite_place):
        eventually(lambda: server.request("GET", "/readyz").status_code == 503, 20)
    eventually(lambda: server.request("GET", "/readyz").status_code == 200, 20)


def test_what_was_read_before_can_be_read_while_sqlite_is_locked(new_cloud, targets):
    cloud = new_cloud()
    cloud.active("web", document(targets))
    file = cloud.app.state.cloud.database.url.database
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert cloud.get("web")["spec"]["listeners"][0]["port"] == 8080
        other.execute("ROLLBACK")
