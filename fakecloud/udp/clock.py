"""The relay's only clock; the server's has more, and costs the relay half a megabyte."""

from __future__ import annotations

import time


def monotonic() -> float:
    """Return seconds since boot, the same in every process of the machine."""
    return time.monotonic()


def stamp() -> str:
    """Return wall time for a line of the log, RFC 3339 UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
