"""A relay passes everything on to its successor: sockets, sessions, counters, nothing is lost.

The one that gives neither reads nor sends meanwhile; what arrives waits in the sockets. Blocks of
text with open files go one way, an acknowledgement of each the other. Until the last one has
been acknowledged the old relay can go on as if nothing had happened.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

from fakecloud.udp import passing, wire
from fakecloud.udp.sessions import Address, Session, Table
from fakecloud.udp.targets import Group, Target

TIMEOUT_S = 5.0
SESSIONS = 100  # of one block
ACKNOWLEDGED = b"k"
END = b"\n.\n"


class Given:
    """What a successor got beside the table: listening sockets, and one file for each session."""

    def __init__(self) -> None:
        self.epoch = ""
        self.doors: list[int] = []
        self.files: dict[Session, int] = {}


def give(connection: socket.socket, table: Table, epoch: str, doors: list[int]) -> None:
    """Pass `table` on, with its listening sockets `doors`. Raises: OSError; then go on."""
    connection.settimeout(TIMEOUT_S)
    _give_block(connection, list(_head(table, epoch)), doors)
    sessions = list(table.sessions())
    for start in range(0, len(sessions), SESSIONS):
        some = sessions[start : start + SESSIONS]
        _give_block(connection, [_session(one) for one in some], [one.descriptor for one in some])
    _give_block(connection, ["end"], [])


def take(connection: socket.socket, table: Table, now: float) -> Given:
    """Fill the empty `table` with what the predecessor gives. Raises: OSError, ValueError."""
    connection.settimeout(TIMEOUT_S)
    given = Given()
    text, given.doors = passing.receive_all(connection, END)
    _take_head(given, table, text.split("\n"), now)
    while True:
        connection.sendall(ACKNOWLEDGED)
        text, files = passing.receive_all(connection, END)
        lines = [line for line in text.split("\n") if line not in ("", ".")]
        if lines == ["end"]:
            connection.sendall(ACKNOWLEDGED)
            return given
        for line, file in zip(lines, files, strict=True):
            given.files[_take_session(table, line)] = file


def _give_block(connection: socket.socket, lines: list[str], files: list[int]) -> None:
    passing.send(connection, "\n".join(lines).encode("ascii") + END, files)
    if connection.recv(1) != ACKNOWLEDGED:
        raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


def _head(table: Table, epoch: str) -> Iterator[str]:
    yield f"epoch {epoch}"
    for line in wire.render(table.config).splitlines():
        yield f"config {line}"
    for name, listener in table.listeners.items():
        yield f"listener {name} {listener.group.name} {_numbers(listener.figures())}"
    for group in table.groups.values():
        for target in group.targets.values():
            ip, port = target.address
            figures = _numbers(target.figures())
            yield f"target {group.name} {ip} {port} {target.leave_at!r} {figures}"
        for client, pin in group.pins.items():
            yield f"pin {group.name} {client} {pin.target.name} {pin.seen_at!r}"


def _take_head(given: Given, table: Table, lines: list[str], now: float) -> None:
    words = [line.partition(" ") for line in lines]
    config = "".join(f"{rest}\n" for kind, _, rest in words if kind == "config")
    table.configure(wire.parse(config), now)
    for kind, _, rest in words:
        match kind, rest.split():
            case "epoch", [epoch]:
                given.epoch = epoch
            case "listener", [name, group, *figures]:
                table.listener(name, _group(table, group)).count_from([int(n) for n in figures])
            case "target", [group, ip, port, leave_at, *figures]:
                target = _target(_group(table, group), ip, int(port))
                target.leave_at = float(leave_at)
                target.count_from([int(n) for n in figures])
            case "pin", [group, client, name, seen_at]:
                table.groups[group].restore_pin(client, name, float(seen_at))


def _group(table: Table, name: str) -> Group:
    """Return the group, which may be one that only sessions still know."""
    return table.groups.setdefault(name, Group(name))


def _target(group: Group, ip: str, port: int) -> Target:
    """Return the target, which may be one that only sessions still know."""
    gone = Target(wire.Target(ip, port, 0, False))
    return group.targets.setdefault(gone.name, gone)


def _session(one: Session) -> str:
    ip, port, *scope = one.client
    flow, zone = scope or (0, 0)
    bind_ip, bind_port = one.endpoint.bind
    group = one.group.name
    times = " ".join(
        repr(moment)
        for moment in (one.opened_at, one.seen_at, one.asked_at, one.answered_at, one.leave_at)
    )
    flags = f"{int(one.pin is not None)} {int(one.refused)}"
    return (
        f"{bind_ip} {bind_port} {ip} {port} {flow} {zone} {group} {one.target.name} {times} {flags}"
    )


def _take_session(table: Table, line: str) -> Session:
    bind_ip, bind_port, ip, port, flow, zone, group, target, *rest = line.split()
    opened, seen, asked, answered, leave = map(float, rest[:5])
    client: Address = (ip, int(port))
    if ":" in bind_ip:
        client = (ip, int(port), int(flow), int(zone))
    endpoint = table.endpoints[bind_ip, int(bind_port)]
    of_group = table.groups[group]
    session = Session(client, endpoint, of_group, of_group.targets[target], opened)
    session.seen_at, session.asked_at, session.answered_at = seen, asked, answered
    session.leave_at, session.refused = leave, rest[6] == "1"
    table.adopt(session, pinned=rest[5] == "1")
    return session


def _numbers(figures: list[int]) -> str:
    return " ".join(map(str, figures))
