"""What a load balancer's directory remembers between two lives of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from fakecloud import files, model

FILE: Final = "state.json"


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One generation. `pid` None: about to be started when this was written.

    program: which file it runs, as `process.identity` tells it.
    """

    number: int
    pid: int | None = None
    start: int | None = None
    program: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """`desired`: what was last put into effect; `active`: the generation that accepts."""

    lb_id: str
    epoch: int
    desired: model.Desired | None = None
    active: int | None = None
    processes: tuple[ProcessRecord, ...] = ()


def save(directory: Path, record: Record, *, durable: bool) -> None:
    """Replace the record in one step. `durable`: also across a power failure."""
    files.write(directory / FILE, msgspec.json.encode(record), durable=durable)


def load(directory: Path) -> Record | None:
    """Return the record; None when there is none or it is unreadable."""
    try:
        return msgspec.json.decode((directory / FILE).read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
