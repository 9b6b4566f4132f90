"""The data plane of a host with targets that answer datagrams, on loopback addresses."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import msgspec

from fakecloud import clock, model
from fakecloud.dataplane import host as dataplane
from fakecloud.udp import control, process
from tests.conformance.dataplane_world import IP, NET, PORT, HaproxyWorld, desired

TARGET = f"{NET}.19"
SMALL = 64


def wish(
    *targets: model.Target,
    udp: tuple[int, ...] = (PORT,),
    tcp: tuple[int, ...] = (),
    **more: object,
) -> model.Desired:
    """Return a load balancer with UDP ports, and perhaps TCP ones; arguments as of `desired`."""
    idle_s = more.pop("idle_timeout_s", 60)
    limit = more.pop("max_connections", None)
    whole = desired(*targets, ports=tcp, **more)  # type: ignore[arg-type]
    relayed = tuple(
        model.Listener(
            name=f"u{port}",
            protocol="udp",
            port=port,
            target_group="web",
            idle_timeout_s=idle_s,  # type: ignore[arg-type]
            max_connections=limit,  # type: ignore[arg-type]
        )
        for port in udp
    )
    spec = msgspec.structs.replace(whole.spec, listeners=(*whole.spec.listeners, *relayed))
    return msgspec.structs.replace(whole, spec=spec)


class EchoTarget:
    """Answers "ip:port " and the client's own words. `peers`: who sent, in order."""

    def __init__(self, ip: str = TARGET, port: int = 0) -> None:
        self.socket = socket.socket(
            socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM
        )
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind((ip, port))
        self.ip, self.port = self.socket.getsockname()[:2]
        self.name = f"{self.ip}:{self.port}"
        self.target = model.Target(ip=self.ip, port=self.port)
        self.peers: list[tuple[str, int]] = []
        self.silent = False

    def answer(self) -> None:
        """Answer one datagram."""
        words, peer = self.socket.recvfrom(65536)
        self.peers.append(peer[:2])
        if not self.silent:
            said = words if len(words) > SMALL else f"{self.name} ".encode() + words
            self.socket.sendto(said, peer)


class Targets:
    """Some targets, in a thread of their own."""

    def __init__(self, *targets: EchoTarget) -> None:
        self._targets = {one.socket.fileno(): one for one in targets}
        self._poll = select.poll()
        for one in targets:
            self._poll.register(one.socket, select.POLLIN)
        self._condemned: list[EchoTarget] = []
        self._stop, self._dead = Event(), Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def kill(self, one: EchoTarget) -> None:
        """Let nobody listen there any more; a socket that is being waited on lives on."""
        self._condemned.append(one)
        assert self._dead.wait(5)

    def close(self) -> None:
        """End every target."""
        self._stop.set()
        self._thread.join(5)
        for one in self._targets.values():
            one.socket.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            while self._condemned:
                one = self._condemned.pop()
                self._poll.unregister(one.socket)
                one.socket.close()
                self._dead.set()
            for file, _ in self._poll.poll(20):
                with contextlib.suppress(OSError):
                    self._targets[file].answer()


class UdpWorld(HaproxyWorld):
    """A whole data plane; `targets` answer connections, `echo` datagrams."""

    plane: dataplane.HostDataPlane  # type: ignore[assignment]

    def __init__(self, run_as: tuple[int, int] | None = None) -> None:
        super().__init__(run_as)
        self.echo = tuple(EchoTarget() for _ in range(3))
        self._answering = Targets(*self.echo)
        self.udp = tuple(one.target for one in self.echo)

    def new_plane(self) -> dataplane.HostDataPlane:  # type: ignore[override]
        return dataplane.HostDataPlane(
            self.root / "state",
            self.root / "run",
            clock.SystemClock(),
            run_as=self.run_as,
            beat_s=self.beat_s,
            on_crash=self.crashes.append,
        )

    def relays(self) -> list[int]:
        """Return the relay processes of this world."""
        return [pid for pid, _ in process.sweep(self.root / "state" / "lb")]

    def relay(self) -> int:
        """Return the only relay process."""
        (pid,) = self.relays()
        return pid

    def versions(self) -> list[str]:
        """Return what the relays that answer say of themselves."""
        doors = [control.Control(str(path)) for path in (self.root / "run").glob("*.u*.sock")]
        return [hello.version for door in doors if (hello := door.hello()) is not None]

    def kill(self, one: EchoTarget) -> None:
        """Let nobody listen at a target any more."""
        self._answering.kill(one)

    def close(self) -> None:
        super().close()
        self._answering.close()

    def listener(self, name: str = f"u{PORT}") -> model.Counters:
        """Return the counters of a listener."""
        rows = self.plane.counters("lb-1") or []
        return next(row for row in rows if (row.kind, row.name) == ("listener", name))


class Client:
    """One socket, so one session."""

    def __init__(
        self, ip: str = IP, port: int = PORT, timeout: float = 5.0, source: str = ""
    ) -> None:
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.settimeout(timeout)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect((ip, port))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, words: str = "hello") -> str:
        """Return who answers: a target's name, "nobody" or "refused"."""
        try:
            self.socket.send(words.encode())
            name, _, echo = self.socket.recv(65536).decode().partition(" ")
        except TimeoutError:
            return "nobody"
        except ConnectionRefusedError:
            return "refused"
        assert echo == words
        return name


def ask(ip: str = IP, port: int = PORT, timeout: float = 5.0, source: str = "") -> str:
    """Return who answers a client that was never there before."""
    with Client(ip, port, timeout, source) as client:
        return client.ask()


class Conversations:
    """Sessions that each ask, wait for the answer, and ask again; counts what got lost."""

    def __init__(self, count: int = 20, wait_s: float = 2.0) -> None:
        self.answered = self.lost = 0
        self.moved: set[int] = set()
        self._clients = [Client(timeout=wait_s) for _ in range(count)]
        self._names: dict[int, str] = {}
        self._stop = Event()
        self._threads = [Thread(target=self._run, args=(i,), daemon=True) for i in range(count)]

    @contextlib.contextmanager
    def going_on(self) -> Iterator[Conversations]:
        """Talk until the end of the block."""
        for thread in self._threads:
            thread.start()
        yield self
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        for client in self._clients:
            client.socket.close()

    def _run(self, index: int) -> None:
        client, turn, answered, lost = self._clients[index], 0, 0, 0
        while not self._stop.is_set():
            turn += 1
            name = client.ask(str(turn))
            if ":" not in name:
                lost += 1
            else:
                answered += 1
                if self._names.setdefault(index, name) != name:
                    self.moved.add(index)
        self.answered += answered
        self.lost += lost


def environment(pid: int) -> set[bytes]:
    """Return the names in a process's environment."""
    content = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return {entry.partition(b"=")[0] for entry in content if entry}
