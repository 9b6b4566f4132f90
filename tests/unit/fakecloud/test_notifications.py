"""NOTIFY between two servers of one PostgreSQL: coalesced, and deaf to oneself."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event, Thread

import psycopg
import pytest
from sqlalchemy.engine import make_url

from fakecloud.clock import SystemClock
from fakecloud.store.notifications import CHANNEL, Notifications


@pytest.fixture
def url(postgresql_server) -> str:
    return postgresql_server.database()


@pytest.fixture
def pair(url) -> Iterator[tuple[Notifications, Notifications]]:
    made = [Notifications(make_url(url), name, SystemClock(), Event()) for name in ("a", "b")]
    yield made[0], made[1]
    for one in made:
        one.close()


def test_commits_of_a_moment_are_one_notification(url, pair):
    speaker, _ = pair
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"LISTEN {CHANNEL}")
        for _ in range(100):
            speaker.committed()
        speaker.speak()
        speaker.committed()
        speaker.speak()
        heard = [note.payload for note in connection.notifies(timeout=0.5)]
    assert heard == ["a", "a"]


def test_another_server_is_heard_and_oneself_is_not(pair):
    speaker, listener = pair
    calls: list[int] = []
    heard = Event()

    def hear() -> None:
        calls.append(1)
        heard.set()

    listener.listen(hear)  # the first time it may have missed something
    assert calls == [1]
    speaker.committed()
    heard.clear()
    thread = Thread(target=listener.listen, args=(hear,))
    thread.start()
    speaker.speak()
    thread.join(5)
    assert calls == [1, 1]
    listener.committed()
    listener.speak()
    listener.listen(hear)
    assert calls == [1, 1]


def test_a_change_of_the_clock_is_told_as_such(pair):
    speaker, listener = pair
    heard: list[str] = []

    def listen() -> None:
        listener.listen(lambda: heard.append("commit"), lambda: heard.append("clock"))

    listen()
    for say in (speaker.committed, speaker.clock_changed, speaker.committed):
        say()
        speaker.speak()
        listen()
    assert heard == ["commit", "commit", "commit", "clock", "commit"]


def test_a_lost_connection_is_made_again(url, pair):
    _, listener = pair
    calls: list[int] = []
    listener.listen(lambda: calls.append(1))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'fakecloud-notify'"
        )
    listener.listen(lambda: calls.append(2))
    listener.listen(lambda: calls.append(3))
    assert calls == [1, 3]
