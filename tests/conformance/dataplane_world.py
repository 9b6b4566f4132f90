"""The two worlds of the data plane's suite: memory, and HAProxy on loopback addresses."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import shutil
import signal
import socket
import tempfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from ipaddress import ip_network
from pathlib import Path
from threading import Event, Thread
from typing import Any

import msgspec
import pytest

from fakecloud import clock, errors, model
from fakecloud.dataplane import containers
from fakecloud.haproxy import dataplane, runtime, state
from fakecloud.supervision import pulse
from tests.fakes.dataplane import FakeDataPlane, FakeHost

NET = f"127.91.{os.getpid() % 250}"  # runs beside each other don't meet
IP, OTHER_IP, TARGET_IP = f"{NET}.1", f"{NET}.2", f"{NET}.9"
PORT = 18080
HAPROXY = os.environ.get("FAKECLOUD_HAPROXY", "haproxy")
"""The program that the suite runs, so that it can be run for every version."""


def desired(
    *targets: model.Target,
    lb_id: str = "lb-1",
    epoch: int = 1,
    ips: tuple[str, ...] = (IP,),
    ports: tuple[int, ...] = (PORT,),
    generation: int = 1,
    down: Collection[model.ProbeKey] = (),
    group: dict[str, object] | None = None,
    **spec: object,
) -> model.Desired:
    """Return a load balancer with one listener per port and one target group."""
    of_group = msgspec.convert({"name": "web", "targets": [], **(group or {})}, model.TargetGroup)
    listeners = tuple(
        model.Listener(name=f"p{port}", protocol="tcp", port=port, target_group="web")
        for port in ports
    )
    whole = model.Spec(
        listeners=listeners,
        target_groups=(msgspec.structs.replace(of_group, targets=targets),),
    )
    return model.Desired(
        lb_id=lb_id,
        epoch=epoch,
        generation=generation,
        spec=msgspec.structs.replace(whole, **spec),
        addresses=tuple(model.Address(family="ipv4", ip=ip, pool="default") for ip in ips),
        down=frozenset(down),
    )


class World(ABC):
    """A host with a data plane and three targets; `crashes` are the ids `on_crash` was told."""

    def __init__(self) -> None:
        self.crashes: list[str] = []

    plane: Any
    most_addresses = 4
    targets: tuple[model.Target, ...]

    @abstractmethod
    def restart(self) -> None:
        """Replace the data plane's object, as a restart of the server does."""

    @abstractmethod
    def reach(self, ip: str = IP, port: int = PORT, client: str = "127.0.0.1") -> str:
        """Return "ip:port" of the target that answers `client`, "closed" or "refused"."""

    @abstractmethod
    def starts(self, lb_id: str = "lb-1") -> object:
        """Return a value that changes whenever a process is started for the load balancer."""

    @abstractmethod
    def crash(self, lb_id: str = "lb-1") -> None:
        """Kill the process that serves."""

    @abstractmethod
    @contextlib.contextmanager
    def occupied(self, ip: str, port: int) -> Iterator[None]:
        """Let another program have the port."""

    @abstractmethod
    def close(self) -> None:
        """Leave nothing behind."""

    def answers(self, ip: str = IP, port: int = PORT) -> set[str]:
        """Return everything that a dozen connections met."""
        return {self.reach(ip, port) for _ in range(12)}

    def names(self, *indexes: int) -> set[str]:
        """Return the targets' names as `reach` gives them."""
        return {f"{self.targets[i].ip}:{self.targets[i].port}" for i in indexes}

    def eventually(self, holds: Callable[[], bool], seconds: float = 5) -> None:
        """Wait until `holds`."""
        time = clock.SystemClock()
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"waited {seconds} s in vain"
            time.wait(Event(), 0.005)


