"""A relay's successor; the rest of it is a property of every table."""

from __future__ import annotations

import socket
from threading import Thread

import pytest

from fakecloud.udp import handover, passing, wire
from fakecloud.udp.sessions import Table

BIND = ("192.0.2.1", 53)
CLIENT = ("198.51.100.7", 4000)


def table() -> Table:
    made = Table(lambda _: None)
    told = tuple(wire.Target(f"10.0.0.{n}", 53, 1, True) for n in (1, 2))
    listener = wire.Listener("u53", 53, "g", 60, 1000, (BIND[0],))
    group = wire.Group("g", "round_robin", 60, 300, told)
    made.configure(wire.Config((listener,), (group,), ("0.0.0.0/0",), 1000), 0.0)
    return made


def handed_over(old: Table) -> Table:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for session in old.sessions():
            session.descriptor = ours.fileno()
        thread = Thread(target=handover.give, args=(ours, old, "e", []))
        thread.start()
        new = Table(lambda _: None)
        given = handover.take(theirs, new, 0.0)
        thread.join(5)
    passing.close(list(given.files.values()))
    return new


def test_client_that_moved_stays_where_it_moved() -> None:
    old = table()
    endpoint = old.endpoints[BIND]
    first = old.route(endpoint, CLIENT, 0.0)
    assert first is not None
    old.groups["g"].unpin(CLIENT[0], first.target)
    second = old.route(endpoint, (CLIENT[0], 4001), 0.0)
    assert second is not None
    assert second.target is not first.target
    new = handed_over(old)
    assert new.groups["g"].pins[CLIENT[0]].target.name == second.target.name
    third = new.route(new.endpoints[BIND], (CLIENT[0], 4002), 1.0)
    assert third is not None
    assert third.target.name == second.target.name


def test_many_sessions_go_over() -> None:
    old = table()
    for port in range(1, 1 + 3 * handover.SESSIONS):
        assert old.route(old.endpoints[BIND], ("198.51.100.7", port), 0.0)
    assert handed_over(old).count == old.count == 3 * handover.SESSIONS


def test_successor_that_dies_leaves_the_relay_as_it_was() -> None:
    old = table()
    old.route(old.endpoints[BIND], CLIENT, 0.0)
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            handover.give(ours, old, "e", [])
    assert old.count == 1


def test_predecessor_that_dies_is_noticed() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(b"\nepoch e\n")
        ours.close()
        with pytest.raises(OSError, match="reset"):
            handover.take(theirs, Table(lambda _: None), 0.0)


def test_more_files_than_one_message_takes() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        passing.send(ours, b"text", [ours.fileno()] * 450)
        ours.shutdown(socket.SHUT_WR)
        text, files = passing.receive_all(theirs)
    assert (text.strip(), len(files)) == ("text", 450)
    passing.close(files)
