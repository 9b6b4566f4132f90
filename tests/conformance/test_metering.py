"""What a load balancer carried is known to the byte, whatever happens to its processes."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator

import msgspec
import pytest

from fakecloud import model
from tests.conformance.dataplane_world import HAPROXY, IP, PORT, HaproxyWorld, desired

pytestmark = [
    pytest.mark.haproxy,
    pytest.mark.skipif(shutil.which(HAPROXY) is None, reason="no haproxy here"),
]


@pytest.fixture
def real() -> Iterator[HaproxyWorld]:
    world = HaproxyWorld()
    yield world
    world.close()


class Client:
    """A connection that knows what it carried."""

    def __init__(self, port: int = PORT) -> None:
        self._socket = socket.create_connection((IP, port), timeout=5)
        self.sent = 0
        self.received = len(self._socket.recv(64))

    def talk(self, size: int) -> None:
        """Send `size` bytes and read them back."""
        self._socket.sendall(b"x" * size)
        self.sent += size
        left = size
        while left:
            chunk = self._socket.recv(left)
            assert chunk, "the connection was cut"
            left -= len(chunk)
            self.received += len(chunk)

    def close(self) -> None:
        self._socket.close()

    def is_cut(self) -> bool:
        return not self._socket.recv(1)


def counted(world: HaproxyWorld, kind: str = "listener") -> dict[str, model.Counters]:
    found = world.plane.counters("lb-1")
    assert found is not None
    return {one.name: one for one in found if one.kind == kind}


def carried(*clients: Client) -> tuple[int, int, int]:
    return (
        len(clients),
        sum(client.sent for client in clients),
        sum(client.received for client in clients),
    )


def totals(world: HaproxyWorld, name: str = f"p{PORT}") -> tuple[int, int, int]:
    one = counted(world)[name]
    return one.connections_total, one.bytes_in, one.bytes_out


def swapped(world: HaproxyWorld, turn: int, **group: object) -> model.Desired:
    """Return a wish that takes another process than the last turn's."""
    return desired(*world.targets, group={"connect_timeout_s": 3 + turn, **group})


def test_swaps_lose_no_byte_also_of_connections_that_outlive_them(real: HaproxyWorld) -> None:
    clients = []
    for turn in range(3):
        real.plane.apply(swapped(real, turn))
        clients.append(Client())
        for client in clients:
            client.talk(10_000 + turn)
    assert len(real.record().processes) == 3
    for client in clients:
        client.talk(777)
        client.close()
    real.eventually(lambda: totals(real) == carried(*clients))
    real.eventually(lambda: len(real.record().processes) == 1)
    assert totals(real) == carried(*clients)
    (one,) = counted(real).values()
    assert (one.gaps, one.connections) == (0, 0)
    per_target = counted(real, "target").values()
    assert sum(target.bytes_in for target in per_target) == carried(*clients)[1]
    assert sum(target.connections_total for target in per_target) == 3
    assert any(target.connect_ms is not None for target in per_target)


def test_connections_that_are_cut_are_counted_before(real: HaproxyWorld) -> None:
    """Their last bytes are in no reading until they end."""
    real.plane.apply(swapped(real, 0, drain_timeout_s=0))
    client = Client()
    client.talk(50_000)
    real.plane.apply(swapped(real, 1, drain_timeout_s=0))
    assert client.is_cut()
    client.close()
    real.eventually(lambda: len(real.record().processes) == 1)
    assert totals(real) == carried(client)
    assert counted(real)[f"p{PORT}"].gaps == 0


def test_what_a_removed_load_balancer_carried_is_kept_until_it_is_forgotten(
    real: HaproxyWorld,
) -> None:
    real.plane.apply(desired(*real.targets))
    client = Client()
    client.talk(50_000)
    real.plane.remove("lb-1", 2)
    client.close()
    for _ in range(2):
        assert totals(real) == carried(client)
        assert real.plane.counted() == ["lb-1"]
        real.restart()
        real.plane.adopt([])
    told = real.plane.counters("lb-1")
    assert told is not None
    real.plane.forget_counters("lb-1", [])  # somebody read before the end
    real.plane.forget_counters("lb-1", told)
    assert real.plane.counters("lb-1") is None
    assert real.plane.counted() == []


