"""What a load balancer's directory remembers between two lives of the server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from fakecloud import model

FILE: Final = "state.json"


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One generation. `pid` None: about to be started when this was written."""

    number: int
    pid: int | None = None
    start: int | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """`desired`: what was last put into effect; `active`: the generation that accepts."""

    lb_id: str
    epoch: int
    desired: model.Desired | None = None
    active: int | None = None
    processes: tuple[ProcessRecord, ...] = ()


def save(directory: Path, record: Record, *, durable: bool) -> None:
    """Replace the record in one step. `durable`: also across a power failure."""
    write(directory / FILE, msgspec.json.encode(record), durable=durable)


def load(directory: Path) -> Record | None:
    """Return the record; None when there is none or it is unreadable."""
    try:
        return msgspec.json.decode((directory / FILE).read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def write(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Replace a file in one step, mode 0600."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
