"""A thousand watchers at once, and the worst of them: asleep, trickling, vanished. They cost only
themselves, and not for ever.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from fakecloud import serving
from tests.flows import servers
from tests.flows.conftest import CLOCK, Running, document, eventually

pytestmark = [pytest.mark.haproxy, pytest.mark.timeout(120)]

WATCHERS = 1000
TURNS = 20
NOTHING = document([])
PATH = "/v1/load-balancers/web"
KB_EACH = 250
"""While an event of 40 kB is on its way to each; about 30 when nothing is."""


@pytest.fixture
def server(tmp_path, network) -> Iterator[servers.Process]:
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed; for these tests: apt-get install haproxy")
    with tempfile.TemporaryDirectory(prefix="fc-") as runtime:
        made = servers.Process(
            tmp_path / "state",
            Path(runtime),
            f"sqlite:///{tmp_path}/cloud.db",
            pool=f"default=loopback:{network}.67.0/24",
        )
        made.start()
        yield made
        made.kill()
        made.kill_balancers()


def request(token: str, query: str = "kinds=load_balancer") -> bytes:
    return (
        f"GET /v1/watch?{query} HTTP/1.1\r\nHost: cloud\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()


def rss_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def relabel(turn: int, annotations: int = 0) -> dict:
    notes = {f"note-{n}": "x" * 1000 for n in range(annotations)}
    return NOTHING | {"labels": {"turn": str(turn)}, "annotations": notes}


async def watched(host: str, port: int, token: str, ready: asyncio.Queue[None]) -> list[str]:
    """Return the turns that one watcher saw, up to the last."""
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
    writer.write(request(token))
    seen: list[str] = []
    empty = 0
    async for line in reader:
        if line.strip() == b"":
            empty += 1  # the end of the head, the line that says that it stands, heartbeats
            if empty == 2:
                ready.put_nowait(None)
        if line.startswith(b'{"type":"MODIFIED"'):
            seen.append(json.loads(line)["object"]["labels"].get("turn", ""))
            if seen[-1] == str(TURNS):
                break
    writer.close()
    return seen


def test_a_thousand_watchers_hold_and_three_that_hang_delay_nobody(server):
    assert server.request("PUT", PATH, json=NOTHING, params={"wait": "20s"}).is_success
    before = rss_kb(server.pid)
    token = server.http.headers["authorization"].split()[1]
    place = server.http.base_url

    async def all_of_them() -> tuple[list[list[str]], int]:
        ready: asyncio.Queue[None] = asyncio.Queue()
        tasks = [
            asyncio.create_task(watched(place.host, place.port, token, ready))
            for _ in range(WATCHERS)
        ]
        for _ in range(WATCHERS):
            await ready.get()
        hanging = [await hung(place.host, place.port, token) for _ in range(3)]
        for turn in range(1, TURNS + 1):
            answer = await asyncio.to_thread(
                server.request, "PUT", PATH, json=relabel(turn, annotations=40)
            )
            assert answer.status_code == 200, answer.text
        seen = await asyncio.gather(*tasks)
        used = rss_kb(server.pid)
        for one in hanging:
            one.close()
        return seen, used

    seen, used = asyncio.run(all_of_them())
    whole = [str(turn) for turn in range(1, TURNS + 1)]
    assert [one for one in seen if one != whole][:3] == []
    assert (used - before) / WATCHERS < KB_EACH, f"{used - before} kB for {WATCHERS} watchers"


async def hung(host: str, port: int, token: str) -> socket.socket:
    """Return a watcher that never reads."""
    loop = asyncio.get_running_loop()
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.setblocking(False)
    await loop.sock_connect(made, (host, port))
    await loop.sock_sendall(made, request(token))
    return made


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(serving, "STALL_S", 1.0)


def connected(cloud: Running) -> socket.socket:
    """Return a watcher of which the kernel holds little back."""
    host, _, port = cloud.url.removeprefix("http://").partition(":")
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect((host, int(port)))
    made.sendall(request(cloud.token, "kinds=load_balancer&heartbeat=0.2s"))
    eventually(lambda: watches(cloud) == 1)
    return made


def watches(cloud: Running) -> int:
    return int(cloud.app.state.cloud.hub.watches("default"))


@contextmanager
def trickling(slow: socket.socket) -> Iterator[None]:
    """Take a byte now and then."""
    stop = Event()

    def take() -> None:
        slow.settimeout(0.05)
        while not CLOCK.wait(stop, 0.05):
            with suppress(TimeoutError):
                try:
                    slow.recv(1)
                except ConnectionError:
                    return

    reader = Thread(target=take)
    reader.start()
    yield
    stop.set()
    reader.join()


@pytest.mark.parametrize("takes", ["nothing", "a byte now and then"])
def test_who_does_not_take_what_waits_for_it_is_let_go_of(new_cloud, impatient, takes):
    cloud = new_cloud()
    cloud.active("web", NOTHING)
    turn = 0
    with connected(cloud) as slow, nullcontext() if takes == "nothing" else trickling(slow):
        while watches(cloud):
            turn += 1
            assert turn < 2000, "it is held for ever"
            assert cloud.put("web", relabel(turn, annotations=50)).status_code == 200
    assert cloud.get("web")["labels"] == {"turn": str(turn)}


@pytest.fixture
def other_host() -> Iterator[tuple[str, str, str]]:
    """Give a network namespace, its end of a link to it, and our address on that."""
    name = f"fc-{os.getpid()}"
    ours, theirs = f"fc{os.getpid()}a", f"fc{os.getpid()}b"

    def ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"needs root: ip {' '.join(words)}: {done.stderr.strip()[-200:]}")

    ip("netns", "add", name)
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        ip("address", "add", "10.213.7.1/30", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", name, "address", "add", "10.213.7.2/30", "dev", theirs)
        ip("-n", name, "link", "set", theirs, "up")
        yield name, theirs, "10.213.7.1"
    finally:
        # The namespace lives on while the kernel remembers its connections; the link goes now.
        subprocess.run(["ip", "link", "del", ours], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.root
def test_a_watcher_whose_host_vanished_is_let_go_of(other_host, new_cloud, impatient):
    name, link, address = other_host
    cloud = new_cloud(host=address)
    host, _, port = cloud.url.removeprefix("http://").partition(":")
    watch = (
        "import socket, sys\n"
        f"made = socket.create_connection(('{host}', {port}))\n"
        "made.sendall(sys.stdin.buffer.read())\n"
        "while made.recv(65536): pass\n"
    )
    client = subprocess.Popen(
        ["ip", "netns", "exec", name, sys.executable, "-c", watch], stdin=subprocess.PIPE
    )
    assert client.stdin is not None
    client.stdin.write(request(cloud.token, "heartbeat=0.2s"))
    client.stdin.close()
    try:
        eventually(lambda: watches(cloud) == 1)
        subprocess.run(["ip", "-n", name, "link", "set", link, "down"], check=True)
        eventually(lambda: watches(cloud) == 0, 30)
    finally:
        client.kill()
        client.wait()
