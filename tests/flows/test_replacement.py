"""A machine that is replaced: another one with the same state directory has its load balancers."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog

from tests.conformance.dataplane_world import EchoServers
from tests.fakes import lan
from tests.flows import servers
from tests.flows.conftest import CLOCK, eventually

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

log = structlog.get_logger()
PORT = 8080
COUNT = 6


class Place:
    """A machine that can be replaced by an equal one, as a container is."""

    def __init__(self, link: lan.Lan, directory: Path, runtime: Path, echo: EchoServers) -> None:
        self.link = link
        self._echo = echo
        self._runtime = runtime
        self.server = servers.Process(
            directory,
            runtime,
            f"sqlite:///{directory}/fakecloud.db",
            environment={},
            listen=f"{lan.NETWORK}.1:8440",
            insecure_listen="",
            pool=f"default=interface:{lan.NETWORK}.64/26@eth0",
        )
        self._number = 0
        self.arrive()

    def arrive(self) -> None:
        """Plug in a machine on which nothing runs."""
        self._number += 1
        shutil.rmtree(self._runtime, ignore_errors=True)  # a container's is in memory
        self._runtime.mkdir(mode=0o700)
        self.machine = lan.Machine(self.link, f"m{self._number}", 1)
        self.server.prefix = self.machine.command()

    def leave(self) -> None:
        """Unplug the machine."""
        self.machine.kill()
        self.server.died()

    def create(self, name: str, protocol: str = "tcp") -> str:
        """Return the address of a new load balancer."""
        targets = [{"ip": lan.SWITCH, "port": port} for port in self._echo.ports]
        check = {"protocol": "tcp"}
        document = {
            "spec": {
                "listeners": [
                    {"name": "web", "protocol": protocol, "port": PORT, "target_group": "web"}
                ],
                "target_groups": [{"name": "web", "targets": targets, "health_check": check}],
            }
        }
        path = f"/v1/load-balancers/{name}"
        made = self.link.run(
            lambda: self.server.request("PUT", path, json=document, params={"wait": "15s"})
        )
        assert made.json()["status"]["state"] == "ACTIVE", made.text
        return str(made.json()["status"]["addresses"][0]["ip"])

    def answers(self, ip: str) -> bool:
        """Say whether a target answers there now."""

        def connect() -> bool:
            try:
                with socket.create_connection((ip, PORT), timeout=0.1) as connection:
                    return bool(connection.recv(64))
            except OSError:
                return False

        return self.link.run(connect)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        link = lan.Lan()
        stack.callback(link.close)
        echo = link.run(lambda: EchoServers(lan.SWITCH, 1))
        stack.callback(echo.close)
        runtime = stack.enter_context(tempfile.TemporaryDirectory(prefix="fc-"))
        made = Place(link, tmp_path / "state", Path(runtime) / "run", echo)
        made.server.start()
        stack.callback(made.leave)
        yield made


def test_addresses_answer_before_the_server_is_there(place: Place) -> None:
    ips = [place.create(f"web-{number}") for number in range(COUNT)]
    place.create("dns", "udp")
    assert all(place.answers(ip) for ip in ips)
    place.leave()
    place.arrive()
    started, met = CLOCK.monotonic(), dict[str, float]()

    def all_answer() -> bool:
        for ip in ips:
            if ip not in met and place.answers(ip):
                met[ip] = CLOCK.monotonic() - started
        return len(met) == COUNT

    with ThreadPoolExecutor(1) as thread:
        ready = thread.submit(place.server.start)
        eventually(all_answer, 30)
        ready.result()
    ready_s = CLOCK.monotonic() - started
    log.info("replaced", answered_s=round(max(met.values()), 2), ready_s=round(ready_s, 2))
    told = [line for line in place.server.log.read_text().splitlines() if "_restored" in line]
    assert f'"serving": {COUNT + 1}' in told[-1]
    assert place.link.run(place.server.broken) == []