class FakeWorld(World):
    """Everything in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.host = FakeHost()
        self.plane = FakeDataPlane(self.host, on_crash=self.crashes.append)
        self.targets = tuple(model.Target(ip=TARGET_IP, port=port) for port in (1, 2, 3))

    def restart(self) -> None:
        self.plane.close()
        self.plane = FakeDataPlane(self.host, on_crash=self.crashes.append)

    def reach(self, ip: str = IP, port: int = PORT, client: str = "127.0.0.1") -> str:
        return self.host.reach(ip, port, client)

    def starts(self, lb_id: str = "lb-1") -> object:
        return self.host.starts[lb_id]

    def crash(self, lb_id: str = "lb-1") -> None:
        assert isinstance(self.plane, FakeDataPlane)
        self.plane.crash(lb_id)

    @contextlib.contextmanager
    def occupied(self, ip: str, port: int) -> Iterator[None]:
        self.host.foreign.add((ip, port))
        yield
        self.host.foreign.remove((ip, port))

    def close(self) -> None:
        self.plane.stop_all()


class HaproxyWorld(World):
    """HAProxy processes, real sockets, targets that say their name and then echo."""

    target_ip = TARGET_IP
    beat_s = pulse.BEAT_S
    haproxy = HAPROXY

    def __init__(self, run_as: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="fc", dir="/tmp"))
        self.run_as = run_as
        self._echo = EchoServers(self.target_ip, 3)
        self.targets = tuple(model.Target(ip=self.target_ip, port=p) for p in self._echo.ports)
        self.plane = self.new_plane()

    def new_plane(self) -> dataplane.HaproxyDataPlane:
        return dataplane.HaproxyDataPlane(
            self.root / "state",
            self.root / "run",
            clock.SystemClock(),
            haproxy=self.haproxy,
            run_as=self.run_as,
            beat_s=self.beat_s,
            on_crash=self.crashes.append,
        )

    def restart(self) -> None:
        self.plane.close()
        self.plane = self.new_plane()

    def reach(self, ip: str = IP, port: int = PORT, client: str = "127.0.0.1") -> str:
        try:
            with socket.create_connection((ip, port), 5, (client, 0)) as connection:
                return connection.recv(64).decode().strip() or "closed"
        except ConnectionRefusedError:
            return "refused"
        except ConnectionResetError:
            return "closed"

    def starts(self, lb_id: str = "lb-1") -> object:
        return self.pid(lb_id)

    def record(self, lb_id: str = "lb-1") -> state.Record:
        """Return what the load balancer's directory remembers."""
        record = state.load(self.root / "state" / "lb" / lb_id)
        assert record is not None
        return record

    def pid(self, lb_id: str = "lb-1") -> int:
        """Return the process that serves."""
        record = self.record(lb_id)
        pid = next(p.pid for p in record.processes if p.number == record.active)
        assert pid is not None
        return pid

    def door(self) -> runtime.Runtime:
        """Return the socket of the process that serves."""
        (path,) = (self.root / "run").glob(f"*.g{self.record().active}.sock")
        return runtime.Runtime(str(path))

    def crash(self, lb_id: str = "lb-1") -> None:
        kill(self.pid(lb_id))

    @contextlib.contextmanager
    def occupied(self, ip: str, port: int) -> Iterator[None]:
        with socket.create_server((ip, port)):
            yield

    def close(self) -> None:
        self.plane.stop_all()
        self.plane.close()
        self._echo.close()
        shutil.rmtree(self.root)


def kill(pid: int) -> None:
    """Kill a process; return when it is dead."""
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)


class Elsewhere:
    """A data plane whose addresses are not the suite's: they are translated on the way in."""

    def __init__(self, plane: dataplane.HaproxyDataPlane, translated: Callable[[str], str]) -> None:
        self._plane = plane
        self._translated = translated

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plane, name)

    def apply(self, wish: model.Desired) -> None:
        addresses = tuple(
            msgspec.structs.replace(one, ip=self._translated(one.ip)) for one in wish.addresses
        )
        ranges = tuple(self._translated(one) for one in wish.spec.source_ranges)
        spec = msgspec.structs.replace(wish.spec, source_ranges=ranges)
        self._plane.apply(msgspec.structs.replace(wish, addresses=addresses, spec=spec))


