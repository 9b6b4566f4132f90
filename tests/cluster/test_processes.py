"""Nothing of a cluster outlives the process that started it, and failures say which part failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import binaries, controlplane, embedded, errors, processes

pytestmark = [pytest.mark.kube, pytest.mark.timeout(120)]

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def executables() -> Path:
    try:
        return binaries.find(fetch=False).directory
    except errors.BinariesMissingError as error:
        pytest.skip(str(error))


@pytest.fixture
def short_lived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own for temporary directories."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def up(executables: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A running `python -m tests.cluster up`."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.cluster", "up"],
        cwd=_ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield process
        if process.poll() is None:
            process.kill()


def kubeconfig_of(up: subprocess.Popen[str]) -> Path:
    assert up.stdout is not None
    line = up.stdout.readline()
    assert line.startswith("export KUBECONFIG=")
    return Path(line.strip().partition("=")[2])


def recorded_pids(directory: Path) -> dict[str, int]:
    lines = (line.split() for line in (directory / "pids").read_text().splitlines())
    return {name: int(pid) for pid, name in lines}


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_nothing_runs_after_the_owner_is_killed(
    up: subprocess.Popen[str], short_lived: Path
) -> None:
    """The directory is left behind, and the next start sweeps it."""
    directory = kubeconfig_of(up).parent
    pids = recorded_pids(directory)
    assert {"etcd", "kube-apiserver", "kube-controller-manager"} == pids.keys()
    assert all(alive(pid) for pid in pids.values())

    up.kill()
    up.wait()

    embedded.eventually(lambda: not any(alive(pid) for pid in pids.values()))
    assert directory.exists()
    processes.OwnedDirectory().close()
    assert list(short_lived.glob("fakecloud-cluster-*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_up_leaves_nothing(
    up: subprocess.Popen[str], short_lived: Path, number: signal.Signals
) -> None:
    directory = kubeconfig_of(up).parent
    pids = recorded_pids(directory)

    up.send_signal(number)

    assert up.wait(30) == 0
    assert not any(alive(pid) for pid in pids.values())
    assert list(short_lived.glob("fakecloud-cluster-*")) == []


def test_directory_of_a_living_owner_is_kept_and_refused(short_lived: Path) -> None:
    first = processes.OwnedDirectory()
    second = processes.OwnedDirectory()
    assert first.path.exists()
    with pytest.raises(errors.ClusterError, match="used by another cluster"):
        processes.OwnedDirectory(first.path)
    first.close()
    second.close()
    assert list(short_lived.iterdir()) == []


@pytest.mark.parametrize("broken", ["etcd", "kube-apiserver", "kube-controller-manager"])
def test_failed_start_names_component_and_log(
    executables: Path, tmp_path: Path, broken: str
) -> None:
    """And the others are stopped."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in ("etcd", "kube-apiserver", "kube-controller-manager"):
        (directory / name).symlink_to(executables / name)
    (directory / broken).unlink()
    (directory / broken).write_text("#!/bin/sh\necho out of luck\nexit 3\n")
    (directory / broken).chmod(0o755)
    work = tmp_path / "work"

    with pytest.raises(errors.StartError) as caught:
        controlplane.ControlPlane(directory, work).start()

    log = work / "logs" / f"{broken}.log"
    assert f"{broken} ended with exit code 3; its log is {log}, and ends:\nout of luck" == str(
        caught.value
    )
    assert not any(alive(pid) for pid in recorded_pids(work).values())


def test_start_is_tried_again_when_a_port_was_taken_meanwhile(
    executables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = processes.free_ports
    tries: list[list[int]] = []

    def choose_badly(count: int, address: str) -> list[int]:
        ports = choose(count, address)
        if not tries:
            ports[1] = ports[0]  # etcd can't listen twice on one port
        tries.append(ports)
        return ports

    monkeypatch.setattr(processes, "free_ports", choose_badly)
    with controlplane.ControlPlane(executables, tmp_path / "work") as plane:
        assert plane.request("GET", "/version")["gitVersion"] == "v1.36.4"
    assert len(tries) == 2


@pytest.mark.parametrize(
    ("ephemeral", "expected"),
    [
        ("32768\t60999\n", (11000, 32767)),
        ("1024 65535", (11000, 62000)),
        ("64000 65535", (11000, 62000)),
    ],
)
def test_node_ports_stay_clear_of_ephemeral_ports_where_there_is_room(
    tmp_path: Path, ephemeral: str, expected: tuple[int, int]
) -> None:
    path = tmp_path / "range"
    path.write_text(ephemeral)
    assert expected == controlplane.node_port_range(path)
