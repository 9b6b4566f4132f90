"""A server whose load balancers are containers, on a real engine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakecloud.dataplane import containers
from tests.conformance.dataplane_world import DockerWorld, EchoServers, docker_missing
from tests.flows import servers
from tests.flows.conftest import eventually

pytestmark = [pytest.mark.docker, pytest.mark.haproxy, pytest.mark.timeout(120)]
NET = f"10.{150 + os.getpid() % 50}.{os.getpid() // 50 % 250}"


@pytest.fixture
def engine() -> Iterator[containers.Engine]:
    missing = docker_missing()
    if missing is not None:
        pytest.skip(missing)
    made = containers.Engine()
    name = f"fc-flow-{os.getpid()}"
    pool = {"Subnet": f"{NET}.0/24", "Gateway": f"{NET}.1"}
    made.ask("POST", "/networks/create", json={"Name": name, "IPAM": {"Config": [pool]}})
    yield made
    made.ask("DELETE", f"/networks/{name}")
    made.close()


@pytest.fixture
def server(engine, tmp_path: Path) -> Iterator[servers.Process]:
    with tempfile.TemporaryDirectory(prefix="fc-") as runtime:
        pool = f"default=docker:{NET}.64/28@fc-flow-{os.getpid()}"
        url = f"sqlite:///{tmp_path}/cloud.db"
        made = servers.Process(tmp_path / "state", Path(runtime), url, pool=pool)
        made.environment["FAKECLOUD_DOCKER_IMAGE"] = DockerWorld.image
        made.start()
        yield made
        for name in ("web",):
            made.request("DELETE", f"/v1/load-balancers/{name}")
        eventually(lambda: not listed(engine, made), 30)
        made.kill()


def listed(engine: containers.Engine, server: servers.Process) -> list[Any]:
    state = server.directory.resolve() / "containers"
    filters = f'{{"label": ["{containers.STATE_LABEL}={state}"]}}'
    return list(engine.ask("GET", "/containers/json", params={"all": "1", "filters": filters}))


def create(server: servers.Process, echo: EchoServers) -> dict[str, Any]:
    targets = [{"ip": f"{NET}.1", "port": port} for port in echo.ports]
    listener = {"name": "web", "protocol": "tcp", "port": 80, "target_group": "web"}
    group = {"name": "web", "targets": targets, "health_check": {"protocol": "tcp"}}
    spec = {"listeners": [listener], "target_groups": [group]}
    answer = server.request(
        "PUT", "/v1/load-balancers/web", json={"spec": spec}, params={"wait": "30s"}
    )
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()["status"]
    return found


def test_a_load_balancer_is_a_container_without_rights(engine, server):
    echo = EchoServers(f"{NET}.1", 2)
    try:
        status = create(server, echo)
        assert status["state"] == "ACTIVE", status
        ip = status["addresses"][0]["ip"]
        assert ip == f"{NET}.65"
        eventually(lambda: servers.reaches(ip, 80))
        (container,) = listed(engine, server)
        seen = engine.ask("GET", f"/containers/{container['Id']}/json")
        assert seen["HostConfig"]["ReadonlyRootfs"] is True
        assert seen["HostConfig"]["CapDrop"] == ["ALL"]
        assert seen["HostConfig"]["Privileged"] is False
        assert not any(seen["NetworkSettings"]["Ports"].values())
        (pid,) = server.balancers()
        told = Path(f"/proc/{pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in told
        assert "NoNewPrivs:\t1" in told
        server.kill()
        assert servers.reaches(ip, 80), "it goes on without the server"
        server.start()
        assert server.balancers() == {pid}
        engine.ask("POST", f"/containers/{container['Id']}/kill")
        eventually(lambda: not servers.reaches(ip, 80) or server.balancers() != {pid}, 20)
        eventually(lambda: servers.reaches(ip, 80), 30)
    finally:
        echo.close()
