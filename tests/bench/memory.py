"""Memory of processes, from /proc. MB are 1,048,576 bytes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_KB_PER_MB = 1024


def pss_mb(pids: Iterable[int]) -> float:
    """Return the proportional set size of some processes together: shared pages count once."""
    return sum(_kb(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") for pid in pids) / _KB_PER_MB


def rss_mb(pid: int) -> float:
    """Return the resident set size of a process."""
    return _kb(Path(f"/proc/{pid}/status"), "VmRSS:") / _KB_PER_MB


def _kb(file: Path, field: str) -> int:
    for line in file.read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise ValueError(f"{file} has no {field}")
