"""Where the control plane's executables come from: assets, cache, download or build, in this order."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import build, download, errors, versions

ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"
_ORIGIN = "origin"
_LOCK_TIMEOUT_S = 2 * 3600.0
_LOCK_POLL_S = 0.2
_CHECK_TIMEOUT_S = 60.0

Progress = versions.Progress


@dataclass(frozen=True, slots=True)
class Binaries:
    """A directory that has all of versions.NAMES, and where it came from, for people."""

    directory: Path
    origin: str


def find(
    progress: Callable[[Progress], None] = lambda progress: None,
    *,
    fetch: bool = True,
    environment: Mapping[str, str] = os.environ,
    releases: download.Releases = download.OFFICIAL,
) -> Binaries:
    """Return the executables; without `fetch` only those that are there already.

    progress: called with each step and how far it is; a build takes minutes (build.EXPECTED).
    Callers in other processes take turns, and the second one uses what the first one made.
    Raises: BinariesMissingError (with the remedy) without `fetch`, BuildError with it.
    """
    there = _there(environment)
    if there is not None:
        return there
    if not fetch:
        raise errors.BinariesMissingError(
            f"no control plane executables in ${ASSETS_VARIABLE} or {cache_directory(environment)}: "
            "run `python -m tests.cluster binaries` once"
        )
    place = cache_directory(environment)
    with _turn(place.parent, progress):
        return _there(environment) or _fetch(place, progress, releases)


def cache_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the directory in the project's cache that has, or would have, the executables."""
    cache = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fakecloud" / f"kubernetes-{versions.KUBERNETES}"


def _there(environment: Mapping[str, str]) -> Binaries | None:
    assets = environment.get(ASSETS_VARIABLE)
    if assets and not _missing(Path(assets)):
        return Binaries(Path(assets).resolve(), ASSETS_VARIABLE)
    place = cache_directory(environment)
    if _missing(place):
        return None
    return Binaries(place, f"the project's cache, {(place / _ORIGIN).read_text().strip()}")


def _missing(directory: Path) -> list[str]:
    return [name for name in versions.NAMES if not os.access(directory / name, os.X_OK)]


def _fetch(
    place: Path, progress: Callable[[Progress], None], releases: download.Releases
) -> Binaries:
    """Fill `place` in one step: what is half done stays out of sight."""
    log = place.parent / "build.log"
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".incomplete-") as temporary:
        new = Path(temporary) / "bin"
        new.mkdir(mode=0o755)
        try:
            download.fetch(new, progress, releases)
            _check(new)
            origin = "downloaded"
        except errors.DownloadError as error:
            progress(Progress(0.0, f"no download ({error}); builds from source instead"))
            shutil.rmtree(new)
            new.mkdir(mode=0o755)
            build.build(new, place.parent, log, progress)
            _check(new)
            origin = "built from source"
        (new / _ORIGIN).write_text(f"{origin}\n")
        shutil.rmtree(place, ignore_errors=True)
        new.rename(place)
    return Binaries(place, origin)


def _check(directory: Path) -> None:
    """Run each executable once: it may be for another machine."""
    for name, option, expected in (
        ("etcd", "--version", versions.ETCD),
        ("kube-apiserver", "--version", versions.KUBERNETES),
        ("kube-controller-manager", "--version", versions.KUBERNETES),
        ("kubectl", "version --client", versions.KUBERNETES),
    ):
        try:
            done = subprocess.run(
                [directory / name, *option.split()],
                capture_output=True,
                text=True,
                timeout=_CHECK_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise errors.DownloadError(f"{name} does not run here: {error}") from error
        if expected.removeprefix("v") not in done.stdout:
            said = (done.stdout + done.stderr).strip()[:200]
            raise errors.DownloadError(f"{name} is not version {expected}; it says: {said}")


@contextmanager
def _turn(cache: Path, progress: Callable[[Progress], None]) -> Iterator[None]:
    """Hold the cache's lock."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "binaries.lock").open("a") as lock:
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    progress(Progress(0.0, "another process is fetching them: waits for it"))
                    told = True
                if time.monotonic() > deadline:
                    raise errors.BuildError(
                        f"another process holds {lock.name} for hours: end it and try again"
                    ) from None
                time.sleep(_LOCK_POLL_S)
            else:
                break
        yield
