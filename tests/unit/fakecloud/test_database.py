"""The database: migrations equal the tables, transactions, and what goes wrong at the start."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from threading import Event, Thread

import psycopg
import pytest
from alembic import command
from sqlalchemy import insert, select, text

from fakecloud.errors import StartError, Unavailable
from fakecloud.store import database, events
from fakecloud.store.database import Database
from fakecloud.tables.cloud import version


def test_migrations_make_exactly_the_tables(cloud):
    """`alembic check`: nothing is left to migrate."""
    with cloud.database.engine.begin() as connection:
        command.check(database.alembic_config(connection))


def test_migrations_know_the_tables_by_themselves(tmp_path):
    """Also where nothing else has imported them, as when the next migration is written."""
    program = (
        "import sys; from alembic import command; from fakecloud.store import database\n"
        "made = database.Database(sys.argv[1]); made.migrate()\n"
        "with made.engine.begin() as connection:\n"
        "    command.check(database.alembic_config(connection))\n"
    )
    url = f"sqlite:///{tmp_path / 'alone.db'}"
    done = subprocess.run(
        [sys.executable, "-c", program, url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_migrating_again_changes_nothing(cloud):
    cloud.active("web")
    cloud.database.migrate()
    assert [lb.name for lb in cloud.living()] == ["web"]


def test_a_block_that_fails_leaves_nothing(cloud):
    def fail() -> None:
        with cloud.database.write() as connection:
            events.next_version(connection)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with cloud.database.read() as connection:
        assert events.current_version(connection) == 0


def test_listeners_hear_of_commits_only(cloud):
    heard: list[int] = []
    cloud.database.on_commit(lambda: heard.append(1))
    with cloud.database.read() as connection:
        events.current_version(connection)
    with pytest.raises(KeyError), cloud.database.write():
        raise KeyError
    assert heard == []
    with cloud.database.write() as connection:
        events.next_version(connection)
    assert heard == [1]


def test_a_reader_sees_one_moment(cloud):
    """Two queries of one read agree, whatever is committed between them."""
    with cloud.database.read() as connection:
        before = events.current_version(connection)
        cloud.put("web")
        assert events.current_version(connection) == before
        assert events.since(connection, 0, 10) == []


def test_versions_have_no_gap_whoever_writes(cloud):
    threads = [Thread(target=lambda n=n: cloud.put(f"lb-{n}")) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [e.resource_version for e in cloud.events()] == list(range(1, 9))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_locked_database_is_unavailable_not_broken(cloud, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 10)
    cloud.database.engine.dispose()
    other = sqlite3.connect(tmp_path / "cloud.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="the database can't be used now: database is locked"):
        cloud.put("web")
    with cloud.database.read() as connection:
        assert events.current_version(connection) == 0
    other.execute("ROLLBACK")
    other.close()
    cloud.put("web")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_readers_do_not_wait_for_the_writer(cloud):
    inside, go = Event(), Event()

    def write() -> None:
        with cloud.database.write() as connection:
            connection.execute(insert(version).values(id=2, value=0))
            inside.set()
            go.wait(10)

    thread = Thread(target=write)
    thread.start()
    assert inside.wait(10)
    with cloud.database.read() as connection:
        assert len(connection.execute(select(version)).all()) == 1
    go.set()
    thread.join()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_second_server_is_told_who_has_the_file(cloud, tmp_path):
    with pytest.raises(StartError, match="is in use by another server; stop it or give another"):
        Database(f"sqlite:///{tmp_path}/cloud.db")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("cloud.db", "is not a URL such as sqlite:///"),
        ("mysql://localhost/x", "mysql is not sqlite or postgresql"),
        ("sqlite://", "SQLite needs a file"),
        ("sqlite:///:memory:", "SQLite needs a file"),
        ("nonsense://x", "nonsense is not sqlite or postgresql"),
    ],
)
def test_a_wrong_url_is_one_line(url, reason):
    with pytest.raises(StartError) as refusal:
        Database(url)
    assert reason in str(refusal.value)


def test_a_file_that_is_no_database_is_one_line(tmp_path):
    (tmp_path / "cloud.db").write_bytes(b"something else entirely\n" * 100)
    broken = Database(f"sqlite:///{tmp_path}/cloud.db")
    try:
        with pytest.raises(StartError, match="can't be used: file is not a database"):
            broken.migrate()
    finally:
        broken.close()


def test_a_database_of_a_newer_version_is_left_alone(cloud):
    with cloud.database.engine.begin() as connection:
        ours = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    try:
        with pytest.raises(StartError, match="made by another version of fakecloud"):
            cloud.database.migrate()
    finally:
        with cloud.database.engine.begin() as connection:
            connection.execute(
                text("UPDATE alembic_version SET version_num = :ours"), {"ours": ours}
            )


def test_a_server_that_is_not_there_is_one_line():
    away = Database("postgresql://nobody@127.0.0.1:1/x")
    try:
        with pytest.raises(StartError, match="the database can't be used: connection failed"):
            away.migrate()
    finally:
        away.close()


def test_a_database_of_another_encoding_is_one_line(postgresql_server):
    url = postgresql_server.database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE DATABASE plain ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
        )
        database = Database(url.rsplit("/", 1)[0] + "/plain")
        try:
            with pytest.raises(StartError, match=r"encoded in SQL_ASCII.*ENCODING 'UTF8'"):
                database.migrate()
        finally:
            database.close()
            connection.execute("DROP DATABASE plain")