class DockerWorld(HaproxyWorld):
    """HAProxy in a container for each load balancer, on a network of the world's own."""

    most_addresses = 1
    image = os.environ.get("FAKECLOUD_TEST_HAPROXY_IMAGE", "haproxy:3.0")

    def __init__(self) -> None:
        self._engine = containers.Engine()
        self._name = f"fc-test-{os.getpid()}"
        self._net = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        pool = {"Subnet": f"{self._net}.0/24", "Gateway": f"{self._net}.254"}
        wish = {"Name": self._name, "IPAM": {"Config": [pool]}}
        self._engine.ask("POST", "/networks/create", json=wish)
        self.target_ip = f"{self._net}.254"
        super().__init__()

    def new_plane(self) -> Any:
        time = clock.SystemClock()
        state_dir, runtime_dir = self.root / "state", self.root / "run"
        launcher = containers.Containers(
            self._engine,
            time,
            networks=[(ip_network(f"{self._net}.0/24"), self._name)],
            image=self.image,
            state=state_dir,
            runtime=runtime_dir,
            user=(65534, 65534),
        )
        plane = dataplane.HaproxyDataPlane(
            *(state_dir, runtime_dir, time),
            haproxy=launcher,
            run_as=(65534, 65534) if os.geteuid() == 0 else None,
            on_crash=self.crashes.append,
        )
        return Elsewhere(plane, self._translated)

    def reach(self, ip: str = IP, port: int = PORT, client: str = "127.0.0.1") -> str:
        if client != "127.0.0.1":
            pytest.skip("there is one client on the network")
        try:
            return super().reach(self._translated(ip), port, self.target_ip)
        except TimeoutError:
            return "refused"
        except OSError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            return "refused"  # no such machine on the link

    def answers(self, ip: str = IP, port: int = PORT) -> set[str]:
        first = self.reach(ip, port)  # that nobody is there takes three seconds each time
        return {first} if first == "refused" else {first} | super().answers(ip, port)

    def _translated(self, ip: str) -> str:
        """Return an address or a network as it is here."""
        return ip.replace(NET, self._net).replace("127.0.0.0/8", f"{self._net}.0/24")

    @contextlib.contextmanager
    def occupied(self, ip: str, port: int) -> Iterator[None]:
        pytest.skip("nobody else is in the container of a load balancer")
        yield

    def close(self) -> None:
        super().close()
        self._engine.ask("DELETE", f"/networks/{self._name}")
        self._engine.close()


def docker_missing() -> str | None:
    """Return why there can be no docker world here; None if there can."""
    with socket.socket(socket.AF_UNIX) as door:
        try:
            door.connect(str(containers.SOCKET))
        except OSError as error:
            return f"no container engine on {containers.SOCKET}: {error.strerror}"
    engine = containers.Engine()
    try:
        engine.ask("GET", f"/images/{DockerWorld.image}/json")
    except errors.DataPlaneError as error:
        return error.message
    finally:
        engine.close()
    return None


class Echo(asyncio.Protocol):
    """Says "ip:port" of the server, then the client's own words."""

    def __init__(self, living: set[asyncio.Transport]) -> None:
        self._living = living

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._living.add(transport)
        ip, port = transport.get_extra_info("sockname")
        transport.write(f"{ip}:{port}\n".encode())

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._living.discard(self._transport)


class EchoServers:
    """Servers in a thread of their own."""

    def __init__(self, ip: str, count: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._living: set[asyncio.Transport] = set()
        self._servers = [
            self._loop.run_until_complete(
                self._loop.create_server(lambda: Echo(self._living), ip, 0, backlog=1024)
            )
            for _ in range(count)
        ]
        self.ports = [server.sockets[0].getsockname()[1] for server in self._servers]
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End every server and connection."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        while self._living:
            for transport in list(self._living):
                transport.abort()
            await asyncio.sleep(0)


class Load:
    """Short connections, one after the other in each of `threads`; counts what they met."""

    def __init__(self, ip: str, port: int, threads: int = 4) -> None:
        self.met: Counter[str] = Counter()
        self._where = (ip, port)
        self._stop = Event()
        self._threads = [Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _run(self) -> None:
        met: Counter[str] = Counter()
        while not self._stop.is_set():
            met[self._connect()] += 1
        self.met += met

    def _connect(self) -> str:
        try:
            with socket.create_connection(self._where, timeout=5) as connection:
                connection.sendall(b"ping")
                answer = b""
                while not answer.endswith(b"\nping"):
                    chunk = connection.recv(64)
                    if not chunk:
                        return "cut"
                    answer += chunk
        except OSError as error:
            return type(error).__name__
        return "ok"
