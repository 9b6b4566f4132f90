"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Replace a file in one step, mode 0600. `durable`: also across a power failure."""
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


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + ".new")
