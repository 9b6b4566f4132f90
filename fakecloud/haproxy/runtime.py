"""The door to HAProxy's stats socket, and to the few socket calls that starting it needs."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from fakecloud import errors
from fakecloud.haproxy import words

TIMEOUT_S: Final = 2.0
BATCH: Final = 50  # commands of one connection: the line must fit HAProxy's buffer of 16 KiB
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
MAX_PATH_BYTES: Final = 107  # sun_path of Linux, without its final zero byte

Command = words.Line
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Look:
    """What a process has: `show servers state`, entries of its address lists, and of frontends
    how many connections they take at most; rules by frontend, fingerprints by certificate.
    """

    servers: list[Mapping[str, str]]
    ranges: list[str]
    settled: bool
    limits: dict[str, int]
    routes: Mapping[str, list[tuple[str, str]]] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)


class Runtime:
    """Commands to one process. Every call opens its own connection and is bounded in time.

    path: its socket. spare: directory and name of a second one, used when the first is gone: a
    runtime directory is cleaned by others (a logout, a tidy /tmp), the state directory isn't.
    """

    def __init__(self, path: str, spare: tuple[Path, str] | None = None) -> None:
        self._path = path
        self._spare = spare
        self._silence: tuple[socket.socket, socket.socket] | None = None

    @property
    def hangs(self) -> bool:
        """Say whether commands get no answer, because of a fault."""
        return self._silence is not None

    @hangs.setter
    def hangs(self, wanted: bool) -> None:
        if wanted and self._silence is None:
            self._silence = socket.socketpair()
        elif not wanted and self._silence is not None:
            for one in self._silence:
                one.close()
            self._silence = None

    def answers(self) -> bool:
        """Return whether the process serves: it answers only once all its ports are open."""
        try:
            return bool(self._ask("show version\n"))
        except OSError:
            return False

    def peer_pid(self) -> int | None:
        """Return the process that listens, told by the kernel; None if nobody does."""
        return _peer_pid(self._connect)

    def first_pid(self) -> int | None:
        """Return the process that listens on the first socket; None if nobody does."""
        return _peer_pid(lambda: _connected(self._path))

    def look(
        self, commands: Sequence[Command], ranges: words.Word, settled: words.Word | None
    ) -> Look:
        """Execute `commands` and then say what the process has, on one connection if they are few.

        ranges, settled: names of address lists. Raises: Transient "runtime_unavailable".
        """
        *most, last = list(_batches(commands, BATCH)) or [()]
        for batch in most:
            self.execute(batch)
        asked = [
            words.line("show", "acl", ranges),
            words.line("show", "servers", "state"),
            *([] if settled is None else [words.line("show", "acl", settled)]),
            words.line("show", "stat", -1, 1, -1),
        ]
        answer = self._tell(_line([*last, *asked]))
        # What is between the tables is known by its place only.
        before, mark, after = answer.partition("# be_id ")
        servers, _, after = after.partition("\n\n")
        between, other_mark, limits = after.partition("# pxname,")
        if not mark or not other_mark:
            raise errors.Transient("runtime_unavailable", "HAProxy does not say what it has")
        return Look(
            servers=list(_table(mark + servers, 0, " ")),
            ranges=_entries(before),
            settled=settled is None or bool(_entries(between)),
            limits=_limits(_table(other_mark + limits, 0, ",")),
        )

    def execute(self, commands: Sequence[Command]) -> str:
        """Return the answers to `commands`, told in order, many per connection.

        Raises: Transient "runtime_unavailable" when the process doesn't answer in time.
        """
        return "".join(self._tell(_line(batch)) for batch in _batches(commands, BATCH))

    def server_rows(self) -> list[Mapping[str, str]]:
        """Return `show servers state`: one mapping by column name per server."""
        return list(_table(self._tell("show servers state\n"), 1, " "))

    def sessions(self) -> int:
        """Return how many connections the load balancer's frontends and backends hold."""
        rows = _table(self._tell("show stat -1 3 -1\n"), 0, ",")
        return sum(int(row["scur"] or 0) for row in rows)

    def statistics(self) -> list[Mapping[str, str]]:
        """Return `show stat`: one mapping by column name per frontend, backend and server."""
        return list(_table(self._tell("show stat -1 7 -1\n"), 0, ","))

    def session_ids(self) -> list[str]:
        """Return every connection that the load balancer holds, as `shutdown session` takes it."""
        lines = self._tell("show sess\n").splitlines()
        ours = [line for line in lines if line.startswith("0x") and " proto=unix" not in line]
        return [line.partition(":")[0] for line in ours]

    def frontends(self) -> list[str]:
        """Return the names of the frontends."""
        return [row["pxname"] for row in _table(self._tell("show stat -1 1 -1\n"), 0, ",")]

    def remembered(self, backend: words.Word) -> list[Mapping[str, str]]:
        """Return which client uses which server: `key` and `server_id` of each entry."""
        answer = self._tell(f"show table {words.Word(backend)}\n")
        entries = [line.partition(": ")[2] for line in answer.splitlines() if line[:2] == "0x"]
        return [dict(_pairs(entry)) for entry in entries]

    def networks(self, name: words.Word) -> list[str]:
        """Return the entries of the address list that was read from file `name`."""
        return _entries(self._tell(f"show acl {words.Word(name)}\n"))

    def replace_networks(self, name: words.Word, networks: Sequence[words.Word]) -> None:
        """Replace the address list `name`; what it had and has is in it all the time.

        HAProxy's own way to replace a whole list refuses some meanwhile: a network of the list
        that is being prepared hides 0.0.0.0/0 of the one in force (2.6.12, 3.0.11, seen).
        Raises: Transient "runtime_unavailable".
        """
        had, name = set(self.networks(name)), words.Word(name)
        gone = had.difference(networks)
        self.execute(
            [
                *(words.line("add", "acl", name, one) for one in networks if one not in had),
                *(words.line("del", "acl", name, one) for one in sorted(gone)),
            ]
        )

    def routes(self, name: words.Word) -> list[tuple[str, str]]:
        """Return keys and values of the map that was read from file `name`."""
        answer = self._tell(f"show map {words.Word(name)}\n")
        rows = (line.split() for line in answer.splitlines() if line.startswith("0x"))
        return [(row[1], row[2]) for row in rows]

    def replace_routes(
        self, name: words.Word, rules: Sequence[tuple[words.MapKey, words.Word]]
    ) -> None:
        """Replace the map `name` in one step: no request meets a half of it.

        Raises: Transient "runtime_unavailable" (also when HAProxy gives no version number).
        """
        name = words.Word(name)
        answer = self._tell(f"prepare map {name}\n")
        version = answer.rpartition(":")[2].strip()
        if not version.isdecimal():
            raise errors.Transient("runtime_unavailable", "HAProxy began no new list")
        # HAProxy 2.6 takes no payload here, so every entry is a command of its own.
        added = [words.line("add", "map", f"@{version}", name, *rule) for rule in rules]
        self.execute([*added, words.line("commit", "map", f"@{version}", name)])

    def fingerprint(self, name: words.Word) -> str:
        """Return the SHA-1 fingerprint of the certificate that was read from file `name`."""
        answer = self._tell(f"show ssl cert {words.Word(name)}\n")
        lines = (line.partition(": ") for line in answer.splitlines())
        return next((value for key, _, value in lines if key.startswith("SHA1 F")), "")

    def replace_certificate(self, name: words.Word, pem: words.Pem) -> None:
        """Use another chain and key from the next handshake on.

        Raises: Transient "runtime_unavailable", also when HAProxy doesn't take them.
        """
        name = words.Word(name)
        self._tell(f"set ssl cert {name} <<\n{words.Pem(pem)}\n")
        if "Success" not in self._tell(f"commit ssl cert {name}\n"):
            self._tell(f"abort ssl cert {name}\n")
            raise errors.Transient("runtime_unavailable", "HAProxy took no new certificate")

    def _tell(self, text: str) -> str:
        try:
            return self._ask(text)
        except OSError as error:
            raise errors.Transient(
                "runtime_unavailable", f"HAProxy does not answer on its socket: {error.strerror}"
            ) from error

    def _ask(self, text: str) -> str:
        with self._connect() as connection:
            connection.sendall(text.encode("ascii"))
            answer = bytearray()
            while chunk := connection.recv(65536):
                answer += chunk
                if len(answer) > MAX_ANSWER_BYTES:
                    raise OSError(errno.EMSGSIZE, "answer too long")
        return answer.decode("utf-8", "replace")

    def _connect(self) -> socket.socket:
        if self._silence is not None:
            mute = self._silence[0].dup()
            mute.settimeout(TIMEOUT_S)
            return mute
        try:
            return _connected(self._path)
        except (FileNotFoundError, ConnectionRefusedError):
            if self._spare is None:
                raise
            return _connected_in(*self._spare)


