from __future__ import annotations

import hashlib
import io
import platform
import tarfile
from collections.abc import Callable
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread

import pytest

from tests import get_uv

STEM = f"uv-{platform.machine()}-unknown-linux-gnu"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def releases(tmp_path: Path) -> object:
    """A release page of our own; returns how to publish on it, and then its URL."""
    root = tmp_path / "releases"
    root.mkdir()
    server = HTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root)))
    thread = Thread(target=server.serve_forever)
    thread.start()

    def publish(*, checksum_of: bytes | None = None) -> str:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as files:
            entry = tarfile.TarInfo(f"{STEM}/uv")
            entry.size = 4
            files.addfile(entry, io.BytesIO(b"#!uv"))
        content = archive.getvalue()
        digest = hashlib.sha256(content if checksum_of is None else checksum_of).hexdigest()
        (root / f"{STEM}.tar.gz").write_bytes(content)
        (root / f"{STEM}.tar.gz.sha256").write_text(f"{digest}  {STEM}.tar.gz\n")
        return f"http://127.0.0.1:{server.server_port}"

    yield publish
    server.shutdown()
    thread.join()
    server.server_close()


def test_uv_is_installed_from_its_release(releases: Callable[..., str], tmp_path: Path) -> None:
    get_uv.get(tmp_path / "bin", releases())
    assert (tmp_path / "bin" / "uv").read_bytes() == b"#!uv"
    assert (tmp_path / "bin" / "uv").stat().st_mode & 0o111


def test_an_archive_without_the_published_checksum_is_refused(
    releases: Callable[..., str], tmp_path: Path
) -> None:
    url = releases(checksum_of=b"something else")
    with pytest.raises(ValueError, match="checksum"):
        get_uv.get(tmp_path / "bin", url)
    assert not (tmp_path / "bin").exists()
