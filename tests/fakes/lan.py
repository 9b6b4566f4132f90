"""A local network of its own: machines as network namespaces on one switch, gone after the tests.

A machine's namespace lives only as long as the processes in it: kill them, and the machine is
gone from the network like one whose power failed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import subprocess
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import TypeVar

from fakecloud.clock import SystemClock

CLONE_NEWNET = 0x40000000
_NODAD = 0x02  # linux/if_addr.h: usable at once
NETWORK = "10.94.0"
SWITCH = f"{NETWORK}.254"
NETWORK6 = "fd94:"
SWITCH6 = f"{NETWORK6}:254"
_libc = ctypes.CDLL(None, use_errno=True)
_CLOCK = SystemClock()
T = TypeVar("T")


def can_make_namespaces() -> bool:
    """Say whether this process may make network namespaces."""
    caps = next(s for s in Path("/proc/self/status").read_text().splitlines() if "CapEff" in s)
    return bool(int(caps.split()[1], 16) >> 21 & 1)  # CAP_SYS_ADMIN


class Machine:
    """A namespace with an interface eth0 on the switch."""

    def __init__(self, lan: Lan, name: str, last: int) -> None:
        self.name = name
        self.ip = f"{NETWORK}.{last}"
        self.ip6 = f"{NETWORK6}:{last}"
        self._lan = lan
        holder = ["unshare", "--net", "sleep", "3600"]
        self._holder = subprocess.Popen(holder, stdin=subprocess.DEVNULL)
        self._wait_for_namespace()
        self.mac = lan.plug(self, f"{name}-up")

    @property
    def pid(self) -> int:
        """Return the process that holds the namespace."""
        return self._holder.pid

    def command(self, *words: str) -> list[str]:
        """Return a command that runs `words` on the machine."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *words]

    def processes(self) -> list[int]:
        """Return every process on the machine."""
        found, mine = [], self._namespace(self.pid)
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self._namespace(int(entry.name)) == mine:
                    found.append(int(entry.name))
        return found

    def signal_all(self, number: int) -> None:
        """Send a signal to every process but the one that holds the namespace."""
        for pid in self.processes():
            if pid != self.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def kill(self) -> None:
        """Let the machine lose its power; repeating is harmless."""
        if self._holder.returncode is not None:
            return
        self.signal_all(signal.SIGKILL)
        self._holder.kill()
        self._holder.wait(10)

    def _wait_for_namespace(self) -> None:
        ours = self._namespace(os.getpid())
        for _ in range(500):
            if self._namespace(self.pid) != ours:
                return
            _CLOCK.wait(Event(), 0.01)
        raise AssertionError("no namespace of its own after 5 s")

    @staticmethod
    def _namespace(pid: int) -> int:
        return os.stat(f"/proc/{pid}/ns/net").st_ino


