"""What a load balancer's directory remembers between two lives of the server."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from fakecloud import files, model

FILE: Final = "state.json"
MOST_BYTES: Final = 256 * 1024


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
    """Write the newest record. `durable`: also across a power failure.

    It becomes the last line of the file, as that is a hundred times faster than replacing a file
    (ext4 then waits for the disk, see auto_da_alloc in ext4(5)). Raises: OSError.
    """
    path, line = directory / FILE, b"\n" + msgspec.json.encode(record)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        if os.fstat(descriptor).st_size > MOST_BYTES:
            files.write(path, line, durable=durable)
            return
        while line:  # without a file object, which takes longer to make than the line to write
            line = line[os.write(descriptor, line) :]
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(directory: Path) -> Record | None:
    """Return the newest record; None when there is none or none is readable."""
    try:
        lines = (directory / FILE).read_bytes().splitlines()
    except OSError:
        return None
    for line in reversed(lines):  # the last one may be half written
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            return msgspec.json.decode(line, type=Record)
    return None


def desired(root: Path) -> dict[str, model.Desired]:
    """Return what was last put into effect by the load balancers with a directory in `root`."""
    records = (load(directory) for directory in root.iterdir() if directory.is_dir())
    return {one.lb_id: one.desired for one in records if one is not None and one.desired}