def test_living_load_balancers_are_not_forgotten(real: HaproxyWorld) -> None:
    real.plane.apply(desired(*real.targets))
    real.plane.forget_counters("lb-1", real.plane.counters("lb-1") or [])
    assert real.plane.counted() == ["lb-1"]


def test_restart_of_the_server_goes_on_counting(real: HaproxyWorld) -> None:
    real.plane.apply(swapped(real, 0))
    first = Client()
    first.talk(1000)
    real.plane.apply(swapped(real, 1))
    epoch = counted(real)[f"p{PORT}"].epoch
    real.restart()  # while two processes live
    second = Client()
    second.talk(2000)
    real.plane.adopt(["lb-1"])
    for client in (first, second):
        client.talk(300)
        client.close()
    real.eventually(lambda: totals(real) == carried(first, second))
    one = counted(real)[f"p{PORT}"]
    assert (one.epoch, one.gaps) == (epoch, 0)


def test_crash_loses_only_what_was_not_read_and_says_so(real: HaproxyWorld) -> None:
    real.plane.apply(desired(*real.targets))
    first = Client()
    first.talk(5000)
    first.close()
    real.eventually(lambda: totals(real) == carried(first))
    before = real.starts()
    real.crash()
    real.eventually(lambda: real.plane.serving("lb-1") and real.starts() != before)
    second = Client()
    second.talk(100)
    second.close()
    real.eventually(lambda: totals(real) == carried(first, second))
    assert counted(real)[f"p{PORT}"].gaps == 1


def test_process_that_died_while_the_server_was_down_keeps_its_last_reading(
    real: HaproxyWorld,
) -> None:
    real.plane.apply(desired(*real.targets))
    client = Client()
    client.talk(5000)
    client.close()
    real.eventually(lambda: totals(real) == carried(client))
    real.plane.close()
    real.crash()
    real.restart()
    real.plane.adopt(["lb-1"])
    real.eventually(lambda: real.plane.serving("lb-1"))
    assert totals(real) == carried(client)
    assert counted(real)[f"p{PORT}"].gaps == 1


def test_renamed_listener_keeps_what_it_carried_under_its_old_name(real: HaproxyWorld) -> None:
    """The process stays the same: for HAProxy nothing has changed."""
    wish = desired(*real.targets)
    real.plane.apply(wish)
    old, before = Client(), real.starts()
    old.talk(1000)
    old.close()
    real.eventually(lambda: totals(real) == carried(old))
    (listener,) = wish.spec.listeners
    renamed = msgspec.structs.replace(listener, name="new")
    spec = msgspec.structs.replace(wish.spec, listeners=(renamed,))
    real.plane.apply(msgspec.structs.replace(wish, spec=spec))
    assert real.starts() == before
    new = Client()
    new.talk(20)
    new.close()
    real.eventually(lambda: totals(real, "new") == carried(new))
    assert totals(real) == carried(old)


def test_target_that_comes_back_goes_on_counting(real: HaproxyWorld) -> None:
    """Its line in a running process begins anew."""
    total = 0
    for turn in range(3):
        real.plane.apply(desired(real.targets[0]))
        client = Client()
        client.talk(100 * (3 - turn))
        client.close()
        total += client.sent
        name = f"{real.targets[0].ip} port {real.targets[0].port}"
        real.eventually(
            lambda name=name, total=total: counted(real, "target")[name].bytes_in == total
        )
        real.plane.apply(desired(real.targets[1]))
        real.eventually(lambda: len(real.door().server_rows()) == 1)


def test_what_can_not_be_saved_is_not_lost(real: HaproxyWorld) -> None:
    real.plane.apply(desired(*real.targets))
    meters = real.root / "state" / "meters"
    shutil.rmtree(meters)
    client = Client()
    client.talk(5000)
    client.close()
    real.eventually(lambda: totals(real) == carried(client))
    meters.mkdir()
    assert totals(real) == carried(client)
    assert real.plane.counted() == ["lb-1"]
