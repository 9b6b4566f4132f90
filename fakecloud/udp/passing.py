"""Text together with open files over a unix socket (SCM_RIGHTS, unix(7)): door of both sides."""

from __future__ import annotations

import errno
import os
import socket

MOST_FILES = 200
"""So many go with one message; the kernel takes 253 (SCM_MAX_FD)."""
MOST_BYTES = 16 * 1024 * 1024
CHUNK = 65536


def send(connection: socket.socket, data: bytes, files: list[int]) -> None:
    """Send `data` with `files`; `data` grows by an empty line for each two hundred files more.

    Raises: OSError.
    """
    socket.send_fds(connection, [b"\n"], files[:MOST_FILES])
    for start in range(MOST_FILES, len(files), MOST_FILES):
        socket.send_fds(connection, [b"\n"], files[start : start + MOST_FILES])
    connection.sendall(data)


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Return the next piece and the files that came with it; an empty piece is the end.

    Raises: OSError, also when the kernel had to drop files: the process has too many.
    """
    data, files, flags, _ = socket.recv_fds(connection, CHUNK, MOST_FILES + 1)
    if flags & socket.MSG_CTRUNC:
        close(files)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return data, files


def receive_all(connection: socket.socket, end: bytes = b"") -> tuple[str, list[int]]:
    """Return everything until the other side closes, or until a piece that ends with `end`.

    Raises: OSError.
    """
    files: list[int] = []
    try:
        return _collect(connection, end, files), files
    except OSError:
        close(files)
        raise


def _collect(connection: socket.socket, end: bytes, files: list[int]) -> str:
    whole = bytearray()
    while not (end and whole.endswith(end)):
        data, more = receive(connection)
        files += more
        whole += data
        if not data and end:
            raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        if not data:
            break
        if len(whole) > MOST_BYTES:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
    return whole.decode("ascii", "replace")


def close(files: list[int]) -> None:
    """Close `files`."""
    for file in files:
        os.close(file)
