"""A real HAProxy between two network namespaces connects from its client's address."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakecloud import errors, model
from fakecloud.haproxy import config, rendering, words
from fakecloud.network import transparency
from tests.unit.fakecloud.test_netlink import CLONE_NEWNET, libc, needs_root

HAPROXY = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
CLIENT, FRONT, BACK, NODE = "10.71.0.2", "10.71.0.1", "10.72.0.1", "10.72.0.2"


class Line:
    """Three namespaces in a row: client, load balancer (eth0, eth1), node, whose way out is it."""

    def __init__(self) -> None:
        self.home = self._here()
        self.client, self.between, self.node = (self._fresh() for _ in range(3))
        self._join(self.client, CLIENT, "eth0", FRONT)
        self._join(self.node, NODE, "eth1", BACK)

    @staticmethod
    def _here() -> int:
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def _fresh(self) -> int:
        assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        made = self._here()
        assert libc.setns(self.home, CLONE_NEWNET) == 0
        return made

    @contextlib.contextmanager
    def inside(self, namespace: int) -> Iterator[None]:
        assert libc.setns(namespace, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(self.home, CLONE_NEWNET) == 0

    def _join(self, end: int, ip: str, name: str, gateway: str) -> None:
        from pyroute2 import IPRoute

        with self.inside(self.between), IPRoute() as route:
            peer = {"ifname": "eth0", "net_ns_fd": end}
            route.link("add", ifname=name, kind="veth", peer=peer)
            self._raise(route, name, gateway)
        with self.inside(end), IPRoute() as route:
            self._raise(route, "eth0", ip)
            route.route("add", dst="0.0.0.0/0", gateway=gateway)

    @staticmethod
    def _raise(route: object, name: str, ip: str) -> None:
        for one in ("lo", name):
            route.link("set", index=route.link_lookup(ifname=one)[0], state="up")
        route.addr("add", index=route.link_lookup(ifname=name)[0], address=ip, prefixlen=24)

    def close(self) -> None:
        for fd in (self.client, self.between, self.node, self.home):
            os.close(fd)


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


@pytest.fixture
def node_says_who_asks(line: Line) -> Iterator[None]:
    with line.inside(line.node):
        server = socket.create_server((NODE, 30080))
    stop = threading.Event()

    def serve() -> None:
        server.settimeout(0.1)
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                accepted, peer = server.accept()
                with accepted:
                    accepted.sendall(peer[0].encode())

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    stop.set()
    thread.join()
    server.close()


@pytest.fixture
def haproxy(line: Line, tmp_path: Path) -> Iterator[None]:
    """Run what the data plane would run, for a server that is root and stays it."""
    spec = model.Spec(
        listeners=(model.Listener(name="a", protocol="tcp", port=80, target_group="g"),),
        target_groups=(
            model.TargetGroup(
                name="g",
                targets=(model.Target(ip=NODE, port=30080),),
                connect_timeout_s=1,
                preserve_client_ip=True,
            ),
        ),
    )
    wish = model.Desired(
        lb_id="lb",
        epoch=1,
        generation=1,
        spec=spec,
        addresses=(model.Address(family="ipv4", ip=FRONT, pool="default"),),
    )
    whole = config.build(wish, connections=1000, transparent=True)
    place = rendering.Place(socket=words.Word(str(tmp_path / "s")), number=1)
    for name, content in rendering.files(whole, place).items():
        (tmp_path / name).write_text(content)
    command = [str(HAPROXY), "-db", "-C", str(tmp_path), "-f", place.file("cfg")]
    with line.inside(line.between):
        process = subprocess.Popen(command)
    yield
    process.terminate()
    process.wait(5)


def ask(line: Line) -> str:
    """Return whom the node saw; empty if nothing came within a second."""
    for _ in range(2000):
        with line.inside(line.client), contextlib.suppress(ConnectionRefusedError):
            asking = socket.create_connection((FRONT, 80), timeout=10)  # HAProxy listens by now
            break
    with asking, contextlib.suppress(TimeoutError):
        asking.settimeout(1)
        return asking.recv(100).decode()
    return ""


@needs_root
@pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed")
@pytest.mark.usefixtures("haproxy", "node_says_who_asks")
class TestAnswers:
    def test_come_back_and_the_node_saw_the_client(self, line: Line) -> None:
        with line.inside(line.between):
            transparency.take_answers("eth1")
            transparency.take_answers("eth1")  # a server that starts again
        assert ask(line) == CLIENT

    def test_do_not_come_back_by_themselves(self, line: Line) -> None:
        assert ask(line) == ""


@needs_root
def test_only_tcp_is_taken_so_nobody_is_told_that_every_address_lives_here(line: Line) -> None:
    from pyroute2 import IPRoute

    with line.inside(line.between):
        transparency.take_answers("eth1")
    with line.inside(line.node), IPRoute() as route:
        stranger = "10.72.0.77"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.sendto(b"", (stranger, 9))
            asking.sendto(b"", (BACK, 9))
            for _ in range(1000):
                seen = {n.get_attr("NDA_DST"): n["state"] for n in route.get_neighbours(family=2)}
                if seen.get(BACK, 1) != 1:  # resolved: the question before had its answer, too
                    break
    assert seen[stranger] == 1, "nobody answers for it"  # NUD_INCOMPLETE


@pytest.mark.parametrize(
    ("interfaces", "version", "missing"),
    [([], (3, 0), "interface pool"), (["eth0"], (2, 6), "HAProxy 2.9")],
)
def test_what_is_missing_is_named(
    interfaces: list[str], version: tuple[int, int], missing: str
) -> None:
    with pytest.raises(errors.StartError, match=missing):
        transparency.check(interfaces, version, changes_user=True)
