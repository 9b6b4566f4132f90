"""Rights, the lease, a wrong token, an API server that isn't there."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import embedded, errors
from tests.demo import programs
from tests.flows.kube.services import Shop, answer, ingress
from tests.flows.kube.world import Controller, World

pytestmark = [pytest.mark.kube, pytest.mark.haproxy, pytest.mark.timeout(120)]

ACCOUNT = "--as=system:serviceaccount:kube-system:fakecloud-ccm"


@contextlib.contextmanager
def instead(world: World, other: Controller) -> Iterator[Controller]:
    """Run `other` in place of the usual controller."""
    world.ccm.stop()
    try:
        other.start()
        yield other
    finally:
        other.stop()
    world.ensure_running()


def may(world: World, *what: str) -> bool:
    with contextlib.suppress(errors.ClusterError):
        return world.cluster.kubectl("auth", "can-i", *what, ACCOUNT).strip() == "yes"
    return False


def test_rb_01_rb_04_shipped_rights_are_enough_with_leader_election(
    shop: Shop, world: World
) -> None:
    """The controller of all tests here runs as this account; the Lease is what is added."""
    assert not may(world, "delete", "services", "--namespace=default")
    assert not may(world, "get", "secrets", "--namespace=kube-system")

    with instead(world, world.controller("lease.log")) as ccm:
        shop.create()
        answer(shop.ip())
        ccm.stop()
        assert ccm.lines("leadership_released")

        ccm.start()  # at once: nobody waits for a lease that was given back
        ccm.wait_for("leadership_acquired", 14)  # less than the 15 s of the lease
        shop.delete()
        embedded.eventually(shop.is_gone)
        embedded.eventually(shop.events, lambda it: ("Normal", "DeletedLoadBalancer") in it)
        everything = ccm.log.read_text()

    assert "forbidden" not in (everything + world.ccm.log.read_text()).lower()
    assert "Traceback" not in everything


def test_b_08_d_09_second_instance_waits_until_the_first_is_gone(shop: Shop, world: World) -> None:
    often = "--leader-elect-retry-period=300ms"
    first, second = (world.controller(f"{name}.log", often) for name in ("first", "second"))
    with instead(world, first):
        first.wait_for("leadership_acquired")
        second.start()
        try:
            second.wait_for("leadership_awaited")
            assert not second.lines("caches_synced")
            first.stop()
            second.wait_for("caches_synced")
            shop.create()
            answer(shop.ip())
        finally:
            second.stop()


def test_wrong_token_is_told_and_healed_by_the_right_one(shop: Shop, world: World) -> None:
    token = world.token_file.read_text()
    world.ccm.stop()
    world.token_file.write_text("x" * 64)
    try:
        world.ccm.start()
        line = world.ccm.wait_for("cloud_refused_token")
        shop.create()
        status, text = embedded.eventually(world.ccm.readiness, lambda it: it[0] == 500)
        assert not ingress(shop.get())
    finally:
        world.token_file.write_text(token)

    assert "--cloud-token-file" in line
    assert re.search(r"\[-\]cloud failed: .*token", text), text
    assert status == 500
    assert answer(shop.ip())["pod"]
    assert embedded.eventually(world.ccm.readiness, lambda it: it[0] == 200)
    assert not world.ccm.lines("Traceback")


def test_missing_token_file_ends_the_controller_with_one_line(world: World) -> None:
    world.ccm.stop()
    token = world.token_file.read_text()
    world.token_file.unlink()
    try:
        world.ccm.start()
        embedded.eventually(lambda: not world.ccm.running())
    finally:
        world.token_file.write_text(token)

    [line] = world.ccm.lines()
    assert line.startswith("fakecloud-ccm: --cloud-token-file")
    assert "No such file" in line


class Door:
    """A TCP port that leads to another one while it is open."""

    def __init__(self, port: int, to: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._to = to
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Close the port and every connection."""
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                self._open += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=_pump, args=[source, sink], daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def kubeconfig_at(world: World, port: int, tmp_path: Path) -> Path:
    """Return the controller's kubeconfig with another port of the API server."""
    plane = world.cluster.control_plane
    usual = plane.kubeconfig_for_service_account("kube-system", "fakecloud-ccm").read_text()
    copy = tmp_path / "kubeconfig"
    copy.write_text(usual.replace(plane.url, f"https://127.0.0.1:{port}"))
    return copy


def test_s_54_p_01_api_server_that_is_not_there_is_awaited(
    shop: Shop, world: World, tmp_path: Path
) -> None:
    port = programs.free_port()
    real = int(world.cluster.control_plane.url.rpartition(":")[2])
    other = world.controller(
        "away.log", "--no-leader-elect", kubeconfig=kubeconfig_at(world, port, tmp_path)
    )
    with instead(world, other) as ccm:
        line = ccm.wait_for("api_server_unavailable")
        assert f"127.0.0.1:{port}" in line
        assert ccm.running()

        door = Door(port, real)
        try:
            ccm.wait_for("caches_synced")
            shop.create()
            answer(shop.ip())
        finally:
            door.close()

        ccm.wait_for("watch_interrupted")
        door = Door(port, real)
        try:
            shop.delete()
            embedded.eventually(shop.is_gone)
        finally:
            ccm.stop()
            door.close()

        assert len(ccm.lines("api_server_unavailable")) == 1
        assert not ccm.lines("Traceback")
