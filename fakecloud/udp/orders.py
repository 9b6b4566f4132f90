"""What the server says to a relay: one order and its answer per connection.

    hello      version of the program and epoch of the counters
    config     the configuration that runs
    stats      a line for each listener and target
    sockets    the sockets that take datagrams from clients
    apply      a configuration, and the sockets of its new addresses and ports
    handover   everything goes over this connection to another relay, and this one ends

The answer begins with `ok`, or is `error` and the reason.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

from fakecloud.udp import passing, wire
from fakecloud.udp.sessions import Table
from fakecloud.udp.targets import Traffic

MOST = 16
"""So many connections at a time."""
TIMEOUT_S = 1.0
HANDOVER = "handover"


class Conversation:
    """A connection of the server, read as it comes."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._said = bytearray()
        self._files: list[int] = []

    def read(self) -> tuple[str, str, list[int]] | None:
        """Return the order, its text and its files once it is complete. Raises: OSError."""
        try:
            data, files = passing.receive(self.connection)
        except BlockingIOError:
            return None
        self._said += data
        self._files += files
        order, _, text = self._said.decode("ascii", "replace").lstrip("\n").partition("\n")
        if data and order != HANDOVER:
            return None
        files, self._files = self._files, []
        return order, text, files

    def answer(self, text: str, files: list[int]) -> None:
        """Answer and hang up."""
        with suppress(OSError):  # who asked has gone, or waits no longer
            self.connection.settimeout(TIMEOUT_S)
            passing.send(self.connection, text.encode("ascii"), files)
        self.close()

    def close(self) -> None:
        """Hang up."""
        passing.close(self._files)
        self._files = []
        self.connection.close()


def statistics(table: Table) -> Iterator[str]:
    """Yield a line for each listener and target: what it is, sessions now, `wire.TRAFFIC`."""
    for name, listener in table.listeners.items():
        yield f"listener - {name} {_figures(listener)}\n"
    for group in table.groups.values():
        for name, target in group.targets.items():
            yield f"target {group.name} {name} {_figures(target)}\n"


def _figures(traffic: Traffic) -> str:
    return " ".join(map(str, [traffic.sessions, *traffic.figures()]))


def hello(version: str, epoch: str) -> str:
    """Return what a relay says of itself."""
    return f"{wire.VERSION}\nversion {version}\nepoch {epoch}\n"