class Lan:
    """The switch, in a namespace with an address of its own, from which everything is asked."""

    def __init__(self) -> None:
        with ThreadPoolExecutor(1) as thread:  # a thread may change its namespace, and then ends
            self._switch = thread.submit(_fresh_namespace).result()
        self.run(self._make_switch)

    def run(self, call: Callable[[], T]) -> T:
        """Return what `call` returns in the switch's namespace."""

        def inside() -> T:
            assert _libc.setns(self._switch, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            return call()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(inside).result()

    def plug(self, machine: Machine, port: str) -> str:
        """Give the machine eth0; return its MAC."""
        mac = self.run(lambda: self._plug(machine, port))
        add = ["ip", "address", "add"]
        for words in (
            ["ip", "link", "set", "lo", "up"],
            # As a host that is to announce IPv6 addresses; and its own are usable at once.
            ["sysctl", "-qw", "net.ipv6.conf.eth0.ndisc_notify=1"],
            ["sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0"],
            ["ip", "link", "set", "eth0", "up"],
            [*add, f"{machine.ip}/24", "dev", "eth0"],
            [*add, f"{machine.ip6}/64", "dev", "eth0", "nodad"],
        ):
            subprocess.run(machine.command(*words), check=True)
        return mac

    def close(self) -> None:
        """Forget the namespace; with its last user it is gone."""
        os.close(self._switch)

    @staticmethod
    def _make_switch() -> None:
        from pyroute2 import IPRoute

        with IPRoute() as route:
            route.link("add", ifname="sw0", kind="bridge")
            index = route.link_lookup(ifname="sw0")[0]
            # Given, it stays; else it would change with the machines that come and go.
            route.link("set", index=index, address="02:00:0a:5e:00:fe", state="up")
            route.addr("add", index=index, address=SWITCH, prefixlen=24)
            route.addr("add", index=index, address=SWITCH6, prefixlen=64, flags=_NODAD)
            route.link("set", index=route.link_lookup(ifname="lo")[0], state="up")

    @staticmethod
    def _plug(machine: Machine, port: str) -> str:
        from pyroute2 import IPRoute

        with IPRoute() as route:
            peer = {"ifname": "eth0", "net_ns_pid": machine.pid}
            route.link("add", ifname=port, kind="veth", peer=peer)
            index = route.link_lookup(ifname=port)[0]
            bridge = route.link_lookup(ifname="sw0")[0]
            route.link("set", index=index, state="up", master=bridge)
        return _mac_of(machine)


def _mac_of(machine: Machine) -> str:
    shown = subprocess.run(
        machine.command("ip", "-o", "link", "show", "eth0"), capture_output=True, check=True
    ).stdout.decode()
    return shown.split("link/ether ")[1].split()[0]


def _fresh_namespace() -> int:
    assert _libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Witness:
    """Asks the link every 20 ms who has an address, and notes every answer."""

    def __init__(self, lan: Lan, ip: str) -> None:
        self._lan = lan
        self._ip = ip
        self._stop = Event()
        self._thread = Thread(target=lambda: lan.run(self._run), daemon=True)
        self.answers: list[tuple[float, str]] = []

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def doubles(self) -> list[tuple[str, ...]]:
        """Return the rounds that more than one machine answered, or that went back to another."""
        rounds: defaultdict[float, set[str]] = defaultdict(set)
        for at, mac in self.answers:
            rounds[at].add(mac)
        return [tuple(sorted(macs)) for macs in rounds.values() if len(macs) > 1]

    def owners(self) -> list[str]:
        """Return who answered, in order, without repetitions."""
        found: list[str] = []
        for _, mac in self.answers:
            if found[-1:] != [mac]:
                found.append(mac)
        return found

    def _run(self) -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as link:
            link.bind(("sw0", 0x0806))
            mine = link.getsockname()[4]
            ask = (
                b"\xff" * 6
                + mine
                + struct.pack("!H", 0x0806)
                + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
                + mine
                + socket.inet_aton(SWITCH)
                + bytes(6)
                + socket.inet_aton(self._ip)
            )
            while not self._stop.is_set():
                at = _CLOCK.monotonic()
                link.send(ask)
                while (left := at + 0.02 - _CLOCK.monotonic()) > 0:
                    if select.select([link], [], [], left)[0]:
                        self._note(at, link.recv(128))

    def _note(self, at: float, frame: bytes) -> None:
        """Take an ARP reply of the address that was asked for."""
        if frame[20:22] == b"\x00\x02" and frame[28:32] == socket.inet_aton(self._ip):
            self.answers.append((at, frame[22:28].hex(":")))


class DatabaseDoor:
    """A socket that machines share, to a PostgreSQL on a loopback port; it can be shut."""

    def __init__(self, path: Path, port: int) -> None:
        self._port = port
        self._is_open = True
        self._living: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o777)
        self._listener.listen(64)
        self._thread = Thread(target=self._accept, daemon=True)
        self._thread.start()

    def open(self) -> None:
        """Let everybody through again."""
        self._is_open = True

    def shut(self) -> None:
        """Cut every connection, and all new ones."""
        self._is_open = False
        for one in list(self._living):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Be gone."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()
        self.shut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                inner, _ = self._listener.accept()
                if not self._is_open:
                    inner.close()
                    continue
                outer = socket.create_connection(("127.0.0.1", self._port))
                self._living |= {inner, outer}
                Thread(target=self._connect, args=(inner, outer), daemon=True).start()

    def _connect(self, inner: socket.socket, outer: socket.socket) -> None:
        back = Thread(target=self._pump, args=(outer, inner), daemon=True)
        back.start()
        self._pump(inner, outer)
        back.join()
        self._living -= {inner, outer}
        inner.close()
        outer.close()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
