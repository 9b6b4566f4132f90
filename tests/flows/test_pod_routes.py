"""A load balancer reaches a pod behind a node: by a route of the cloud, on real namespaces."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import lan
from tests.flows import servers
from tests.flows.conftest import eventually

pytestmark = [
    pytest.mark.haproxy,
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        not lan.can_make_namespaces(), reason="network namespaces need CAP_SYS_ADMIN (run as root)"
    ),
    pytest.mark.skipif(
        shutil.which("haproxy") is None, reason="no haproxy here (apt-get install haproxy)"
    ),
]

POD, PODS = "10.244.1.5", "10.244.1.0/24"
PORT = 8080


class World:
    """The cloud's host and a node with a pod, on one link."""

    def __init__(self, link: lan.Lan, host: lan.Machine, node: lan.Machine, server: Any) -> None:
        self.link = link
        self.host = host
        self.node = node
        self.server: servers.Process = server

    def ask(self, method: str, path: str, **more: Any) -> Any:
        answer = self.link.run(lambda: self.server.request(method, path, **more))
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def routes(self) -> str:
        return self.run("ip", "route", "show", "proto", "252")

    def run(self, *words: str) -> str:
        done = subprocess.run(self.host.command(*words), check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def lead(self, next_hop: str) -> None:
        self.ask("PUT", "/v1/networks/pods", json={"ranges": ["10.244.0.0/16"]})
        wish = {"network": "pods", "destination": PODS, "next_hop": next_hop}
        self.ask("PUT", "/v1/routes/n1", json=wish)

    def balance(self) -> str:
        listener = {"name": "web", "protocol": "tcp", "port": PORT, "target_group": "web"}
        check = {"protocol": "tcp", "interval_s": 1}
        target = {"ip": POD, "port": PORT}
        group = {"name": "web", "targets": [target], "health_check": check}
        document = {"spec": {"listeners": [listener], "target_groups": [group]}}
        made = self.ask("PUT", "/v1/load-balancers/web", json=document, params={"wait": "15s"})
        return str(made["status"]["addresses"][0]["ip"])

    def answers(self, ip: str) -> bool:
        def connect() -> bool:
            try:
                with socket.create_connection((ip, PORT), timeout=1) as connection:
                    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    return bool(connection.recv(64))
            except OSError:
                return False

        return self.link.run(connect)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        link = lan.Lan()
        stack.callback(link.close)
        host, node = lan.Machine(link, "host", 1), lan.Machine(link, "node", 2)
        for machine in (host, node):
            stack.callback(machine.kill)
        subprocess.run(node.command("ip", "address", "add", f"{POD}/32", "dev", "lo"), check=True)
        serve = [sys.executable, "-m", "http.server", "--bind", POD, str(PORT)]
        pod = subprocess.Popen(
            node.command(*serve), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        stack.callback(pod.wait)
        stack.callback(node.kill)
        runtime = stack.enter_context(tempfile.TemporaryDirectory(prefix="fc-"))
        server = servers.Process(
            tmp_path / "state",
            Path(runtime),
            f"sqlite:///{tmp_path}/cloud.db",
            token_file=str(tmp_path / "admin.token"),
            listen=f"{host.ip}:8440",
            pool=f"default=interface:{lan.NETWORK}.64/28@eth0",
        )
        server.environment = {}  # as it comes
        server.options["insecure-listen"] = ""
        server.prefix = host.command()
        server.start()
        stack.callback(server.died)
        stack.callback(host.kill)  # first: it takes the server along
        yield World(link, host, node, server)


def test_load_balancer_reaches_a_pod_by_a_route_that_heals_and_survives(world: World) -> None:
    ip = world.balance()
    assert not world.answers(ip)
    world.lead(world.node.ip)
    eventually(lambda: world.ask("GET", "/v1/routes/n1")["state"] == "ACTIVE")
    assert world.routes() == f"{PODS} via {world.node.ip} dev eth0"
    eventually(lambda: world.answers(ip))

    world.run("ip", "route", "del", PODS)
    eventually(lambda: world.routes() != "", 5)
    eventually(lambda: world.answers(ip))

    world.server.kill()
    assert world.routes() != ""  # the load balancer goes on, and so does its way
    assert world.answers(ip)
    world.run("ip", "route", "add", "10.244.9.0/24", "via", world.node.ip, "proto", "252")
    world.server.start()
    eventually(lambda: "10.244.9.0/24" not in world.routes())
    assert world.answers(ip)

    world.ask("DELETE", "/v1/routes/n1")
    eventually(lambda: world.routes() == "")
    eventually(lambda: not world.answers(ip))


def test_route_that_the_host_cannot_have_says_why(world: World) -> None:
    world.lead("10.99.0.1")
    failed = eventually(
        lambda: (found := world.ask("GET", "/v1/routes/n1"))["state"] == "ERROR" and found
    )
    assert "next hop 10.99.0.1 is on no link" in failed["last_error"]["message"]
    assert f"{lan.NETWORK}.0/24 on eth0" in failed["last_error"]["message"]
    world.lead(world.node.ip)
    eventually(lambda: world.ask("GET", "/v1/routes/n1")["state"] == "ACTIVE")
