"""The official releases of Kubernetes and etcd, each file checked against its published SHA-256."""

from __future__ import annotations

import hashlib
import http.client
import platform
import tarfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import errors, versions

# Short: where these sites are out of reach, the build should start soon.
_FIRST_ANSWER_S = 4.0
_READ_TIMEOUT_S = 30.0
_CHUNK = 1 << 20
_LARGEST_FILE = 512 << 20
_LARGEST_CHECKSUM_FILE = 1 << 20
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Releases:
    """Base URLs of the releases, without trailing slash."""

    kubernetes: str
    etcd: str


OFFICIAL = Releases(
    kubernetes="https://dl.k8s.io",
    etcd="https://github.com/etcd-io/etcd/releases/download",
)


def fetch(
    directory: Path,
    progress: Callable[[versions.Progress], None],
    releases: Releases = OFFICIAL,
    machine: str | None = None,
) -> None:
    """Put the executables into `directory`.

    Raises: DownloadError if a site can't be reached, or a file is not what its checksum says.
    """
    machine = machine or platform.machine()
    architecture = _ARCHITECTURES.get(machine)
    if architecture is None:
        raise errors.DownloadError(f"there are no releases for {machine}")
    platform_path = f"{versions.KUBERNETES}/bin/linux/{architecture}"
    for number, name in enumerate(versions.NAMES):
        progress(versions.Progress(number / len(versions.NAMES), f"downloading {name}"))
        if name == "etcd":
            _fetch_etcd(directory, f"{releases.etcd}/{versions.ETCD}", architecture)
        else:
            url = f"{releases.kubernetes}/{platform_path}/{name}"
            checksum = _text(f"{url}.sha256").split()
            _fetch(url, directory / name, checksum[0] if checksum else "")
        (directory / name).chmod(0o755)


def _fetch_etcd(directory: Path, base: str, architecture: str) -> None:
    stem = f"etcd-{versions.ETCD}-linux-{architecture}"
    archive = directory / f"{stem}.tar.gz"
    lines = (line.split() for line in _text(f"{base}/SHA256SUMS").splitlines())
    sums = {words[1]: words[0] for words in lines if len(words) == 2}
    _fetch(f"{base}/{archive.name}", archive, sums.get(archive.name, ""))
    try:
        with tarfile.open(archive) as packed, (directory / "etcd").open("wb") as file:
            member = packed.extractfile(f"{stem}/etcd")
            if member is None:
                raise errors.DownloadError(f"{archive.name} has no file {stem}/etcd")
            while chunk := member.read(_CHUNK):
                file.write(chunk)
    except (tarfile.TarError, KeyError) as error:
        raise errors.DownloadError(f"{archive.name} can't be unpacked: {error}") from error
    archive.unlink()


def _text(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=_FIRST_ANSWER_S) as response:
            return str(response.read(_LARGEST_CHECKSUM_FILE).decode("ascii", "replace"))
    except (OSError, http.client.HTTPException) as error:
        raise errors.DownloadError(f"{url}: {error}") from error


def _fetch(url: str, place: Path, checksum: str) -> None:
    seen = hashlib.sha256()
    size = 0
    try:
        with (
            urllib.request.urlopen(url, timeout=_READ_TIMEOUT_S) as response,
            place.open("wb") as file,
        ):
            while chunk := response.read(_CHUNK):
                size += len(chunk)
                if size > _LARGEST_FILE:
                    raise errors.DownloadError(f"{url} is larger than {_LARGEST_FILE} bytes")
                seen.update(chunk)
                file.write(chunk)
    except (OSError, http.client.HTTPException) as error:
        raise errors.DownloadError(f"{url}: {error}") from error
    if seen.hexdigest() != checksum.lower():
        place.unlink()
        raise errors.DownloadError(
            f"{url} has the SHA-256 {seen.hexdigest()}, published is {checksum or 'none'}"
        )
