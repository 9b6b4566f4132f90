"""Newline-delimited JSON streams cut into whole lines."""

from __future__ import annotations

from ccm import errors


class LineSplitter:
    """Collects chunks and gives back whole lines; an unfinished tail is kept, never handed out.

    max_line_bytes bounds the memory that a peer without newlines can take.
    """

    def __init__(self, max_line_bytes: int = 8 * 1024 * 1024) -> None:
        self._tail = b""
        self._max = max_line_bytes

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that `chunk` completes, without newlines and without empty ones.

        Raises: CcmError if a line grows beyond the bound.
        """
        *whole, self._tail = (self._tail + chunk).split(b"\n")
        if len(self._tail) > self._max:
            raise errors.CcmError(f"a line of the stream is longer than {self._max} bytes")
        return [line for line in whole if line]
