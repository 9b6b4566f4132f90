"""Finding HAProxy, knowing its processes again, and talking to its socket."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from fakecloud import clock, errors
from fakecloud.haproxy import dataplane, process, runtime, state, words


@pytest.fixture
def short() -> Iterator[Path]:
    """Return a directory whose sockets have short paths."""
    with tempfile.TemporaryDirectory(prefix="fc", dir="/tmp") as directory:
        yield Path(directory)


def program(directory: Path, says: str) -> str:
    """Return an executable that prints `says`, whatever it is asked."""
    path = directory / "haproxy"
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/", (2, 6)),
        ("HAProxy version 3.2.26 2026/01/01", (3, 2)),
        ("HA-Proxy version 1.8.19 2019/02/11", (1, 8)),
        ("nginx version: 1.22", None),
    ],
)
def test_version_is_read(text: str, version: tuple[int, int] | None) -> None:
    assert process.parse_version(text) == version


@pytest.mark.parametrize(
    ("says", "message"),
    [("HA-Proxy version 2.5.1 2022/01/01", "2.5, at least 2.6"), ("hello", "is not HAProxy")],
)
def test_unusable_program_is_refused(tmp_path: Path, says: str, message: str) -> None:
    with pytest.raises(errors.StartError, match=message):
        process.find_program(program(tmp_path, says))


def test_missing_program_names_the_remedy() -> None:
    with pytest.raises(errors.StartError, match="apt-get install haproxy"):
        process.find_program("no-such-haproxy")


@pytest.mark.parametrize(("name", "message"), [("x" * 90, "too long"), ("a b", "letters")])
def test_unusable_runtime_directory_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(errors.StartError, match=message):
        dataplane.HaproxyDataPlane(
            tmp_path / "state",
            Path("/tmp") / name,
            clock.SystemClock(),
            haproxy=program(tmp_path, "HAProxy version 2.6.0 x"),
        )


def test_another_process_is_never_recognised(tmp_path: Path) -> None:
    assert process.recognise(os.getpid(), None, tmp_path, "lb") is None
    assert process.recognise(2**22 + 1, None, tmp_path, "lb") is None


@pytest.mark.haproxy
@pytest.mark.skipif(shutil.which("haproxy") is None, reason="no haproxy here")
def test_process_is_recognised_by_start_time_directory_and_marker(short: Path) -> None:
    home = short / "lb"
    home.mkdir()
    (home / "c.cfg").write_text(
        f"global\n  stats socket {home}/s\ndefaults\n  mode tcp\n"
        "  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\n"
        f"frontend f\n  bind 127.91.{os.getpid() % 250}.8:18079\n"
    )
    program = process.find_program("haproxy")
    ours = process.spawn(program, home, "c.cfg", home / "log", "lb")
    try:
        while not runtime.Runtime(f"{home}/s").answers():
            assert not ours.wait(0.001), (home / "log").read_text()
        for start, directory, marker, expected in [
            (ours.start, home, "lb", True),
            (None, home, "lb", True),
            (ours.start + 1, home, "lb", False),
            (ours.start, home / "x", "lb", False),
            (ours.start, home, "other", False),
        ]:
            found = process.recognise(ours.pid, start, directory, marker)
            assert (found is not None) is expected
            if found is not None:
                os.close(found.pidfd)
        environment = Path(f"/proc/{ours.pid}/environ").read_bytes().split(b"\0")
        assert {entry.partition(b"=")[0] for entry in environment if entry} == {
            b"PATH",
            b"FAKECLOUD_LB",
        }
        assert (ours.pid, "lb") in list(process.sweep(short))
    finally:
        ours.end()
        assert ours.close() != "unknown"


@contextmanager
def socket_that_says(*answers: bytes) -> Iterator[tuple[runtime.Runtime, list[bytes]]]:
    """Serve one connection per answer on a unix socket; the list is what was asked."""
    with tempfile.TemporaryDirectory(prefix="fc", dir="/tmp") as directory:
        asked: list[bytes] = []
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"{directory}/s")
            server.listen()

            def serve() -> None:
                for answer in answers:
                    with server.accept()[0] as connection, suppress(BrokenPipeError):
                        asked.append(connection.recv(65536))
                        connection.sendall(answer)

            thread = Thread(target=serve)
            thread.start()
            yield runtime.Runtime(f"{directory}/s"), asked
            thread.join(5)


def test_commands_are_told_in_batches() -> None:
    commands = [words.line("del", "server", f"b0/t{i}") for i in range(runtime.BATCH + 1)]
    with socket_that_says(b"1\n", b"2\n") as (door, asked):
        assert door.execute(commands) == "1\n2\n"
    assert asked[0].count(b"; ") == runtime.BATCH - 1
    assert asked[1] == f"del server b0/t{runtime.BATCH}\n".encode()


@pytest.mark.parametrize("word", ["b0/x;disable", "a\nb", "a b", "<<"])
def test_no_command_carries_a_second_one(word: str) -> None:
    with pytest.raises(ValueError, match="not a word"):
        runtime.Runtime("/nowhere").execute([("del", word)])  # type: ignore[list-item]


def test_silence_is_a_transient_error() -> None:
    door = runtime.Runtime("/nowhere/at/all")
    assert not door.answers()
    assert door.peer_pid() is None
    with pytest.raises(errors.Transient) as refused:
        door.server_rows()
    assert refused.value.code == "runtime_unavailable"


def test_refused_address_list_is_a_transient_error() -> None:
    with (
        socket_that_says(b"Unknown ACL identifier.\n") as (door, _),
        pytest.raises(errors.Transient),
    ):
        door.replace_networks(words.Word("g1.lst"), words.line("10.0.0.0/8"))


def test_peer_of_a_socket_is_its_listener() -> None:
    with socket_that_says(b"") as (door, _):
        assert door.peer_pid() == os.getpid()


@pytest.mark.parametrize("content", [b"", b"{", b'{"lb_id": 1}', b"\xff"])
def test_unreadable_record_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / state.FILE).write_bytes(content)
    assert state.load(tmp_path) is None


def test_half_written_record_leaves_the_one_before(tmp_path: Path) -> None:
    old, new = (state.Record(lb_id="lb", epoch=epoch) for epoch in (1, 2))
    state.save(tmp_path, old, durable=False)
    whole = (tmp_path / state.FILE).read_bytes()
    state.save(tmp_path, new, durable=False)
    written = (tmp_path / state.FILE).read_bytes()
    for size in range(len(whole), len(written)):
        (tmp_path / state.FILE).write_bytes(written[:size])
        assert state.load(tmp_path) == old
        state.save(tmp_path, new, durable=False)
        assert state.load(tmp_path) == new


def test_records_do_not_grow_for_ever(tmp_path: Path) -> None:
    for epoch in range(10_000):
        state.save(tmp_path, state.Record(lb_id="lb", epoch=epoch), durable=False)
    assert (tmp_path / state.FILE).stat().st_size < state.MOST_BYTES * 2
    found = state.load(tmp_path)
    assert found is not None
    assert found.epoch == 9_999


def test_record_survives(tmp_path: Path) -> None:
    record = state.Record(
        lb_id="lb", epoch=3, active=2, processes=(state.ProcessRecord(number=2, pid=1, start=9),)
    )
    state.save(tmp_path, record, durable=True)
    assert state.load(tmp_path) == record
    assert [path.name for path in tmp_path.iterdir()] == [state.FILE]
