"""The executables are found in the promised order, and nothing wrong gets installed."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import platform
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import binaries, build, download, errors, versions

_MACHINE = "x86_64"
_STEM = f"etcd-{versions.ETCD}-linux-amd64"


def script(version: str) -> bytes:
    return f"#!/bin/sh\necho {version}\n".encode()


def fill(directory: Path, names: tuple[str, ...] = versions.NAMES) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_bytes(script(versions.KUBERNETES))
        (directory / name).chmod(0o755)
    return directory


def etcd_archive() -> bytes:
    packed = io.BytesIO()
    content = script(f"etcd Version: {versions.ETCD.removeprefix('v')}")
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo(f"{_STEM}/etcd")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The files of a release site."""
    root = tmp_path / "site"
    kube = root / versions.KUBERNETES / "bin" / "linux" / "amd64"
    kube.mkdir(parents=True)
    for name in versions.NAMES[1:]:
        content = script(f"Kubernetes {versions.KUBERNETES}")
        (kube / name).write_bytes(content)
        (kube / f"{name}.sha256").write_text(hashlib.sha256(content).hexdigest())
    etcd = root / versions.ETCD
    etcd.mkdir()
    archive = etcd_archive()
    (etcd / f"{_STEM}.tar.gz").write_bytes(archive)
    checksum = hashlib.sha256(archive).hexdigest()
    (etcd / "SHA256SUMS").write_text(f"{'0' * 64}  other.tar.gz\n{checksum}  {_STEM}.tar.gz\n")
    return root


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def releases(site: Path) -> Iterator[download.Releases]:
    """The site on loopback."""
    handler = functools.partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        yield download.Releases(kubernetes=url, etcd=url)
        server.shutdown()
        thread.join()


@pytest.fixture
def no_build(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Builds fail at once; the list tells that one was tried."""
    tried: list[str] = []

    def fail(*arguments: object) -> None:
        tried.append("build")
        raise errors.BuildError("no build in tests")

    monkeypatch.setattr(build, "build", fail)
    monkeypatch.setattr(platform, "machine", lambda: _MACHINE)
    return tried


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), **more}


def test_assets_come_before_the_cache(tmp_path: Path) -> None:
    assets = fill(tmp_path / "assets")
    setting = environment(tmp_path, KUBEBUILDER_ASSETS=str(assets))
    (fill(binaries.cache_directory(setting)) / "origin").write_text("downloaded\n")

    found = binaries.find(fetch=False, environment=setting)

    assert binaries.Binaries(assets, "KUBEBUILDER_ASSETS") == found


def test_assets_without_controller_manager_are_passed_over(tmp_path: Path) -> None:
    """The envtest bundle is such a one."""
    assets = fill(tmp_path / "assets", ("etcd", "kube-apiserver", "kubectl"))
    setting = environment(tmp_path, KUBEBUILDER_ASSETS=str(assets))
    (fill(binaries.cache_directory(setting)) / "origin").write_text("downloaded\n")

    found = binaries.find(fetch=False, environment=setting)

    assert found.directory == binaries.cache_directory(setting)
    assert found.origin == "the project's cache, downloaded"


def test_nothing_found_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(errors.BinariesMissingError, match=r"python -m tests\.cluster binaries"):
        binaries.find(fetch=False, environment=environment(tmp_path))


def test_download_is_checked_and_kept(
    tmp_path: Path, releases: download.Releases, no_build: list[str]
) -> None:
    setting = environment(tmp_path)
    steps: list[versions.Progress] = []

    found = binaries.find(steps.append, environment=setting, releases=releases)
    again = binaries.find(fetch=False, environment=setting)

    assert found == binaries.Binaries(binaries.cache_directory(setting), "downloaded")
    assert found.directory == again.directory
    assert {*versions.NAMES, "origin"} == {path.name for path in found.directory.iterdir()}
    assert [f"downloading {name}" for name in versions.NAMES] == [step.label for step in steps]
    assert no_build == []


def wrong_content(site: Path) -> None:
    kube = site / versions.KUBERNETES / "bin/linux/amd64/kube-apiserver"
    kube.write_bytes(script("something else"))


def wrong_archive(site: Path) -> None:
    (site / versions.ETCD / f"{_STEM}.tar.gz").write_bytes(b"something else")


def no_checksum(site: Path) -> None:
    (site / versions.KUBERNETES / "bin/linux/amd64/kubectl.sha256").write_text("")


def no_file(site: Path) -> None:
    (site / versions.KUBERNETES / "bin/linux/amd64/kubectl").unlink()


def other_version(site: Path) -> None:
    kube = site / versions.KUBERNETES / "bin/linux/amd64"
    content = script("Kubernetes v1.20.0")
    (kube / "kubectl").write_bytes(content)
    (kube / "kubectl.sha256").write_text(hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (wrong_content, "published is"),
        (wrong_archive, "published is"),
        (no_checksum, "published is none"),
        (no_file, "404"),
        (other_version, "not version"),
    ],
)
def test_damaged_release_is_not_installed(
    tmp_path: Path,
    site: Path,
    releases: download.Releases,
    no_build: list[str],
    damage: Callable[[Path], None],
    reason: str,
) -> None:
    """It falls through to the build, with the reason told, and leaves nothing behind."""
    damage(site)
    setting = environment(tmp_path)
    steps: list[versions.Progress] = []

    with pytest.raises(errors.BuildError):
        binaries.find(steps.append, environment=setting, releases=releases)

    assert no_build == ["build"]
    assert reason in steps[-1].label
    left = {path.name for path in binaries.cache_directory(setting).parent.iterdir()}
    assert left == {"binaries.lock"}


def test_unreachable_site_falls_through_to_the_build(tmp_path: Path, no_build: list[str]) -> None:
    nowhere = download.Releases(kubernetes="http://127.0.0.1:9", etcd="http://127.0.0.1:9")
    with pytest.raises(errors.BuildError):
        binaries.find(environment=environment(tmp_path), releases=nowhere)
    assert no_build == ["build"]


def test_second_caller_waits_and_uses_what_the_first_made(
    tmp_path: Path, releases: download.Releases, no_build: list[str]
) -> None:
    setting = environment(tmp_path)
    steps: list[versions.Progress] = []
    callers = [
        threading.Thread(
            target=binaries.find,
            args=(steps.append,),
            kwargs={"environment": setting, "releases": releases},
        )
        for _ in range(2)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    downloads = [step.label for step in steps if step.label.startswith("downloading")]
    assert len(downloads) == len(versions.NAMES)


def test_unknown_machine_has_no_release(tmp_path: Path) -> None:
    with pytest.raises(errors.DownloadError, match="no releases for riscv64"):
        download.fetch(tmp_path, lambda progress: None, machine="riscv64")
