"""What every data plane promises: one suite for the one in memory and for HAProxy."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import msgspec
import pytest

from fakecloud import clock, errors, model
from fakecloud.haproxy import draining, process, runtime, state, words
from fakecloud.supervision import processes
from tests.conformance.dataplane_world import (
    HAPROXY,
    IP,
    NET,
    OTHER_IP,
    PORT,
    DockerWorld,
    FakeWorld,
    HaproxyWorld,
    Load,
    World,
    desired,
    docker_missing,
)

needs_haproxy = pytest.mark.skipif(
    shutil.which(HAPROXY) is None, reason="no haproxy here (apt-get install haproxy)"
)
REAL = pytest.param(HaproxyWorld, marks=[pytest.mark.haproxy, needs_haproxy], id="haproxy")

DOCKER = pytest.param(
    DockerWorld, marks=[pytest.mark.docker, pytest.mark.timeout(180)], id="docker"
)


@pytest.fixture(params=[pytest.param(FakeWorld, id="fake"), REAL, DOCKER])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    missing = docker_missing() if request.param is DockerWorld else None
    if missing is not None:
        pytest.skip(missing)
    made = request.param()
    yield made
    made.close()


@pytest.fixture(params=[REAL])
def real(request: pytest.FixtureRequest) -> Iterator[HaproxyWorld]:
    made = request.param()
    yield made
    made.close()


def probe(target: model.Target) -> model.ProbeKey:
    key = model.probe_key(target, model.HealthCheck())
    assert key is not None
    return key


def test_every_target_answers(world: World) -> None:
    world.plane.apply(desired(*world.targets))
    assert world.answers() == world.names(0, 1, 2)
    assert world.plane.serving("lb-1")


def test_applying_again_changes_nothing(world: World) -> None:
    world.plane.apply(desired(*world.targets))
    before = world.starts()
    world.plane.apply(desired(*world.targets, epoch=2))
    assert world.starts() == before
    assert world.answers() == world.names(0, 1, 2)


def test_targets_change_in_the_running_process(world: World) -> None:
    world.plane.apply(desired(world.targets[0]))
    before = world.starts()
    world.plane.apply(desired(*world.targets[:2]))
    assert world.answers() == world.names(0, 1)
    world.plane.apply(desired(world.targets[2]))
    assert world.answers() == world.names(2)
    world.plane.apply(desired(world.targets[0]))
    assert world.answers() == world.names(0)
    assert world.starts() == before


def test_target_of_weight_zero_gets_nothing(world: World) -> None:
    idle = msgspec.structs.replace(world.targets[0], weight=0)
    world.plane.apply(desired(*world.targets))
    world.plane.apply(desired(idle, *world.targets[1:]))
    assert world.answers() == world.names(1, 2)


def test_draining_target_gets_nothingnew_plane(world: World) -> None:
    draining = msgspec.structs.replace(world.targets[0], drain=True)
    world.plane.apply(desired(*world.targets))
    world.plane.apply(desired(draining, *world.targets[1:]))
    assert world.answers() == world.names(1, 2)


def test_ports_follow_the_listeners(world: World) -> None:
    world.plane.apply(desired(*world.targets, ports=(PORT,)))
    world.plane.apply(desired(*world.targets, ports=(PORT + 1, PORT + 2)))
    # HAProxy from 3.0 on closes a port some milliseconds after it said that it has.
    world.eventually(lambda: world.answers() == {"refused"})
    assert world.answers(port=PORT + 1) == world.names(0, 1, 2)
    assert world.answers(port=PORT + 2) == world.names(0, 1, 2)


def test_every_address_answers_every_port(world: World) -> None:
    if world.most_addresses < 2:
        pytest.skip("a container has one address of each family")
    world.plane.apply(desired(*world.targets, ips=(IP, OTHER_IP), ports=(PORT, PORT + 1)))
    for ip in (IP, OTHER_IP):
        for port in (PORT, PORT + 1):
            assert world.answers(ip, port) == world.names(0, 1, 2)


def test_load_balancers_do_not_meet(world: World) -> None:
    world.plane.apply(desired(world.targets[0], lb_id="a", ips=(IP,)))
    world.plane.apply(desired(world.targets[1], lb_id="b", ips=(OTHER_IP,)))
    assert (world.answers(IP), world.answers(OTHER_IP)) == (world.names(0), world.names(1))
    world.plane.remove("a", 1)
    assert (world.answers(IP), world.answers(OTHER_IP)) == ({"refused"}, world.names(1))


def test_failing_target_gets_nothing_until_it_recovers(world: World) -> None:
    world.plane.apply(desired(*world.targets))
    before = world.starts()
    world.plane.set_down("lb-1", frozenset({probe(world.targets[0])}))
    assert world.answers() == world.names(1, 2)
    world.plane.set_down("lb-1", frozenset())
    assert world.answers() == world.names(0, 1, 2)
    assert world.starts() == before


def test_probes_that_fail_from_the_start_are_respected(world: World) -> None:
    world.plane.apply(desired(*world.targets, down={probe(world.targets[2])}))
    assert world.answers() == world.names(0, 1)


def test_health_survives_a_crash(world: World) -> None:
    world.plane.apply(desired(*world.targets))
    world.plane.set_down("lb-1", frozenset({probe(world.targets[0])}))
    before = world.starts()
    world.crash()
    world.eventually(lambda: world.plane.serving("lb-1") and world.starts() != before)
    assert world.answers() == world.names(1, 2)


@pytest.mark.parametrize(("fail_open", "met"), [(False, {"closed"}), (True, None)])
def test_all_targets_failing(world: World, fail_open: bool, met: set[str] | None) -> None:
    world.plane.apply(desired(*world.targets, group={"fail_open": fail_open}))
    world.plane.set_down("lb-1", frozenset(probe(target) for target in world.targets))
    assert world.answers() == (met or world.names(0, 1, 2))


def test_no_targets_closes(world: World) -> None:
    world.plane.apply(desired())
    assert world.answers() == {"closed"}


def test_health_of_unknown_load_balancers_and_probes_is_ignored(world: World) -> None:
    world.plane.set_down("nobody", frozenset({probe(world.targets[0])}))
    world.plane.apply(desired(*world.targets))
    world.plane.set_down("lb-1", frozenset({probe(model.Target(ip="192.0.2.1", port=1))}))
    assert world.answers() == world.names(0, 1, 2)


def test_administratively_down_refuses_and_comes_back(world: World) -> None:
    world.plane.apply(desired(*world.targets))
    world.plane.apply(desired(*world.targets, admin_up=False))
    world.eventually(lambda: world.answers() == {"refused"})
    assert not world.plane.serving("lb-1")
    world.plane.apply(desired(*world.targets))
    assert world.answers() == world.names(0, 1, 2)


def test_source_ranges_change_in_the_running_process(world: World) -> None:
    world.plane.apply(desired(*world.targets))
    before = world.starts()
    world.plane.apply(desired(*world.targets, source_ranges=("192.0.2.0/24", "2001:db8::/32")))
    assert world.answers() == {"closed"}
    world.plane.apply(desired(*world.targets, source_ranges=()))
    assert world.answers() == {"closed"}
    many = tuple(f"10.{i // 250}.{i % 250}.0/24" for i in range(1000))
    world.plane.apply(desired(*world.targets, source_ranges=(*many, "127.0.0.0/8")))
    assert world.answers() == world.names(0, 1, 2)
    assert world.starts() == before


@pytest.mark.parametrize(
    "group",
    [
        {"algorithm": "least_connections"},
        {"algorithm": "source_hash"},
        {"affinity": {"kind": "client_ip", "timeout_s": 60}},
    ],
    ids=["least_connections", "source_hash", "client_ip"],
)
def test_other_ways_to_choose_a_target(real: HaproxyWorld, group: dict[str, object]) -> None:
    real.plane.apply(desired(real.targets[0], group=group))
    before = real.starts()
    real.plane.apply(desired(*real.targets, group=group))
    answers = real.answers()
    assert answers <= real.names(0, 1, 2)
    assert len(answers) == (3 if group.get("algorithm") == "least_connections" else 1)
    assert real.starts() == before


STICKY: dict[str, object] = {"affinity": {"kind": "client_ip", "timeout_s": 60}}


def test_a_client_returns_to_its_target_whatever_changes(world: World) -> None:
    """Targets that come, another process, another server: only who must move does."""
    clients = [f"{NET}.{100 + number}" for number in range(30)]
    world.plane.apply(desired(*world.targets[:2], group=STICKY))
    before = {client: world.reach(client=client) for client in clients}
    assert set(before.values()) == world.names(0, 1)
    world.plane.apply(desired(*world.targets, group=STICKY))
    assert {client: world.reach(client=client) for client in clients} == before
    for port in (PORT + 1, PORT + 2):
        started = world.starts()
        world.plane.apply(desired(*world.targets, group=STICKY, ports=(PORT, port)))
        assert world.starts() != started
        assert {client: world.reach(client=client) for client in clients} == before
    world.restart()
    world.plane.adopt({"lb-1"})
    world.plane.apply(desired(*world.targets[1:], group=STICKY, ports=(PORT,)))
    after = {client: world.reach(client=client) for client in clients}
    stayed = {client for client in clients if before[client] in world.names(1)}
    assert {client: after[client] for client in stayed} == {c: before[c] for c in stayed}
    assert world.names(0).isdisjoint(after.values())


def test_a_client_returns_to_its_target_in_the_middle_of_a_swap(real: HaproxyWorld) -> None:
    """Who comes before the new process knows everybody waits for it."""
    clients = [f"{NET}.{100 + number}" for number in range(20)]
    real.plane.apply(desired(*real.targets, group=STICKY))
    before = {client: real.reach(client=client) for client in clients}
    over = Event()

    def moved(share: list[str]) -> set[tuple[str, str, str]]:
        found = set()
        while not over.is_set():
            for client in share:
                now = real.reach(client=client)
                if now != before[client]:
                    found.add((client, before[client], now))
        return found

    with ThreadPoolExecutor(4) as pool:
        watched = [pool.submit(moved, clients[i::4]) for i in range(4)]
        try:
            for turn in range(8):
                group = {**STICKY, "connect_timeout_s": 3 + turn}
                real.plane.apply(desired(*real.targets, group=group))
                real.eventually(lambda: len(real.record().processes) < 3)
        finally:
            over.set()
        assert [one.result() for one in watched] == [set()] * 4


def test_affinity_that_could_not_be_handed_over_at_once_does_not_hold_anybody(
    real: HaproxyWorld,
) -> None:
    """The server died between the start of a process and the hand-over: the next one settles."""
    real.plane.apply(desired(*real.targets, group=STICKY))
    settled = words.Word("g1.settled")
    real.door().replace_networks(settled, ())
    real.restart()
    real.plane.adopt({"lb-1"})
    real.plane.apply(desired(*real.targets, group=STICKY))
    assert real.door().networks(settled) == ["0.0.0.0/0", "::/0"]


def test_older_epoch_is_refused_also_after_a_restart(world: World) -> None:
    world.plane.apply(desired(*world.targets, epoch=7))
    for _ in range(2):
        with pytest.raises(errors.StaleEpoch):
            world.plane.apply(desired(world.targets[0], epoch=6))
        with pytest.raises(errors.StaleEpoch):
            world.plane.remove("lb-1", 6)
        world.restart()
        world.plane.adopt(["lb-1"])
    assert world.answers() == world.names(0, 1, 2)


def test_removed_is_gone_and_may_come_back(world: World) -> None:
    world.plane.apply(desired(*world.targets, epoch=3))
    world.plane.remove("lb-1", 3)
    world.plane.remove("lb-1", 3)
    world.plane.remove("never-seen", 1)
    assert world.answers() == {"refused"}
    assert not world.plane.serving("lb-1")
    world.plane.apply(desired(world.targets[0], epoch=4))
    assert world.answers() == world.names(0)


def test_who_slept_through_the_removal_brings_nothing_back(world: World) -> None:
    world.plane.apply(desired(*world.targets, epoch=3))
    world.plane.remove("lb-1", 4)
    world.plane.remove("lb-2", 2)
    for lb_id, epoch in (("lb-1", 3), ("lb-2", 1)):
        with pytest.raises(errors.StaleEpoch):
            world.plane.apply(desired(*world.targets, lb_id=lb_id, epoch=epoch))
    assert world.answers() == {"refused"}
    assert not world.plane.serving("lb-1")


@pytest.mark.parametrize(
    ("wish", "code", "field"),
    [
        ({"group": {"preserve_client_ip": True}}, "unsupported", "preserve_client_ip"),
        ({"group": {"affinity": {"kind": "cookie"}}}, "config_invalid", "affinity"),
        ({"group": {"connect_timeout_s": 0}}, "config_invalid", "connect_timeout_s"),
        ({"ips": ("::1%lo",)}, "config_invalid", "addresses"),
    ],
    ids=["preserve_client_ip", "cookie", "timeout", "zone"],
)
def test_refused_wish_keeps_the_last_good_one(
    world: World, wish: dict[str, object], code: str, field: str
) -> None:
    world.plane.apply(desired(*world.targets))
    with pytest.raises(errors.Permanent, match=field) as refused:
        world.plane.apply(desired(world.targets[0], **wish))  # type: ignore[arg-type]
    assert refused.value.code == code
    assert world.answers() == world.names(0, 1, 2)


def test_taken_port_keeps_the_last_good_one_and_heals(world: World) -> None:
    world.plane.apply(desired(*world.targets))
    with world.occupied(IP, PORT + 1):
        with pytest.raises(errors.Transient, match=f"{IP}:{PORT + 1}") as refused:
            world.plane.apply(desired(*world.targets, ports=(PORT, PORT + 1)))
        assert refused.value.code == "bind_failed"
        assert world.answers() == world.names(0, 1, 2)
    world.plane.apply(desired(*world.targets, ports=(PORT, PORT + 1)))
    assert world.answers(port=PORT + 1) == world.names(0, 1, 2)


def test_two_load_balancers_can_not_share_a_port(world: World) -> None:
    world.plane.apply(desired(world.targets[0], lb_id="a"))
    with pytest.raises(errors.Transient) as refused:
        world.plane.apply(desired(world.targets[1], lb_id="b"))
    assert refused.value.code in ("bind_failed", "address_in_use")
    assert world.answers() == world.names(0)
    assert not world.plane.serving("b")


def test_restarted_server_takes_back_what_runs(world: World) -> None:
    world.plane.apply(desired(*world.targets))
    before = world.starts()
    world.restart()
    assert world.reach() in world.names(0, 1, 2)
    adoption = world.plane.adopt(["lb-1", "not-made-yet"])
    assert adoption == processes.Adoption(adopted=frozenset({"lb-1"}))
    world.plane.set_down("lb-1", frozenset({probe(world.targets[0])}))
    world.plane.apply(desired(world.targets[1]))
    assert world.answers() == world.names(1)
    assert world.starts() == before


def test_process_that_died_meanwhile_is_started_again(world: World) -> None:
    world.plane.apply(desired(*world.targets))
    world.plane.close()
    world.crash()
    world.restart()
    assert world.plane.adopt({"lb-1"}).restarted == {"lb-1"}
    world.eventually(lambda: world.plane.serving("lb-1"))
    assert world.answers() == world.names(0, 1, 2)


def test_orphans_are_ended_at_start(world: World) -> None:
    world.plane.apply(desired(world.targets[0], lb_id="kept", ips=(IP,)))
    world.plane.apply(desired(world.targets[1], lb_id="orphan", ips=(OTHER_IP,)))
    world.restart()
    adoption = world.plane.adopt({"kept"})
    assert adoption.adopted == {"kept"}
    assert adoption.orphans_removed == {"orphan"}
    assert (world.answers(IP), world.answers(OTHER_IP)) == (world.names(0), {"refused"})


@pytest.mark.parametrize("adopted", [False, True], ids=["own", "adopted"])
def test_crash_is_repaired_and_told(world: World, adopted: bool) -> None:
    world.plane.apply(desired(*world.targets))
    if adopted:
        world.restart()
        world.plane.adopt({"lb-1"})
    before = world.starts()
    world.crash()
    world.eventually(lambda: world.plane.serving("lb-1") and world.starts() != before)
    world.eventually(lambda: world.crashes == ["lb-1"])
    assert world.answers() == world.names(0, 1, 2)


def test_many_at_once(world: World) -> None:
    """Calls for different load balancers run beside each other."""
    many = [desired(*world.targets, lb_id=f"lb-{i}", ips=(f"{NET}.{100 + i}",)) for i in range(20)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(world.plane.apply, many))
        assert all(world.reach(f"{NET}.{100 + i}") in world.names(0, 1, 2) for i in range(20))
        list(pool.map(lambda wish: world.plane.remove(wish.lb_id, 1), many))
    assert all(world.reach(f"{NET}.{100 + i}") == "refused" for i in range(20))


def test_no_connection_is_lost_while_everything_changes(real: HaproxyWorld) -> None:
    """20 changes of targets and 5 swaps of the process under load: nobody notices."""
    real.plane.apply(desired(*real.targets))
    time, pause = clock.SystemClock(), Event()
    with Load(IP, PORT) as load:
        for turn in range(25):
            swapped = {"connect_timeout_s": 3 + turn // 5}  # every fifth turn
            real.plane.apply(desired(*real.targets[turn % 3 :], group=swapped))
            time.wait(pause, 0.05)
    assert set(load.met) == {"ok"}
    assert load.met["ok"] > 100


def test_established_connection_outlives_swap_and_removal_of_its_target(real: HaproxyWorld) -> None:
    real.plane.apply(desired(real.targets[0]))
    with socket.create_connection((IP, PORT), timeout=5) as old:
        assert old.recv(64)
        real.plane.apply(desired(real.targets[1]))
        assert real.answers() == real.names(1)
        real.plane.apply(desired(real.targets[1], ports=(PORT, PORT + 1)))
        assert len(real.record().processes) == 2
        old.sendall(b"still here")
        assert old.recv(64) == b"still here"
    real.eventually(lambda: len(real.record().processes) == 1)


def test_removed_target_is_forgotten_after_a_restart(real: HaproxyWorld) -> None:
    real.plane.apply(desired(real.targets[0]))
    with socket.create_connection((IP, PORT), timeout=5) as old:
        assert old.recv(64)
        real.plane.apply(desired(real.targets[1]))
        real.restart()
        real.plane.adopt({"lb-1"})
        assert len(real.door().server_rows()) == 2
        old.sendall(b"still here")
        assert old.recv(64) == b"still here"
    real.eventually(lambda: len(real.door().server_rows()) == 1)


def test_files_say_what_runs(real: HaproxyWorld) -> None:
    """So that a start from them is an equal."""
    real.plane.apply(desired(real.targets[0]))
    real.plane.apply(desired(*real.targets, source_ranges=("127.0.0.0/8",)))
    real.plane.set_down("lb-1", frozenset({probe(real.targets[0])}))
    directory = real.root / "state" / "lb" / "lb-1"

    def disabled() -> dict[str, bool]:
        lines = (directory / "g1.cfg").read_text().splitlines()
        servers = [line.split() for line in lines if line.startswith("  server ")]
        return {line[2]: line[-1] == "disabled" for line in servers}

    wanted = {name: name in real.names(0) for name in real.names(0, 1, 2)}
    real.eventually(lambda: disabled() == wanted)
    assert (directory / "g1.lst").read_text() == "127.0.0.0/8\n"


def test_drain_timeout_ends_what_does_not_end_itself(real: HaproxyWorld) -> None:
    wish = desired(real.targets[0], group={"drain_timeout_s": 0})
    real.plane.apply(wish)
    with socket.create_connection((IP, PORT), timeout=5) as old:
        assert old.recv(64)
        real.plane.apply(desired(real.targets[1], group={"drain_timeout_s": 0}))
        assert old.recv(64) == b""


def test_failing_target_keeps_its_connections_until_the_drain_timeout(real: HaproxyWorld) -> None:
    """KEP-3836: what is established goes on while a node fails; here for a second."""
    real.plane.apply(desired(*real.targets, group={"drain_timeout_s": 1}))
    with socket.create_connection((IP, PORT), timeout=5) as old:
        name = old.recv(64).decode().strip()
        failing = next(t for t in real.targets if f"{t.ip}:{t.port}" == name)
        real.plane.set_down("lb-1", frozenset({probe(failing)}))
        assert name not in real.answers()
        old.sendall(b"still here")
        assert old.recv(64) == b"still here"
        assert old.recv(64) == b""
    assert name not in real.answers()


def test_target_that_recovers_in_time_keeps_its_connections(real: HaproxyWorld) -> None:
    real.plane.apply(desired(real.targets[0], group={"drain_timeout_s": 1}))
    with socket.create_connection((IP, PORT), timeout=5) as old:
        assert old.recv(64)
        real.plane.set_down("lb-1", frozenset({probe(real.targets[0])}))
        real.plane.set_down("lb-1", frozenset())
        old.settimeout(1.5)
        with pytest.raises(TimeoutError):
            old.recv(64)
        old.sendall(b"still here")
        assert old.recv(64) == b"still here"


@pytest.mark.parametrize(
    ("version", "start"),
    [("v1", b"PROXY TCP4 127.0.0.1 "), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11")],
)
def test_targets_are_told_the_client_by_proxy_protocol(
    real: HaproxyWorld, version: str, start: bytes
) -> None:
    """The echo target says its name, then what it was told first."""
    real.plane.apply(desired(real.targets[0], group={"send_proxy_protocol": version}))
    with socket.create_connection((IP, PORT), timeout=5) as connection:
        told = b""
        while len(told.partition(b"\n")[2]) < len(start):
            told += connection.recv(256)
    assert told.partition(b"\n")[2].startswith(start)


@pytest.mark.parametrize(
    ("header", "met"),
    [
        (b"PROXY TCP4 192.0.2.7 192.0.2.8 5 6\r\n", True),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x08\0\x05\0\x06", True),
        (b"PROXY TCP4 198.51.100.7 192.0.2.8 5 6\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
    ],
    ids=["v1", "v2", "not allowed", "no header"],
)
def test_clients_are_known_by_their_proxy_header(
    real: HaproxyWorld, header: bytes, met: bool
) -> None:
    """Allowed ranges are about the address in the header, and so is what the target is told."""
    listener = model.Listener(
        name="p", protocol="tcp", port=PORT, target_group="web", accept_proxy_protocol=True
    )
    group: dict[str, object] = {"send_proxy_protocol": "v1"}
    real.plane.apply(
        desired(
            real.targets[0], listeners=(listener,), group=group, source_ranges=("192.0.2.0/24",)
        )
    )
    answer = b""
    with (
        socket.create_connection((IP, PORT), timeout=5) as connection,
        contextlib.suppress(OSError),  # reset, and perhaps before we have said all
    ):
        connection.sendall(header)
        # Our side stays open: HAProxy gives up a client that closes it before the target is
        # connected, if it has said nothing but the header (1 of 7 here).
        while not answer.endswith(b" 5 6\r\n") and (chunk := connection.recv(256)):
            answer += chunk
    assert (b"\nPROXY TCP4 192.0.2.7 192.0.2.8 5 6\r\n" in answer) == met
    assert met or not answer


def limited(most: int | None) -> model.Listener:
    return model.Listener(
        name="p", protocol="tcp", port=PORT, target_group="web", max_connections=most
    )


def test_connections_over_the_limit_wait_for_their_turn(real: HaproxyWorld) -> None:
    real.plane.apply(desired(*real.targets))
    before = real.starts()
    real.plane.apply(desired(*real.targets, listeners=(limited(2),)))
    with (
        socket.create_connection((IP, PORT), timeout=5) as one,
        socket.create_connection((IP, PORT), timeout=5) as two,
        socket.create_connection((IP, PORT), timeout=5) as three,
    ):
        assert one.recv(64)
        assert two.recv(64)
        three.settimeout(0.2)
        with pytest.raises(TimeoutError):
            three.recv(64)
        three.settimeout(5)
        assert real.starts() == before
        # More are let in while the limit is reached: that takes another process, as told at
        # run time HAProxy 2.6 would hang for good.
        real.plane.apply(desired(*real.targets, listeners=(limited(None),)))
        with socket.create_connection((IP, PORT), timeout=5) as four:
            assert four.recv(64)
        one.close()
        assert three.recv(64)


def test_changed_ranges_refuse_nobody_who_is_in_both(real: HaproxyWorld) -> None:
    """Looked at after every single command."""
    real.plane.apply(desired(*real.targets, source_ranges=("0.0.0.0/0",)))
    met = set()

    class Watched(runtime.Runtime):
        def execute(self, commands: Sequence[runtime.Command]) -> str:
            for command in commands:
                super().execute([command])
                met.add(real.reach())
            return ""

    (path,) = (real.root / "run").glob("*.sock")
    door, name = Watched(str(path)), words.Word(f"g{real.record().active}.lst")
    for networks in (["10.0.0.0/8", "127.0.0.0/8"], ["0.0.0.0/0"], ["127.0.0.1/32"]):
        door.replace_networks(name, [words.Word(one) for one in networks])
        assert sorted(door.networks(name)) == networks
    assert met == real.names(0, 1, 2)
    door.replace_networks(name, [words.Word("192.0.2.0/24")])
    assert real.reach() == "closed"


def test_idle_connections_are_closed(real: HaproxyWorld) -> None:
    idle = msgspec.structs.replace(limited(None), idle_timeout_s=1)
    real.plane.apply(desired(*real.targets, listeners=(idle,)))
    with socket.create_connection((IP, PORT), timeout=5) as connection:
        assert connection.recv(64)
        assert connection.recv(64) == b""


def test_target_that_does_not_answer_costs_one_connect_timeout(real: HaproxyWorld) -> None:
    """Its packets vanish and no probe has noticed yet: the connection goes to another target."""
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.create_server((f"{NET}.10", 0), backlog=0))
        for _ in range(2):  # the kernel drops what comes to a full queue
            full = stack.enter_context(socket.socket())
            full.setblocking(False)
            full.connect_ex(deaf.getsockname())
        silent = model.Target(ip=f"{NET}.10", port=deaf.getsockname()[1], weight=256)
        answering = msgspec.structs.replace(real.targets[0], weight=1)
        group: dict[str, object] = {"connect_timeout_s": 1}
        real.plane.apply(desired(silent, answering, group=group))
        assert real.reach() in real.names(0)


def test_weights_divide_the_connections(real: HaproxyWorld) -> None:
    three, one = (
        msgspec.structs.replace(target, weight=weight)
        for target, weight in zip(real.targets, (192, 64), strict=False)
    )
    real.plane.apply(desired(three, one))
    met = Counter(real.reach() for _ in range(40))
    assert met == {f"{three.ip}:{three.port}": 30, f"{one.ip}:{one.port}": 10}


def test_least_connections_prefers_the_idle_target(real: HaproxyWorld) -> None:
    real.plane.apply(desired(*real.targets[:2], group={"algorithm": "least_connections"}))
    with contextlib.ExitStack() as stack:
        open_connections = [
            stack.enter_context(socket.create_connection((IP, PORT), timeout=5)) for _ in range(6)
        ]
        met = Counter(connection.recv(64) for connection in open_connections)
    assert sorted(met.values()) == [3, 3]


def test_source_hash_moves_few_clients_when_a_target_leaves(real: HaproxyWorld) -> None:
    clients = [f"{NET}.{100 + number}" for number in range(40)]
    group: dict[str, object] = {"algorithm": "source_hash"}
    real.plane.apply(desired(*real.targets, group=group))
    before = {client: real.reach(client=client) for client in clients}
    assert set(before.values()) == real.names(0, 1, 2)
    real.plane.apply(desired(*real.targets[:2], group=group))
    after = {client: real.reach(client=client) for client in clients}
    assert {c for c in clients if after[c] != before[c]} == {
        c for c in clients if before[c] in real.names(2)
    }


def test_udp_on_the_same_port_is_left_to_others(world: World) -> None:
    listeners = tuple(
        model.Listener(name=protocol, protocol=protocol, port=PORT, target_group="web")
        for protocol in ("tcp", "udp")
    )
    world.plane.apply(desired(*world.targets, listeners=listeners))
    assert world.answers() == world.names(0, 1, 2)


def swaps_with_connections(real: HaproxyWorld, number: int) -> list[socket.socket]:
    """Return a connection through each of so many generations, started one after the other."""
    held = []
    for turn in range(number):
        real.plane.apply(desired(*real.targets, ports=(PORT, PORT + 1 + turn)))
        held.append(socket.create_connection((IP, PORT), timeout=5))
        assert held[-1].recv(64)
    return held


def test_ten_swaps_at_once_cut_nobody(real: HaproxyWorld) -> None:
    held = swaps_with_connections(real, 11)
    for connection in held:
        connection.sendall(b"still here")
        assert connection.recv(64) == b"still here"
        connection.close()
    real.eventually(lambda: len(real.record().processes) == 1, 20)


def test_living_generations_are_limited(
    real: HaproxyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest of those that still have connections loses them."""
    monkeypatch.setattr(draining, "MOST", 3)
    held = swaps_with_connections(real, 6)
    assert len(real.record().processes) == 4
    assert [connection.recv(64) for connection in held[:2]] == [b"", b""]
    held[2].sendall(b"still here")
    assert held[2].recv(64) == b"still here"
    for connection in held:
        connection.close()


