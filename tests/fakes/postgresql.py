"""A PostgreSQL server of our own: loopback only, as an unprivileged user, gone after the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event

import psycopg

from fakecloud.clock import SystemClock
from fakecloud.store.database import Database
from fakecloud.tables.cloud import metadata

MISSING = "no PostgreSQL server here; for these tests: apt-get install postgresql"
_SMALL = ("shared_buffers=16MB", "max_connections=60")
_FORGETFUL = ("fsync=off", "full_page_writes=off")


def binaries() -> Path | None:
    """Return the directory of `initdb` and `postgres`, None if there is none."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


_SEEDED = ("version", "project", "audit_floor")  # rows that the migrations put there


class Server:
    """A running server with one database, which `database()` empties."""

    def __init__(self, port: int, stop: Callable[[], None], start: Callable[[], None]) -> None:
        self.stop = stop
        self.start = start
        self._url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        database = Database(self._url)
        database.migrate()
        database.close()

    def database(self) -> str:
        """Return the URL of an empty, migrated database; whoever had it before is done with it."""
        tables = ", ".join(f'"{name}"' for name in metadata.tables if name not in _SEEDED)
        with psycopg.connect(self._url, autocommit=True) as connection:
            # No trigger speaks up: the audit record refuses to be emptied by anybody else.
            connection.execute("SET session_replication_role = replica")
            connection.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
            connection.execute("DELETE FROM project WHERE id <> 'default'")
            connection.execute("UPDATE version SET value = 0")
            connection.execute("UPDATE audit_floor SET seq = 0, hash = repeat('0', 64)")
        return self._url


@contextmanager
def running(*, durable: bool = False) -> Iterator[Server]:
    """Run a server until the block ends; nothing of it is left.

    durable: a commit is on the disk, as it has to be anywhere but in tests.
    """
    programs = binaries()
    assert programs is not None, MISSING
    user: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="fakecloud-pg-") as name, socket.socket() as free:
        directory = Path(name)
        if os.getuid() == 0:  # initdb refuses root
            nobody = pwd.getpwnam("nobody")
            user = {"user": nobody.pw_uid, "group": nobody.pw_gid}
            os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        run = partial(_started, directory, user)
        initdb = [programs / "initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-N"]
        assert run(initdb).wait() == 0, (directory / "log").read_text()
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        chosen = _SMALL if durable else _SMALL + _FORGETFUL
        options = (f"-c{option}" for option in (*chosen, "listen_addresses=127.0.0.1"))
        command = [programs / "postgres", "-D", "data", f"-p{port}", f"-k{directory}", *options]
        lives: list[subprocess.Popen[bytes]] = []

        def start() -> None:
            lives.append(run(command))
            _wait(lives[-1], port, directory)

        def stop() -> None:
            server = lives.pop()
            server.send_signal(signal.SIGQUIT)
            server.wait(10)

        try:
            start()
            yield Server(port, stop, start)
        finally:
            if lives:
                stop()


def _started(
    directory: Path, user: dict[str, int], command: Sequence[str | Path]
) -> subprocess.Popen[bytes]:
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            **user,  # type: ignore[call-overload]
        )


def _wait(server: subprocess.Popen[bytes], port: int, directory: Path) -> None:
    clock = SystemClock()
    for _ in range(200):
        assert server.poll() is None, (directory / "log").read_text()
        try:
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres").close()
        except psycopg.OperationalError:
            clock.wait(Event(), 0.05)
        else:
            return
    raise AssertionError((directory / "log").read_text())
