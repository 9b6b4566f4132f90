"""What the data plane survives: frozen processes, missing files, full disks, its own sudden end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Barrier, Event

import pytest

from fakecloud import clock, errors, model
from fakecloud.haproxy import process, words
from fakecloud.supervision import pulse
from tests.conformance.dataplane_world import HAPROXY, IP, PORT, HaproxyWorld, Load, desired

pytestmark = [
    pytest.mark.haproxy,
    pytest.mark.skipif(
        shutil.which(HAPROXY) is None, reason="no haproxy here (apt-get install haproxy)"
    ),
]
ROOT = Path(__file__).parent.parent.parent
TIME = clock.SystemClock()


class FastWorld(HaproxyWorld):
    """Looks at its processes ten times a second."""

    beat_s = 0.1


@pytest.fixture
def world() -> Iterator[FastWorld]:
    made = FastWorld()
    yield made
    made.close()


def directory(world: HaproxyWorld) -> Path:
    return world.root / "state" / "lb" / "lb-1"


def runs_what_its_file_says(world: HaproxyWorld) -> bool:
    """Compare the servers of the configuration file with those of the process."""
    number = world.record().active
    lines = (directory(world) / f"g{number}.cfg").read_text().splitlines()
    said = {line.split()[1] for line in lines if line.startswith("  server ")}
    return said == {row["srv_name"] for row in world.door().server_rows()}


def replaced(world: HaproxyWorld, before: int) -> bool:
    """Say whether another process than `before` is noted as the one that serves."""
    record = world.record()
    return any(p.number == record.active and p.pid not in (None, before) for p in record.processes)


def pause(seconds: float) -> None:
    TIME.wait(Event(), seconds)


def test_hanging_process_is_replaced_without_any_update(world: FastWorld) -> None:
    world.plane.apply(desired(*world.targets))
    before = world.pid()
    os.kill(before, signal.SIGSTOP)
    world.eventually(lambda: replaced(world, before), 8)
    world.eventually(lambda: world.crashes == ["lb-1"])
    assert world.answers() == world.names(0, 1, 2)
    assert not Path(f"/proc/{before}").exists()


def test_hanging_process_is_replaced_while_it_is_to_be_told_something(world: FastWorld) -> None:
    """What it doesn't hear is told again and again; that must not keep anybody from looking."""
    world.plane.apply(desired(*world.targets))
    before = world.pid()
    os.kill(before, signal.SIGSTOP)
    with pytest.raises(errors.Transient):
        world.plane.apply(desired(world.targets[0]))
    world.eventually(lambda: replaced(world, before), 12)
    world.plane.apply(desired(world.targets[0]))
    assert world.answers() == world.names(0)


@pytest.mark.parametrize("lost", ["socket", "runtime directory"])
def test_lost_socket_is_healed_and_nobody_notices(world: FastWorld, lost: str) -> None:
    world.plane.apply(desired(*world.targets))
    before = world.pid()
    run = world.root / "run"
    with Load(IP, PORT) as load:
        if lost == "socket":
            next(run.iterdir()).unlink()
        else:
            shutil.rmtree(run)
        world.plane.apply(desired(*world.targets[:2]))
        world.eventually(lambda: replaced(world, before))
        pause(0.2)
    assert set(load.met) == {"ok"}
    assert world.door().answers()
    assert world.answers() == world.names(0, 1)
    world.eventually(lambda: len(world.record().processes) == 1)
    assert world.crashes == []


def test_process_that_nobody_can_reach_is_replaced(world: FastWorld) -> None:
    world.plane.apply(desired(*world.targets))
    before = world.pid()
    for path in (*(world.root / "run").iterdir(), *directory(world).glob("*.sock")):
        path.unlink()
    world.eventually(lambda: replaced(world, before))
    assert world.answers() == world.names(0, 1, 2)


def test_lost_files_and_changes_behind_our_back_are_undone(
    world: FastWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "COMPARE_S", 0.1)
    world.plane.apply(desired(*world.targets))
    server = f"b0/t{world.targets[0].ip.replace('.', '_')}_{world.targets[0].port}"
    world.door().execute([words.line("set", "server", server, "state", "maint")])
    (directory(world) / "g1.cfg").unlink()
    (directory(world) / "state.json").unlink()
    world.eventually(lambda: world.answers() == world.names(0, 1, 2))
    world.eventually((directory(world) / "g1.cfg").exists)
    world.eventually((directory(world) / "state.json").exists)
    assert world.record().active == 1
    world.eventually(lambda: runs_what_its_file_says(world))


