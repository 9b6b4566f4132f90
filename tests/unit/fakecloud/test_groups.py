"""Group commit: writers that wait share a commit, and each fails or succeeds as if it were alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import insert, text

from fakecloud.errors import Unavailable
from fakecloud.store import database, events
from fakecloud.store.database import Database
from fakecloud.store.groups import MOST_MEMBERS
from fakecloud.tables.access import project
from fakecloud.tables.cloud import address
from tests.fakes.small_cloud import SmallCloud


class Writers:
    """Threads that write, one after the other; `commits` counts the transactions."""

    def __init__(self, cloud: SmallCloud, pool: ThreadPoolExecutor) -> None:
        self.cloud = cloud
        self.database: Database = cloud.database
        self.commits = 0
        self._pool = pool
        self._waiting = 0
        sqlalchemy.event.listen(self.database.engine, "commit", self._count)

    def _count(self, _connection: object) -> None:
        self.commits += 1

    def start(self, name: str, inside: Callable[[Any], object] = lambda _c: None) -> Future[int]:
        """Let a thread write a project and an event; `inside` comes after that."""

        def write() -> int:
            with self.database.write() as connection:
                connection.execute(insert(project), row(name, self.cloud))
                version = events.next_version(connection)
                event(connection, self.cloud, version, name)
                inside(connection)
            return version

        return self._pool.submit(write)

    def queued(self, *names: str, **inside: Callable[[Any], object]) -> list[Future[int]]:
        """Start writers of these names, each when the one before it waits for its turn."""
        started = []
        for name in names:
            started.append(self.start(name, inside.get(name, lambda _c: None)))
            self._waiting += 1
            until(lambda: len(self.database._turns._waiting) >= self._waiting)
        self._waiting = 0
        return started

    @contextmanager
    def one_at_work(self) -> Iterator[Future[int]]:
        """Hold the turn until the block ends."""
        inside, go = Event(), Event()

        def hold(_connection: object) -> None:
            inside.set()
            assert go.wait(20)

        first = self.start("first", hold)
        assert inside.wait(20)
        try:
            yield first
        finally:
            go.set()

    def written(self) -> tuple[set[str], list[int]]:
        """Return which projects there are, and the versions of all events."""
        with self.database.read() as connection:
            names = set(connection.execute(sqlalchemy.select(project.c.id)).scalars())
        return names - {"default"}, [one.resource_version for one in self.cloud.events()]


def row(name: str, cloud: SmallCloud) -> dict[str, Any]:
    return {"id": name, "description": "", "suspended": False, "created_at": cloud.clock.now()}


def event(connection: Any, cloud: SmallCloud, version: int, name: str) -> None:
    events.append(
        connection,
        resource_version=version,
        project=name,
        type="ADDED",
        kind="project",
        object_id=name,
        document={},
        at=cloud.clock.now(),
    )


def until(holds: Callable[[], bool]) -> None:
    while not holds():
        Event().wait(0.001)


def fail(_connection: object) -> None:
    raise KeyError("mine")


@pytest.fixture
def writers(cloud) -> Iterator[Writers]:
    with ThreadPoolExecutor(40) as pool:
        yield Writers(cloud, pool)


def test_writers_that_wait_share_a_commit(writers):
    with writers.one_at_work() as first:
        others = writers.queued("a", "b", "c")
        assert writers.commits == 0
    assert [one.result(20) for one in (first, *others)] == [1, 2, 3, 4]
    assert writers.commits == 1
    assert writers.written() == ({"first", "a", "b", "c"}, [1, 2, 3, 4])


def test_nobody_returns_before_the_commit(writers):
    """What a writer has returned from is there for every reader."""
    hold, inside = Event(), Event()

    def wait(_connection: object) -> None:
        inside.set()
        assert hold.wait(20)

    with writers.one_at_work() as first:
        (last,) = writers.queued("last", last=wait)
    assert inside.wait(20)
    assert not first.done()
    assert writers.written() == (set(), [])
    hold.set()
    assert (first.result(20), last.result(20)) == (1, 2)


def test_one_that_fails_takes_back_its_own_alone(writers):
    with writers.one_at_work() as first:
        a, bad, b = writers.queued("a", "bad", "b", bad=fail)
    with pytest.raises(KeyError, match="mine"):
        bad.result(20)
    assert [one.result(20) for one in (first, a, b)] == [1, 2, 3]
    assert writers.written() == ({"first", "a", "b"}, [1, 2, 3])


def test_a_refused_statement_fails_one_alone(writers):
    """PostgreSQL wants nothing more in such a transaction until its savepoint is back."""
    with writers.one_at_work() as first:
        bad, b = writers.queued(
            "bad", "b", bad=lambda c: c.execute(insert(project), row("default", writers.cloud))
        )
    with pytest.raises(Unavailable):
        bad.result(20)
    assert [one.result(20) for one in (first, b)] == [1, 2]


def test_the_last_may_fail_and_the_others_are_committed(writers):
    with writers.one_at_work() as first:
        (bad,) = writers.queued("bad", bad=fail)
    assert first.result(20) == 1
    assert isinstance(bad.exception(20), KeyError)
    assert writers.written() == ({"first"}, [1])


def test_a_group_is_not_endless(writers):
    with writers.one_at_work():
        names = [f"n-{n}" for n in range(MOST_MEMBERS)]
        others = writers.queued(*names)
    versions = [one.result(20) for one in others]
    assert versions == list(range(2, MOST_MEMBERS + 2))
    assert writers.commits == 2


def test_listeners_are_told_once_before_anybody_returns(writers):
    heard: list[int] = []
    writers.database.on_commit(lambda: heard.append(writers.commits))
    with writers.one_at_work() as first:
        others = writers.queued("a", "b")
    seen = [(one.result(20), tuple(heard)) for one in (first, *others)]
    assert seen == [(1, (1,)), (2, (1,)), (3, (1,))]


def test_a_commit_that_fails_fails_them_all(writers):
    """Nothing is written of anybody, each is told, and the next write is a new beginning."""

    def spoil(connection: sqlalchemy.Connection) -> None:
        if writers.database.is_sqlite:  # refused at the commit, not before
            connection.execute(text("PRAGMA defer_foreign_keys=ON"))
            connection.execute(
                insert(address).values(
                    ip="127.77.0.1",
                    pool="default",
                    family="ipv4",
                    load_balancer_id="lb_nobody",
                    given_at=writers.cloud.clock.now(),
                )
            )
        else:
            mine = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with writers.database.read() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": mine})

    with writers.one_at_work() as first:
        others = writers.queued("a", "b", b=spoil)
    for one in (first, *others):
        with pytest.raises(Unavailable, match="the database can't be used now"):
            one.result(20)
    assert writers.written() == (set(), [])
    assert writers.start("next").result(20) == 1


def test_who_holds_the_others_up_too_long_loses(writers, monkeypatch):
    """They are told that nothing is written, and so it is, whatever becomes of that one."""
    asleep, wake = Event(), Event()

    def sleep(_connection: object) -> None:
        asleep.set()
        assert wake.wait(20)

    with writers.one_at_work() as first:
        (sleeper,) = writers.queued("sleeper", sleeper=sleep)
        monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
    assert asleep.wait(20)
    with pytest.raises(Unavailable, match="nothing was written"):
        first.result(20)
    with pytest.raises(Unavailable, match="busy with other writes"):
        writers.start("late").result(20)
    wake.set()
    with pytest.raises(Unavailable, match="nothing was written"):
        sleeper.result(20)
    assert writers.written() == (set(), [])
    monkeypatch.undo()
    assert writers.start("next").result(20) == 1


def test_who_waits_in_vain_leaves_no_gap_in_the_queue(writers, monkeypatch):
    with writers.one_at_work() as first:
        monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 20)
        with pytest.raises(Unavailable, match="busy with other writes") as late:
            writers.start("late").result(20)
        assert database.is_lock_timeout(late.value)
        monkeypatch.undo()
        (after,) = writers.queued("after")
    assert (first.result(20), after.result(20)) == (1, 2)


def test_nobody_waits_for_what_was_just_refused(writers, monkeypatch):
    """When the database doesn't begin a transaction for one, the others needn't try in turn."""
    hold, inside = Event(), Event()

    def refuse(_connection: object) -> None:
        inside.set()
        assert hold.wait(20)
        raise sqlalchemy.exc.OperationalError("BEGIN", None, OSError("gone"))

    monkeypatch.setattr(database.Group, "begin", lambda group, lock: refuse(lock))
    refused = writers.start("refused")
    assert inside.wait(20)
    waiting = writers.queued("a", "b")
    monkeypatch.undo()
    hold.set()
    with pytest.raises(Unavailable, match="gone"):
        refused.result(20)
    for one in waiting:
        with pytest.raises(Unavailable, match="busy with other writes"):
            one.result(20)
    assert writers.start("next").result(20) == 1


def test_each_of_several_calls_fails_alone(writers):
    def call(name: str, inside: Callable[[Any], object] = lambda _c: None) -> Callable[[], str]:
        def run() -> str:
            with writers.database.write() as connection:
                connection.execute(insert(project), row(name, writers.cloud))
                event(connection, writers.cloud, events.next_version(connection), name)
                inside(connection)
            return name

        return run

    results = writers.database.write_each(
        [call("bad", fail), call("a"), call("b", fail), call("c")]
    )
    assert [str(one) for one in results] == ["'mine'", "a", "'mine'", "c"]
    assert writers.commits == 1
    assert writers.written() == ({"a", "c"}, [1, 2])


@pytest.mark.parametrize("seed", range(3))
def test_many_writers_of_whom_some_fail(writers, seed):
    """Exactly what returned is there, under versions without gap, in order of the returns."""
    rng = random.Random(seed)
    fates = [rng.random() < 0.3 for _ in range(60)]
    started = [
        writers.start(f"p-{n}", fail if fails else lambda _c: None) for n, fails in enumerate(fates)
    ]
    failed = [one.exception(20) is not None for one in started]
    assert failed == fates
    versions = sorted(one.result() for one in started if one.exception() is None)
    names, recorded = writers.written()
    assert names == {f"p-{n}" for n, fails in enumerate(fates) if not fails}
    assert versions == recorded == list(range(1, len(names) + 1))


def test_a_version_that_was_taken_back_before_anything_else_is_none(cloud):
    """The first takes a version and fails, the second writes no event: nothing is stored."""

    def fails() -> None:
        with cloud.database.write() as connection:
            events.next_version(connection)
            raise ValueError

    def writes() -> str:
        with cloud.database.write() as connection:
            connection.execute(insert(project), row("a", cloud))
        return "done"

    with cloud.database.read() as connection:
        before = events.current_version(connection)
    results = cloud.database.write_each([fails, writes])
    assert [type(results[0]), results[1]] == [ValueError, "done"]
    with cloud.database.read() as connection:
        assert events.current_version(connection) == before
