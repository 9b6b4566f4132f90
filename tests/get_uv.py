"""Puts uv into a folder where there is neither uv nor pip: `python3 tests/get_uv.py FOLDER`.

Standard library only: it runs before anything is installed. The archive is uv's own release,
checked against the checksum published beside it.
"""

from __future__ import annotations

import hashlib
import io
import platform
import sys
import tarfile
import urllib.request
from pathlib import Path

RELEASES = "https://github.com/astral-sh/uv/releases/latest/download"
_TIMEOUT_S = 20
_LARGEST = 200 << 20


def get(folder: Path, releases: str = RELEASES) -> None:
    """Write the executable `uv` into `folder`.

    Raises: OSError when it can't be downloaded, ValueError when it isn't what was published.
    """
    stem = f"uv-{platform.machine()}-unknown-linux-gnu"
    archive = _download(f"{releases}/{stem}.tar.gz")
    published = _download(f"{releases}/{stem}.tar.gz.sha256").decode().split()[0]
    if hashlib.sha256(archive).hexdigest() != published:
        raise ValueError(f"{stem}.tar.gz does not have the published checksum")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        member = files.extractfile(f"{stem}/uv")
        if member is None:
            raise ValueError(f"{stem}.tar.gz has no {stem}/uv")
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / "uv"
        target.write_bytes(member.read())
        target.chmod(0o755)


def _download(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
        content: bytes = answer.read(_LARGEST)
        return content


if __name__ == "__main__":
    try:
        get(Path(sys.argv[1]))
    except (OSError, ValueError) as error:
        sys.exit(f"setup: uv could not be downloaded: {error}")
