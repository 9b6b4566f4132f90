"""Why a HAProxy didn't start: the kernel's answer first, then its own words."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from fakecloud import errors
from fakecloud.haproxy import runtime
from fakecloud.supervision import refusals

MAX_MESSAGE: Final = 500
MAX_LOG_BYTES: Final = 256 * 1024


def explain(
    tried: Collection[tuple[str, int]], log: Path, hidden: Iterable[Path]
) -> errors.DataPlaneError:
    """Return why a process ended at its start.

    tried: addresses and ports of this host that it had to bind; log: what it said; hidden:
    directories whose names are nobody's business.
    """
    for ip, port in sorted(tried):
        number = runtime.bind_error(ip, port)
        if number is not None:
            return refusals.bind_failed(ip, port, number)
    said = _alerts(log, hidden)
    if "cannot bind" in said:  # it was taken a moment ago and is free again
        return errors.Transient("bind_failed", said)
    return errors.Permanent("config_invalid", f"HAProxy refused the configuration: {said}")


def _alerts(log: Path, hidden: Iterable[Path]) -> str:
    """Return what HAProxy complained of, without the paths of this machine."""
    try:
        text = log.read_text("utf-8", "replace")[:MAX_LOG_BYTES]
    except OSError:
        text = ""
    lines = [line for line in text.splitlines() if line.startswith("[ALERT]")]
    said = "; ".join(line.partition(" : ")[2].strip() for line in lines)
    for path in hidden:
        said = said.replace(str(path), "")
    return said[:MAX_MESSAGE] or "it ended without a word"
