"""What a load balancer says it has carried, against what was really sent through it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench import ours
from tests.bench.peers import Place

_ROUNDS: Final = 40
_SIZE: Final = 10_007


def error_bytes(directory: Path, net: str) -> float:
    """Return bytes metered too many or too few, over requests with an update after each."""
    bind, targets = (f"{net}.90", 8000), [(f"{net}.91", 8001), (f"{net}.92", 8001)]
    with ours.plane(directory) as plane, _echoes(targets):
        wishes = ours.mixed_updates(bind, targets, _ROUNDS)
        sent = 0
        for wish in wishes:
            plane.apply(wish)
            _exchange(bind)
            sent += _SIZE
        counted = plane.counters("lb-1") or []
        rows = [row for row in counted if row.kind == "listener"]
        seen_in = sum(row.bytes_in for row in rows)
        seen_out = sum(row.bytes_out for row in rows)
    return abs(seen_in - sent) + abs(seen_out - sent)


def _exchange(bind: Place) -> None:
    with socket.create_connection(bind, timeout=5) as made:
        made.sendall(b"x" * _SIZE)
        made.shutdown(socket.SHUT_WR)
        got = 0
        while data := made.recv(65536):
            got += len(data)
    if got != _SIZE:
        raise RuntimeError(f"{got} of {_SIZE} bytes came back")


@contextlib.contextmanager
def _echoes(places: list[Place]) -> Iterator[None]:
    listeners = [socket.create_server(place, backlog=64) for place in places]
    for listener in listeners:
        threading.Thread(target=_serve, args=(listener,), daemon=True).start()
    try:
        yield
    finally:
        for listener in listeners:
            listener.close()


def _serve(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed: the end
        while True:
            made, _ = listener.accept()
            with made, contextlib.suppress(OSError):
                while data := made.recv(65536):
                    made.sendall(data)
