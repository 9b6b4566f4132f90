"""What a load balancer's directory remembers between two lives of the server."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from fakecloud import model

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
    write(directory / FILE, msgspec.json.encode(record), durable=durable)


def load(directory: Path) -> Record | None:
    """Return the record; None when there is none or it is unreadable."""
    try:
        return msgspec.json.decode((directory / FILE).read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def write(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Replace a file in one step, mode 0600."""
    stage(path, content, durable=durable)
    commit(path)


def stage(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write what `commit` then puts in place without needing any room on the disk."""
    temporary = _temporary(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def commit(path: Path) -> None:
    """Replace the file by what was staged for it, if anything was."""
    with contextlib.suppress(FileNotFoundError):
        _temporary(path).replace(path)


def drop(path: Path) -> None:
    """Forget what was staged for the file."""
    _temporary(path).unlink(missing_ok=True)


def staged(directory: Path, pattern: str) -> list[Path]:
    """Return the files that match `pattern` and have something staged for them."""
    return [path.with_suffix("") for path in directory.glob(f"{pattern}.new")]


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + ".new")