@contextmanager
def full_disk(path: Path) -> Iterator[Path]:
    """Put a small file system at `path` and fill it; removing the file it gives makes room."""
    path.mkdir(parents=True, mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "fc-full", path], check=False
    )
    if mounted.returncode:
        pytest.skip("a disk that is full needs a mount (run as root)")
    try:
        yield path / "ballast"
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def fill(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


@pytest.fixture
def full() -> Iterator[tuple[FastWorld, Path]]:
    if os.geteuid() != 0:
        pytest.skip("a disk that is full needs a mount (run as root)")
    made = FastWorld()
    made.plane.close()
    shutil.rmtree(made.root / "state")
    with full_disk(made.root / "state") as ballast:
        made.plane = made.new_plane()
        yield made, ballast
        made.plane.stop_all()
        made.plane.close()
    made.plane = made.new_plane()
    made.close()


def test_full_disk_keeps_the_last_good_configuration(full: tuple[FastWorld, Path]) -> None:
    world, ballast = full
    wishes = [
        desired(*world.targets, epoch=1, generation=2),
        desired(*world.targets[:1], ports=(PORT, PORT + 1), generation=2),
    ]
    world.plane.apply(desired(*world.targets[:2]))
    before = world.pid()
    fill(ballast)
    for wish in wishes:
        with pytest.raises(errors.Transient, match=r"No space left.*free space") as told:
            world.plane.apply(wish)
        assert told.value.code == "host_exhausted"
        assert world.answers() == world.names(0, 1)
        assert world.pid() == before
        assert runs_what_its_file_says(world)
    ballast.unlink()
    for wish in wishes:
        world.plane.apply(wish)
        world.eventually(lambda: runs_what_its_file_says(world))
    assert world.answers(port=PORT + 1) == world.names(0)


def test_crash_on_a_full_disk_is_repaired_and_survives_a_restart(
    full: tuple[FastWorld, Path],
) -> None:
    world, ballast = full
    world.plane.apply(desired(*world.targets))
    before = world.pid()
    fill(ballast)
    os.kill(before, signal.SIGKILL)
    world.eventually(lambda: world.answers() == world.names(0, 1, 2))
    world.restart()
    assert world.plane.adopt({"lb-1"}).adopted == {"lb-1"}
    assert world.answers() == world.names(0, 1, 2)


def test_two_hundred_swaps_lose_nothing(world: FastWorld) -> None:
    world.plane.apply(desired(*world.targets))
    with Load(IP, PORT) as load:
        for turn in range(200):
            swapped = {"connect_timeout_s": 3 + turn % 2}
            world.plane.apply(desired(*world.targets, group=swapped))
    assert set(load.met) == {"ok"}
    assert load.met["ok"] > 500
    assert world.record().active == 201


def test_two_updates_at_once_end_as_one_of_them(world: FastWorld) -> None:
    """Every turn, one changes the targets and the other needs a new process."""
    world.plane.apply(desired(*world.targets))
    met = Barrier(2)

    def update(wish: model.Desired) -> None:
        met.wait(5)
        world.plane.apply(wish)

    with Load(IP, PORT) as load, ThreadPoolExecutor(2) as threads:
        for turn in range(20):
            one = desired(*world.targets[: 1 + turn % 3])
            other = desired(*world.targets[1:], group={"connect_timeout_s": 3 + turn % 2})
            list(threads.map(update, (one, other)))
            assert world.record().desired in (one, other)
            assert runs_what_its_file_says(world)
    assert set(load.met) == {"ok"}


HELPER = """
import os, signal, sys
from pathlib import Path
from fakecloud import clock, files, model
from fakecloud.haproxy import dataplane, process, runtime
from fakecloud.supervision import processes
from tests.conformance.dataplane_world import HAPROXY, desired

root, ports = Path(sys.argv[1]), [int(port) for port in sys.argv[2].split(",")]
ip = sys.argv[3]

def work(turn, last):
    steps = 0
    def step():
        nonlocal steps
        steps += 1
        if steps > last:
            os.kill(os.getpid(), signal.SIGKILL)
    def framed(call):
        def wrapped(*args, **more):
            step()
            result = call(*args, **more)
            step()
            return result
        return wrapped
    plane = dataplane.HaproxyDataPlane(
        root / "state", root / "run", clock.SystemClock(), haproxy=HAPROXY
    )
    plane.adopt({"lb-1"})
    files.stage, files.commit = framed(files.stage), framed(files.commit)
    process.spawn = framed(process.spawn)
    runtime.Runtime.execute = framed(runtime.Runtime.execute)
    processes.Process.end = framed(processes.Process.end)
    targets = [model.Target(ip=ip, port=port) for port in ports]
    plane.apply(desired(*targets, ips=(sys.argv[4],), epoch=turn, group={"connect_timeout_s": turn}))

turn = 10
for line in sys.stdin:
    turn += 1
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        work(turn, int(line))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.mark.timeout(120)
def test_control_plane_killed_anywhere_in_a_swap_loses_nothing(world: FastWorld) -> None:
    """Killed at its first step, its second, … until a swap comes to its end."""
    world.plane.apply(desired(*world.targets))
    world.plane.close()
    ports = ",".join(str(target.port) for target in world.targets)
    helper = subprocess.Popen(
        [sys.executable, "-c", HELPER, str(world.root), ports, world.targets[0].ip, IP],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert helper.stdin is not None
    assert helper.stdout is not None
    died = 0
    try:
        with Load(IP, PORT, threads=2) as load:
            for last in range(60):
                helper.stdin.write(f"{last}\n")
                helper.stdin.flush()
                code = int(helper.stdout.readline())
                assert code in (0, -signal.SIGKILL)
                died += code != 0
                world.plane = world.new_plane()
                assert world.plane.adopt({"lb-1"}).adopted == {"lb-1"}
                world.eventually(lambda: len(living(world)) == 1)
                world.eventually(lambda: runs_what_its_file_says(world))
                world.plane.close()
                if code == 0:
                    break
    finally:
        helper.stdin.close()
        helper.stdout.close()
        helper.wait(10)
        with suppress(errors.StartError):  # a failed turn has left one
            world.plane = world.new_plane()
        world.plane.adopt({"lb-1"})
    assert died > 10
    assert code == 0
    assert set(load.met) == {"ok"}


def living(world: HaproxyWorld) -> list[int]:
    return [pid for pid, _ in process.sweep(world.root.resolve() / "state" / "lb")]


def test_connection_that_drains_outlives_a_restart_of_the_server(world: FastWorld) -> None:
    world.plane.apply(desired(world.targets[0]))
    with socket.create_connection((IP, PORT), timeout=5) as old:
        assert old.recv(64)
        world.plane.apply(desired(world.targets[0], group={"connect_timeout_s": 9}))
        world.restart()
        world.plane.adopt({"lb-1"})
        pause(0.3)
        old.sendall(b"still here")
        assert old.recv(64) == b"still here"
    world.eventually(lambda: len(world.record().processes) == 1)


@pytest.mark.parametrize("restart", [True, False], ids=["restart", "running"])
def test_replaced_program_takes_over_without_a_lost_connection(
    restart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = FastWorld()
    installed = shutil.which(HAPROXY)
    assert installed is not None
    world.haproxy = str(world.root / "haproxy")
    shutil.copy(installed, world.haproxy)
    world.restart()
    monkeypatch.setattr(pulse, "COMPARE_S", 60 if restart else 0.2)
    try:
        world.plane.apply(desired(*world.targets))
        before = world.pid()
        with Load(IP, PORT) as load:
            shutil.copy(installed, f"{world.haproxy}.new")
            Path(f"{world.haproxy}.new").replace(world.haproxy)
            if restart:
                world.restart()
                world.plane.adopt({"lb-1"})
            world.eventually(lambda: replaced(world, before))
            world.eventually(lambda: living(world) == [world.pid()])
        assert set(load.met) == {"ok"}
        assert os.readlink(f"/proc/{world.pid()}/exe") == world.haproxy
    finally:
        world.close()


def test_broken_program_leaves_the_old_process_serving(
    world: FastWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "COMPARE_S", 0.1)
    world.haproxy = str(world.root / "haproxy")
    installed = shutil.which(HAPROXY)
    assert installed is not None
    shutil.copy(installed, world.haproxy)
    world.restart()
    world.plane.apply(desired(*world.targets))
    before = world.pid()
    broken = Path(f"{world.haproxy}.new")
    broken.write_text("#!/bin/false\n")
    broken.chmod(0o755)
    broken.replace(world.haproxy)
    pause(0.5)
    assert world.pid() == before
    world.plane.apply(desired(*world.targets[:1]))
    assert world.answers() == world.names(0)