def can_hold_sockets(directory: Path) -> bool:
    """Return whether the directory's file system has sockets: some shared folders don't."""
    name = ".probe.sock"
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        try:
            with _short_name(directory, name) as path:
                (directory / name).unlink(missing_ok=True)
                probe.bind(path)
            (directory / name).unlink()
        except OSError:
            return False
    return True


def _peer_pid(connect: Callable[[], socket.socket]) -> int | None:
    try:
        with connect() as connection:
            size = struct.calcsize("3i")
            peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    except OSError:
        return None
    return int(struct.unpack("3i", peer)[0])


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(TIMEOUT_S)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def _connected_in(directory: Path, name: str) -> socket.socket:
    with _short_name(directory, name) as path:
        return _connected(path)


@contextlib.contextmanager
def _short_name(directory: Path, name: str) -> Iterator[str]:
    """Give a name of a socket that is short enough however deep its directory lies."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def bind_error(ip: str, port: int) -> int | None:
    """Return the errno of binding a TCP socket as HAProxy does, None if that works."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((ip, port))
            probe.listen(1)
        except OSError as error:
            return error.errno
    return None


def _table(text: str, skip: int, separator: str) -> Iterator[Mapping[str, str]]:
    lines = [line for line in text.splitlines()[skip:] if line]
    if not lines:
        return
    names = lines[0].removeprefix("# ").split(separator)
    for line in lines[1:]:
        yield dict(zip(names, line.split(separator), strict=False))


def _pairs(entry: str) -> Iterator[tuple[str, str]]:
    for word in entry.split():
        name, equals, value = word.partition("=")
        if equals:
            yield name, value


def _line(commands: Sequence[Command]) -> str:
    return "; ".join(" ".join(words.line(*command)) for command in commands) + "\n"


def _entries(answer: str) -> list[str]:
    """Return the entries of an address list as `show acl` tells them."""
    return [line.split()[1] for line in answer.splitlines() if line.startswith("0x")]


def _limits(rows: Iterable[Mapping[str, str]]) -> dict[str, int]:
    return {row["pxname"]: int(row["slim"] or 0) for row in rows}


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
