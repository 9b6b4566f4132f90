"""Two hosts on one PostgreSQL and one link: an address answers from one of them, whatever happens."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import structlog

from tests.conformance.dataplane_world import EchoServers
from tests.fakes import lan, postgresql
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
    pytest.mark.skipif(postgresql.binaries() is None, reason=postgresql.MISSING),
]

log = structlog.get_logger()
PORT = 8080
FAILOVER_S = 5.0


@dataclass
class Host:
    """A machine with a server, and what connects it with the database."""

    machine: lan.Machine
    server: servers.Process
    database: lan.DatabaseDoor


class World:
    """Two hosts and a load balancer that one of them answers for."""

    def __init__(self, link: lan.Lan, hosts: list[Host], echo: EchoServers) -> None:
        self.link = link
        self.hosts = hosts
        self._echo = echo
        self.vip, self.vip6 = self._create()
        with lan.Witness(link, self.vip) as witness:
            eventually(lambda: bool(witness.answers))
        self.first = next(h for h in hosts if h.machine.mac == witness.answers[0][1])
        self.other = next(h for h in hosts if h is not self.first)

    def ask(self, host: Host, method: str, path: str, **more: object) -> dict[str, object]:
        """Ask a host's API."""
        answer = self.link.run(lambda: host.server.request(method, path, **more))
        assert answer.is_success, answer.text
        return dict(answer.json())

    def answers(self, ip: str | None = None) -> bool:
        """Say whether the load balancer answers now, on its IPv4 address unless told otherwise."""

        def connect() -> bool:
            try:
                with socket.create_connection((ip or self.vip, PORT), timeout=0.2) as connection:
                    return bool(connection.recv(64))
            except OSError:
                return False

        return self.link.run(connect)

    def failover(self, accident: Callable[[], None]) -> tuple[float, lan.Witness]:
        """Return the seconds from an accident of the first host to an answer from the other."""
        with lan.Witness(self.link, self.vip) as witness:
            accident()
            started = CLOCK.monotonic()
            eventually(lambda: witness.owners()[-1:] == [self.other.machine.mac], 15)
            eventually(self.answers, 15)
            taken_s = CLOCK.monotonic() - started
            log.info("answered_from_the_other", seconds=round(taken_s, 2))
            servers.pause(2)
        return taken_s, witness

    def owner6(self) -> str | None:
        """Return the MAC that the switch knows for the IPv6 address."""
        words = ["ip", "-6", "neighbour", "show", "to", self.vip6, "dev", "sw0"]
        told = self.link.run(
            lambda: subprocess.run(words, capture_output=True, check=True, text=True).stdout
        )
        return told.partition("lladdr ")[2].split()[0] if "lladdr" in told else None

    def _create(self) -> tuple[str, str]:
        targets = [{"ip": lan.SWITCH, "port": port} for port in self._echo.ports]
        listener = {"name": "web", "protocol": "tcp", "port": PORT, "target_group": "web"}
        group = {"name": "web", "targets": targets, "health_check": {"protocol": "tcp"}}
        addresses = [{"family": "ipv4"}, {"family": "ipv6"}]
        spec = {"listeners": [listener], "target_groups": [group], "addresses": addresses}
        document = {"spec": spec}
        path, wait = "/v1/load-balancers/web", {"wait": "15s"}
        made = self.ask(self.hosts[0], "PUT", path, json=document, params=wait)
        status = made["status"]
        assert isinstance(status, dict)
        assert status["state"] == "ACTIVE"
        ips = {one["family"]: str(one["ip"]) for one in status["addresses"]}
        return ips["ipv4"], ips["ipv6"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(servers.databases("postgresql", tmp_path))
        port = urlsplit(url).port
        assert port is not None
        link = lan.Lan()
        stack.callback(link.close)
        echo = link.run(lambda: EchoServers(lan.SWITCH, 2))
        stack.callback(echo.close)
        hosts = []
        for last, name in enumerate(("one", "other"), 1):
            door = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fc-db-")))
            door.chmod(0o755)
            database = lan.DatabaseDoor(door / ".s.PGSQL.5432", port)
            stack.callback(database.close)
            machine = lan.Machine(link, name, last)
            stack.callback(machine.kill)
            runtime = stack.enter_context(tempfile.TemporaryDirectory(prefix="fc-"))
            server = servers.Process(
                tmp_path / name,
                Path(runtime),
                f"postgresql://postgres@/postgres?host={door}&port=5432",
                token_file=str(tmp_path / "admin.token"),
                listen=f"{machine.ip}:8440",
                host_name=name,
            )
            ranges = (f"{lan.NETWORK}.64/28", f"{lan.NETWORK6}:40/124")
            pools = ",".join(f"default=interface:{one}@eth0" for one in ranges)
            server.environment = {"FAKECLOUD_POOL": pools}
            server.options["insecure-listen"] = ""
            server.prefix = machine.command()
            server.start()
            stack.callback(server.died)
            stack.callback(machine.kill)  # first: it takes the server along
            hosts.append(Host(machine, server, database))
        yield World(link, hosts, echo)


def test_a_machine_that_loses_its_power(world: World) -> None:
    taken_s, witness = world.failover(world.first.machine.kill)
    assert taken_s <= FAILOVER_S
    assert witness.doubles() == []
    assert witness.owners() == [world.first.machine.mac, world.other.machine.mac]


def test_a_machine_whose_processes_all_die(world: World) -> None:
    """Its kernel lives on, and would answer for the address for ever."""
    taken_s, witness = world.failover(lambda: world.first.machine.signal_all(signal.SIGKILL))
    assert taken_s <= FAILOVER_S
    assert witness.doubles() == []
    assert witness.owners() == [world.first.machine.mac, world.other.machine.mac]


@pytest.mark.parametrize("accident", ["power", "processes"])
def test_the_ipv6_address_moves_too(world: World, accident: str) -> None:
    eventually(lambda: world.answers(world.vip6), 15)
    assert world.owner6() == world.first.machine.mac
    started = CLOCK.monotonic()
    if accident == "power":
        world.first.machine.kill()
    else:
        world.first.machine.signal_all(signal.SIGKILL)
    eventually(lambda: not world.answers(world.vip6), 15)
    eventually(lambda: world.answers(world.vip6), 15)
    taken_s = CLOCK.monotonic() - started
    log.info("answered_from_the_other", family="ipv6", seconds=round(taken_s, 2))
    assert taken_s <= FAILOVER_S
    assert world.owner6() == world.other.machine.mac


def test_a_machine_that_freezes_and_wakes_up(world: World) -> None:
    machine = world.first.machine
    taken_s, witness = world.failover(lambda: machine.signal_all(signal.SIGSTOP))
    assert taken_s <= FAILOVER_S
    with lan.Witness(world.link, world.vip) as later:
        machine.signal_all(signal.SIGCONT)
        eventually(lambda: not world.first.server.balancers(), 20)
        servers.pause(1)
    assert witness.doubles() == later.doubles() == []
    assert witness.owners() == [machine.mac, world.other.machine.mac]
    assert later.owners() == [world.other.machine.mac]
    assert world.answers()


def test_a_machine_that_can_not_reach_the_database(world: World) -> None:
    machine = world.first.machine
    taken_s, witness = world.failover(world.first.database.shut)
    assert taken_s <= FAILOVER_S
    with lan.Witness(world.link, world.vip) as later:
        world.first.database.open()
        eventually(lambda: not world.first.server.balancers(), 20)
        servers.pause(1)
    assert witness.doubles() == later.doubles() == []
    assert witness.owners() == [machine.mac, world.other.machine.mac]
    assert later.owners() == [world.other.machine.mac]
    assert world.answers()


def test_one_host_that_is_left_answers_for_ever(world: World) -> None:
    """Also while the database is away: there is nobody who could take over."""
    world.failover(world.first.machine.kill)
    servers.pause(2)
    world.other.database.shut()
    servers.pause(5)
    assert world.answers()
