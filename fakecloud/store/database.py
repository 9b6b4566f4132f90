"""The database: SQLite (WAL, one writer at a time) or PostgreSQL, behind the same transactions."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import local
from typing import Any, Final, TypeVar

import msgspec
import structlog
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection as Connection
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from fakecloud.errors import Problem, StartError, Unavailable, ValidationFailed
from fakecloud.store.groups import Group
from fakecloud.store.sqlite_file import SqliteFile
from fakecloud.store.turns import Turns

log = structlog.get_logger()

T = TypeVar("T")

BUSY_TIMEOUT_MS: Final = 5000
_MIGRATION_LOCK: Final = 0x66616B65  # advisory lock on PostgreSQL while migrating


class Late(Exception):
    """The turn to write didn't come in time."""


class Database:
    """Transactions for reading and writing, and a call to every listener after each commit."""

    def __init__(self, url: str) -> None:
        """Open (and for SQLite lock) the database. Raises: StartError with the reason."""
        self.url = _parse(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._turns = Turns()
        self._group: Group | None = None  # of who has the turn
        self._current = local()
        self._listeners: list[Callable[[], None]] = []
        self._lock_file = _lock(self.url) if self.is_sqlite else None
        self.engine = _engine(self.url, self.is_sqlite)
        self._writes = self.engine.execution_options(fakecloud_write=True)
        # SQLite reads on a snapshot by itself.
        snapshot = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        self._reads = self.engine.execution_options(**snapshot)

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every committed write; it must return at once."""
        self._listeners.append(listener)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Run the block in a transaction, committed when this returns, rolled back on any error.

        Inside another `write` of the same thread the block is a part of that one. Else it may
        share its commit with blocks of other threads that wait at the same time (`groups`).
        Raises: Unavailable when the database is locked, full or gone.
        """
        outer: Connection | None = getattr(self._current, "connection", None)
        if outer is not None:
            yield outer
            return
        group = self._enter()
        self._current.connection = group.connection
        try:
            yield group.connection
        except BaseException as error:
            group.undo()
            if isinstance(error, (DBAPIError, PoolTimeout)):
                raise _refusal(error) from error
            raise
        finally:
            self._current.connection = None
            self._leave(group)
        if not group.wait(BUSY_TIMEOUT_MS / 1000):
            raise _not_committed(group)

    def write_each(self, blocks: Iterable[Callable[[], T]]) -> list[T | Exception]:
        """Run blocks that each `write`, one after the other, with one commit for all.

        Returns what each returned, or the exception that it alone failed with.
        Raises: Unavailable, then nothing of any of them is written.
        """
        results: list[T | Exception] = []
        with self.write():
            assert self._group is not None, "inside a write there is a group"
            for block in blocks:
                try:
                    self._group.save()
                    results.append(block())
                except (DBAPIError, PoolTimeout) as error:
                    self._group.undo()
                    results.append(_refusal(error))
                except Exception as error:  # noqa: BLE001 - each caller gets its own
                    self._group.undo()
                    results.append(error)
        return results

    def _enter(self) -> Group:
        """Wait for the turn; join the group that whoever had it left open, or begin one."""
        if not self._turns.take(BUSY_TIMEOUT_MS / 1000):
            raise Unavailable("the database is busy with other writes; try again") from Late()
        group = self._group
        try:
            if group is not None:
                group.join()
                return group
            self._group = Group(self._writes.connect())
            self._group.begin(lock=not self.is_sqlite)
        except BaseException as error:
            if group is not None:
                self._leave(group)
            else:
                self._not_begun()
            if isinstance(error, (DBAPIError, PoolTimeout)):
                raise _refusal(error) from error
            raise
        return self._group

    def _not_begun(self) -> None:
        """Let nobody wait for what has just been refused: one by one they would wait too long."""
        if self._group is not None:
            self._group.end()
            self._group = None
        self._turns.send_away()

    def _leave(self, group: Group) -> None:
        """Let the next in turn join the group, or end it."""
        if group.takes_more and self._turns.hand_on():
            return
        self._group = None
        try:
            if group.end():
                self._tell()
        finally:
            self._turns.give_back()
            group.release()

    def _tell(self) -> None:
        for listener in self._listeners:
            try:
                listener()
            except Exception:  # committed is committed, whoever can't be told
                log.exception("commit_listener_failed")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Run the block on a consistent snapshot. Raises: Unavailable."""
        try:
            with self._reads.connect() as connection:
                yield connection
        except (DBAPIError, PoolTimeout) as error:
            raise _refusal(error) from error

    def copy_to(self, file: Path) -> None:
        """Write a consistent copy of an SQLite database to a new file, while it is in use.

        Raises: Unavailable.
        """
        assert self.is_sqlite
        raw = self.engine.raw_connection()
        try:
            raw.cursor().execute("VACUUM INTO ?", (str(file),))
            file.chmod(0o600)
        except sqlite3.Error as error:
            raise Unavailable(f"the copy can't be written: {reason(error)}") from error
        finally:
            raw.close()

    def migrate(self) -> None:
        """Bring the schema to the newest version, one process at a time. Raises: StartError."""
        try:
            with self.engine.begin() as connection:
                if not self.is_sqlite:
                    _check_encoding(connection)
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
                command.upgrade(alembic_config(connection), "head")
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise StartError(f"the database can't be used: {reason(error)}") from error
        except CommandError as error:
            raise StartError(
                f"the database was made by another version of fakecloud: {error}"
            ) from error

    def close(self) -> None:
        """Give back connections and the lock."""
        self.engine.dispose()
        if self._lock_file is not None:
            self._lock_file.close()


def alembic_config(connection: Connection | None = None) -> Config:
    """Return alembic's configuration for our migrations, on `connection` if given."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent.parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StartError("--database is not a URL such as sqlite:////path/to/file.db") from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise StartError(f"--database: {parsed.get_backend_name()} is not sqlite or postgresql")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise StartError("--database: SQLite needs a file, such as sqlite:////path/to/file.db")
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed


def _lock(url: URL) -> Any:
    """Hold an exclusive lock beside the file, so that a second server can't open the database."""
    path = Path(f"{url.database}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = path.open("w")
    except OSError as error:
        raise StartError(f"{path.parent}: can't write there: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        raise StartError(
            f"{url.database} is in use by another server; stop it or give another --state-dir"
        ) from None
    return handle


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _engine(url: URL, is_sqlite: bool) -> Engine:
    options: dict[str, Any] = {"json_serializer": _encode, "json_deserializer": msgspec.json.decode}
    if not is_sqlite:
        options |= {
            "pool_size": 16,
            "max_overflow": 16,
            "pool_timeout": 5,
            "pool_pre_ping": True,
            "connect_args": {
                "connect_timeout": 5,
                "client_encoding": "utf8",  # not the database's: with SQL_ASCII all text is bytes
                "options": "-c statement_timeout=5000 -c lock_timeout=4000 "
                "-c idle_in_transaction_session_timeout=20000",
            },
        }
        return create_engine(url, **options)
    options |= {"pool_size": 32, "max_overflow": 32, "pool_timeout": 5}
    engine = create_engine(url, connect_args={"check_same_thread": False}, **options)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    file = SqliteFile(Path(url.database or ""))
    event.listen(engine, "do_connect", lambda *_: file.check_writable())
    event.listen(engine, "begin", lambda _: file.check(), insert=True)
    return engine


def _check_encoding(connection: Connection) -> None:
    """Raises: StartError when PostgreSQL would take any bytes for text."""
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        raise StartError(
            f"the database is encoded in {encoding}, and fakecloud needs UTF8: "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once where we write: an upgrade in the middle could deadlock."""
    writes = connection.get_execution_options().get("fakecloud_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def reason(error: BaseException) -> str:
    """Return the driver's own words, on one line, without SQL or parameters."""
    original = getattr(error, "orig", None) or error
    return " ".join(str(original).split())[:300]


def _refusal(error: SQLAlchemyError) -> Problem:
    """Return whose doing it is: a value that no text or number can hold comes from the caller."""
    if isinstance(error, DataError):
        return ValidationFailed(f"a value can't be stored or looked for: {reason(error)}")
    return _unavailable(error)


def _unavailable(error: SQLAlchemyError) -> Unavailable:
    return Unavailable(f"the database can't be used now: {reason(error)}")


def _not_committed(group: Group) -> Unavailable:
    """Return why nothing of a group was written, as far as anybody can know."""
    if group.error is None:
        return Unavailable("another write took too long; nothing was written, try again")
    refusal = _unavailable(group.error)
    if getattr(group.error, "connection_invalidated", False):
        refusal = Unavailable(
            f"{refusal.detail}; it went away at the commit: read again whether that is done"
        )
    refusal.__cause__ = group.error
    return refusal


def is_lock_timeout(error: Unavailable) -> bool:
    """Say whether a writer had to wait too long for the one before it."""
    original = getattr(error.__cause__, "orig", None)
    return (
        isinstance(error.__cause__, Late)
        or getattr(original, "sqlstate", None) == "55P03"
        or "database is locked" in str(original)
    )