def test_generation_the_server_died_over_is_ended(real: HaproxyWorld) -> None:
    """kill -9 between the start of a generation and the note of it."""
    real.plane.apply(desired(*real.targets))
    record = real.record()
    directory = real.root / "state" / "lb" / "lb-1"
    unnoted = tuple(
        msgspec.structs.replace(process, pid=None, start=None) for process in record.processes
    )
    real.plane.close()
    forgotten = msgspec.structs.replace(record, active=None, desired=None, processes=unnoted)
    state.save(directory, forgotten, durable=False)
    real.plane = real.new_plane()
    real.plane.adopt({"lb-1"})
    assert real.answers() == {"refused"}
    real.plane.apply(desired(*real.targets))
    assert real.answers() == real.names(0, 1, 2)


def test_what_is_started_during_the_sweep_is_not_swept(
    real: HaproxyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dead are started again in the background, while strays are looked for."""
    real.plane.apply(desired(*real.targets))
    real.plane.close()
    real.crash()
    find = process.sweep

    def find_late(root: Path) -> Iterator[tuple[int, str]]:
        real.eventually(lambda: real.plane.serving("lb-1"))
        yield from find(root)

    monkeypatch.setattr(process, "sweep", find_late)
    real.plane = real.new_plane()
    assert real.plane.adopt({"lb-1"}).restarted == {"lb-1"}
    assert real.crashes == []
    assert real.answers() == real.names(0, 1, 2)


def test_process_without_directory_is_swept(real: HaproxyWorld) -> None:
    real.plane.apply(desired(*real.targets))
    real.plane.close()
    shutil.rmtree(real.root / "state" / "lb" / "lb-1")
    real.plane = real.new_plane()
    assert real.plane.adopt({"lb-1"}).orphans_removed == {"lb-1"}
    assert real.answers() == {"refused"}
    assert list((real.root / "run").iterdir()) == []


def test_process_without_a_record_finishes_what_it_has_accepted(
    real: HaproxyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that died over its start has left it: when it is swept, it may serve already."""
    real.plane.apply(desired(*real.targets))
    real.plane.close()
    told = Event()
    send = processes.Process.signal

    def noticed(self: processes.Process, number: signal.Signals) -> None:
        send(self, number)
        told.set()

    with ThreadPoolExecutor(1) as pool, socket.create_connection((IP, PORT), timeout=5) as held:
        assert held.recv(64)  # the target's name: it is connected
        shutil.rmtree(real.root / "state" / "lb" / "lb-1")
        real.plane = real.new_plane()
        monkeypatch.setattr(processes.Process, "signal", noticed)
        adopting = pool.submit(real.plane.adopt, {"lb-1"})
        assert told.wait(5)
        held.sendall(b"ping")
        assert held.recv(64) == b"ping"
        held.close()
        assert adopting.result(10).orphans_removed == {"lb-1"}


def test_change_behind_our_back_is_undone(real: HaproxyWorld) -> None:
    real.plane.apply(desired(*real.targets))
    server = f"b0/t{real.targets[0].ip.replace('.', '_')}_{real.targets[0].port}"
    command = words.line("set", "server", server, "state", "maint")
    real.door().execute([command])
    assert real.answers() == real.names(1, 2)
    real.plane.apply(desired(*real.targets))
    assert real.answers() == real.names(0, 1, 2)


def test_frozen_process_is_a_transient_error_and_heals(real: HaproxyWorld) -> None:
    real.plane.apply(desired(*real.targets))
    os.kill(real.pid(), signal.SIGSTOP)
    with pytest.raises(errors.Transient) as refused:
        real.plane.apply(desired(real.targets[0]))
    assert refused.value.code == "runtime_unavailable"
    os.kill(real.pid(), signal.SIGCONT)
    real.plane.apply(desired(real.targets[0]))
    assert real.answers() == real.names(0)


def test_second_server_on_the_same_directory_is_refused(real: HaproxyWorld) -> None:
    with pytest.raises(errors.StartError, match="another server"):
        real.new_plane()


def test_nothing_is_left_of_a_removed_one(real: HaproxyWorld) -> None:
    real.plane.apply(desired(*real.targets))
    pid = real.pid()
    real.plane.remove("lb-1", 1)
    assert not Path(f"/proc/{pid}").exists()
    assert [path.name for path in (real.root / "state" / "lb").iterdir()] == ["lock"]
    assert list((real.root / "run").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_processes_run_as_the_given_user() -> None:
    world = HaproxyWorld(run_as=(65534, 65534))
    try:
        world.plane.apply(desired(*world.targets))
        world.plane.apply(desired(*world.targets, ports=(PORT, PORT + 1)))
        status = Path(f"/proc/{world.pid()}/status").read_text()
        assert "Uid:\t65534\t65534" in status
        world.restart()
        assert world.plane.adopt({"lb-1"}).adopted == {"lb-1"}
        assert world.answers() == world.names(0, 1, 2)
    finally:
        world.close()
