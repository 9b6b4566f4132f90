"""The door to a relay: its control socket, and the sockets it is given."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from contextlib import closing
from typing import Final

import msgspec

from fakecloud import errors
from fakecloud.supervision import refusals
from fakecloud.udp import orders, passing, wire

TIMEOUT_S: Final = 2.0
RECEIVE_BYTES: Final = 4 * 1024 * 1024
"""What a port may hold back while its relay is busy or replaced; the kernel may grant less."""


class Hello(msgspec.Struct, frozen=True):
    """What a relay says of itself. epoch: its counters have not begun anew while it is the same."""

    version: str
    epoch: int


class Row(msgspec.Struct, frozen=True):
    """One line of counters: kind (listener or target), its name, for targets that of its group."""

    kind: str
    group: str
    name: str
    sessions: int
    figures: dict[str, int]  # by the names of wire.TRAFFIC


class Control:
    """Orders to one relay. Every call opens its own connection and is bounded in time."""

    def __init__(self, path: str) -> None:
        self._path = path

    def hello(self) -> Hello | None:
        """Return who answers; None if nobody does."""
        try:
            lines = self._ask("hello")[0].splitlines()
        except (OSError, errors.Transient):
            return None
        words = dict(line.split(" ", 1) for line in lines if " " in line)
        if not lines or lines[0] != wire.VERSION:
            return None
        return Hello(words.get("version", ""), int(words.get("epoch", "0")))

    def peer_pid(self) -> int | None:
        """Return the process that listens on the socket, told by the kernel; None if nobody."""
        try:
            with closing(self._connect()) as connection:
                size = struct.calcsize("3i")
                peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        except OSError:
            return None
        return int(struct.unpack("3i", peer)[0])

    def apply(self, text: str, sockets: Iterable[socket.socket]) -> None:
        """Tell a configuration, with sockets for all its ports. Raises: Transient."""
        self._tell("apply", text, [one.fileno() for one in sockets])

    def configuration(self) -> str:
        """Return the configuration that runs. Raises: Transient."""
        return self._tell("config")[0]

    def statistics(self) -> list[Row]:
        """Return the counters. Raises: Transient."""
        return [_row(*line.split()) for line in self._tell("stats")[0].splitlines()]

    def sockets(self) -> list[socket.socket]:
        """Return copies of the sockets that take datagrams from clients. Raises: Transient."""
        files = self._tell("sockets")[1]
        return [socket.socket(fileno=file) for file in files]

    def hand_over(self) -> socket.socket:
        """Return a connection over which the relay passes everything on. Raises: OSError."""
        connection = self._connect()
        passing.send(connection, f"{orders.HANDOVER}\n".encode(), [])
        connection.setblocking(True)
        return connection

    def _tell(
        self, order: str, text: str = "", files: list[int] | None = None
    ) -> tuple[str, list[int]]:
        try:
            return self._ask(order, text, files)
        except OSError as error:
            raise errors.Transient(
                "runtime_unavailable", f"the UDP relay does not answer: {error}"
            ) from error

    def _ask(
        self, order: str, text: str = "", files: list[int] | None = None
    ) -> tuple[str, list[int]]:
        with closing(self._connect()) as connection:
            passing.send(connection, f"{order}\n{text}".encode("ascii"), files or [])
            connection.shutdown(socket.SHUT_WR)
            answer, got = passing.receive_all(connection)
        verdict, _, rest = answer.lstrip("\n").partition("\n")
        if verdict != "ok":
            passing.close(got)
            raise errors.Transient("relay_refused", f"the UDP relay refused: {verdict[:200]}")
        return rest, got

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(TIMEOUT_S)
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        return connection


def listening(path: str) -> socket.socket:
    """Return a socket bound to `path`, for a relay to listen on. Raises: OSError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(path)
    except OSError:
        made.close()
        raise
    return made


def bound(ip: str, port: int) -> socket.socket:
    """Return a socket that gets the datagrams of an address and port. Raises: DataPlaneError."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((ip, port))
    except OSError as error:
        made.close()
        raise refusals.bind_failed(ip, port, error.errno or 0) from error
    return made


def place(one: socket.socket) -> tuple[str, int]:
    """Return the address and port that a socket is bound to."""
    ip, port = one.getsockname()[:2]
    return str(ip), int(port)


def _row(kind: str, group: str, name: str, sessions: str, *figures: str) -> Row:
    named = dict(zip(wire.TRAFFIC, map(int, figures), strict=True))
    return Row(kind, group, name, int(sessions), named)
