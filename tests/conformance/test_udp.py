"""What the relay promises, on the whole data plane of a host with real sockets."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import msgspec
import pytest

from fakecloud import clock, errors, model
from fakecloud.udp import process
from tests.conformance.dataplane_world import IP, OTHER_IP, PORT, kill
from tests.conformance.udp_world import Client, Conversations, UdpWorld, ask, environment, wish

pytestmark = [
    pytest.mark.haproxy,
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="no haproxy here"),
]


@pytest.fixture
def world() -> Iterator[UdpWorld]:
    made = UdpWorld()
    yield made
    made.close()


class FastWorld(UdpWorld):
    beat_s = 0.1


def probe(target: model.Target) -> model.ProbeKey:
    key = model.probe_key(target, model.HealthCheck())
    assert key is not None
    return key


def everybody(count: int = 12, port: int = PORT) -> set[str]:
    return {ask(port=port) for _ in range(count)}


def names(world: UdpWorld, *indexes: int) -> set[str]:
    return {world.echo[index].name for index in indexes}


def test_every_target_answers(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp))
    assert everybody() == names(world, 0, 1, 2)
    assert world.plane.serving("lb-1")
    assert world.plane.running() == {"lb-1"}


def test_session_keeps_its_target_and_its_socket_while_others_change(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp))
    with Client() as client:
        first = client.ask()
        mine = next(one for one in world.echo if one.name == first)
        others = [one.target for one in world.echo if one is not mine]
        world.plane.apply(wish(mine.target))
        world.plane.apply(wish(*others, mine.target, source_ranges=("127.0.0.0/8",)))
        world.plane.apply(
            wish(*world.udp, udp=(PORT, PORT + 1), group={"affinity": {"kind": "client_ip"}})
        )
        assert client.ask() == first
        assert len(set(mine.peers)) == 1


def test_tcp_and_udp_on_one_port(world: UdpWorld) -> None:
    both = {"name": "stream", "targets": [msgspec.to_builtins(t) for t in world.targets]}
    stream = msgspec.convert(both, model.TargetGroup)
    whole = wish(*world.udp)
    tcp = model.Listener(name="t", protocol="tcp", port=PORT, target_group="stream")
    spec = msgspec.structs.replace(
        whole.spec,
        listeners=(*whole.spec.listeners, tcp),
        target_groups=(*whole.spec.target_groups, stream),
    )
    world.plane.apply(msgspec.structs.replace(whole, spec=spec))
    assert everybody() == names(world, 0, 1, 2)
    assert world.answers() == world.names(0, 1, 2)
    kinds = [(row.kind, row.name) for row in world.plane.counters("lb-1") or []]
    assert {("listener", "t"), ("listener", f"u{PORT}")} <= set(kinds)


def test_no_relay_without_udp_ports(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.targets, udp=(), tcp=(PORT,)))
    assert world.relays() == []
    world.plane.apply(wish(*world.udp, tcp=(PORT,)))
    assert len(world.relays()) == 1
    world.plane.apply(wish(*world.targets, udp=(), tcp=(PORT,)))
    assert world.relays() == []
    assert ask() == "refused"
    assert world.plane.serving("lb-1")


def test_administratively_down_refuses_and_comes_back(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp))
    world.plane.apply(wish(*world.udp, admin_up=False))
    assert ask() == "refused"
    assert not world.plane.serving("lb-1")
    world.plane.apply(wish(*world.udp))
    assert everybody() == names(world, 0, 1, 2)


def test_every_address_answers_from_itself(world: UdpWorld) -> None:
    """A connected client hears only what comes from the address it asked."""
    world.plane.apply(wish(*world.udp, ips=(IP, OTHER_IP), udp=(PORT, PORT + 1)))
    for ip in (IP, OTHER_IP):
        for port in (PORT, PORT + 1):
            assert ask(ip, port) in names(world, 0, 1, 2)


def test_both_families(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp, ips=(IP, "::1"), source_ranges=("::1/128",)))
    assert ask("::1") in names(world, 0, 1, 2)
    assert ask(timeout=0.2) == "nobody"
    assert world.listener().denied_total == 1


def test_source_ranges_end_sessions_that_may_not_be(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp))
    pid = world.relay()
    with Client(timeout=0.2) as client:
        assert client.ask() in names(world, 0, 1, 2)
        world.plane.apply(wish(*world.udp, source_ranges=("192.0.2.0/24", "2001:db8::/32")))
        assert client.ask() == "nobody"
        world.plane.apply(wish(*world.udp, source_ranges=("127.0.0.0/8",)))
        assert client.ask() in names(world, 0, 1, 2)
    assert world.relay() == pid


def test_clients_are_kept_by_address_where_asked(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp, group={"affinity": {"kind": "client_ip", "timeout_s": 60}}))
    assert len(everybody()) == 1
    assert len({ask(source=f"127.0.0.{n}") for n in range(2, 12)}) == 3


@pytest.mark.parametrize(
    ("algorithm", "met"), [("least_connections", 3), ("source_hash", 1)], ids=str
)
def test_other_ways_to_choose_a_target(world: UdpWorld, algorithm: str, met: int) -> None:
    world.plane.apply(wish(*world.udp, group={"algorithm": algorithm}))
    assert len(everybody()) == met


def test_failing_target_gets_no_new_session_and_keeps_its_own(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp))
    pid = world.relay()
    with Client() as client:
        first = client.ask()
        mine = next(one.target for one in world.echo if one.name == first)
        world.plane.set_down("lb-1", frozenset({probe(mine)}))
        assert first not in everybody()
        assert client.ask() == first
        world.plane.set_down("lb-1", frozenset())
        assert everybody() == names(world, 0, 1, 2)
        assert client.ask() == first
    assert world.relay() == pid


def test_drain_timeout_moves_sessions(world: UdpWorld) -> None:
    group = {"drain_timeout_s": 0}
    world.plane.apply(wish(*world.udp, group=group))
    with Client() as client:
        first = client.ask()
        others = [one for one in world.echo if one.name != first]
        world.plane.apply(wish(*(one.target for one in others), group=group))
        assert client.ask() in {one.name for one in others}


@pytest.mark.parametrize("fail_open", [False, True])
def test_all_targets_failing(world: UdpWorld, fail_open: bool) -> None:
    world.plane.apply(wish(*world.udp, group={"fail_open": fail_open}))
    world.plane.set_down("lb-1", frozenset(probe(target) for target in world.udp))
    assert (ask(timeout=0.2) == "nobody") is not fail_open
    assert world.listener().failed_total == (not fail_open)


def test_no_targets_is_silence(world: UdpWorld) -> None:
    world.plane.apply(wish())
    assert ask(timeout=0.2) == "nobody"


def test_client_goes_on_elsewhere_when_nobody_listens_at_its_target(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp))
    with Client(timeout=0.5) as client:
        first = client.ask()
        world.kill(next(one for one in world.echo if one.name == first))
        met = [client.ask() for _ in range(4)]
    # The first datagram finds out, the next are answered.
    assert met.count("nobody") <= 1
    assert set(met[1:]) <= names(world, 0, 1, 2) - {first}


def test_idle_session_ends(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp, idle_timeout_s=1))
    assert ask() in names(world, 0, 1, 2)
    assert world.listener().connections == 1
    world.eventually(lambda: world.listener().connections == 0)
    assert world.listener().connections_total == 1


def test_counters_are_exact(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp))
    for size in (0, 1, 1400, 65507):
        with Client() as client:
            client.socket.send(b"x" * size)
            client.socket.recv(65536)
    counted = world.listener()
    answered = sum(
        size if size > 64 else size + len(f"{world.echo[0].name} ") for size in (0, 1, 1400, 65507)
    )
    assert (counted.bytes_in, counted.connections_total) == (66908, 4)
    assert counted.bytes_out == answered
    rows = [row for row in world.plane.counters("lb-1") or [] if row.kind == "target"]
    assert sum(row.bytes_in for row in rows) == counted.bytes_in
    assert sum(row.bytes_out for row in rows) == counted.bytes_out


def totals(world: UdpWorld, lb_id: str = "lb-1") -> list[tuple[str, str, int, int, int]]:
    rows = world.plane.counters(lb_id) or []
    return [
        (row.epoch, row.name, row.connections_total, row.bytes_in, row.gaps)
        for row in rows
        if row.kind == "listener"
    ]


def test_totals_go_on_over_handovers_crashes_and_restarts(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp))
    ask()
    ((epoch, name, *counted),) = totals(world)
    assert counted == [1, 5, 0]
    world.plane.udp.renew("lb-1")
    ask()
    assert totals(world) == [(epoch, name, 2, 10, 0)]
    world.restart()
    world.plane.adopt({"lb-1"})
    ask()
    assert totals(world) == [(epoch, name, 3, 15, 0)]
    os.kill(world.relay(), signal.SIGKILL)
    world.eventually(lambda: world.crashes == ["lb-1"] and world.plane.serving("lb-1"))
    ask()
    assert totals(world) == [(epoch, name, 4, 20, 1)]


def test_totals_outlive_ports_and_load_balancer_until_they_are_forgotten(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp, udp=(PORT, PORT + 1)))
    ask()
    world.plane.apply(wish(*world.udp, udp=(PORT + 1,)))
    ask(port=PORT + 1)
    world.plane.apply(wish(*world.udp, udp=(), tcp=(PORT + 5,)))
    counted = {(name, number, size) for _, name, number, size, _ in totals(world)}
    assert {(f"u{PORT}", 1, 5), (f"u{PORT + 1}", 1, 5)} <= counted
    world.plane.remove("lb-1", 1)
    assert {(name, number, size) for _, name, number, size, _ in totals(world)} == counted
    assert world.plane.counted() == ["lb-1"]
    world.plane.forget_counters("lb-1", [])
    assert world.plane.counted() == ["lb-1"]
    world.plane.forget_counters("lb-1", world.plane.counters("lb-1") or [])
    assert world.plane.counters("lb-1") is None
    assert world.plane.counted() == []


def test_sessions_are_limited_and_refusals_counted(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp, max_connections=20))
    clients = [Client(timeout=0.1) for _ in range(25)]
    met = [client.ask() for client in clients]
    assert met.count("nobody") == 5
    assert (world.listener().connections, world.listener().denied_total) == (20, 5)
    assert clients[0].ask() != "nobody"  # who was served still is
    for client in clients:
        client.socket.close()


def test_burst_is_answered_whole(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp))
    with Client() as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        client.ask()
        for turn in range(500):
            client.socket.send(str(turn).encode())
        assert {client.socket.recv(100).split()[1] for _ in range(500)} == {
            str(turn).encode() for turn in range(500)
        }


def test_crash_is_repaired_told_and_loses_nothing_that_comes_meanwhile(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp))
    with Client() as client:
        client.ask()
        before = world.relay()
        os.kill(before, signal.SIGKILL)
        assert client.ask() in names(world, 0, 1, 2)
    world.eventually(lambda: world.crashes == ["lb-1"])
    assert world.relay() != before


@pytest.mark.parametrize("adopted", [False, True], ids=["own", "adopted"])
def test_health_survives_a_crash(world: UdpWorld, adopted: bool) -> None:
    world.plane.apply(wish(*world.udp))
    world.plane.set_down("lb-1", frozenset({probe(world.udp[0])}))
    if adopted:
        world.restart()
        assert world.plane.adopt({"lb-1"}).adopted == {"lb-1"}
    before = world.relay()
    os.kill(before, signal.SIGKILL)
    world.eventually(lambda: world.relays() not in ([], [before]) and world.plane.serving("lb-1"))
    assert everybody() == names(world, 1, 2)


def test_restarted_server_takes_back_what_runs(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp, tcp=(PORT + 5,)))
    before = world.relay()
    with Client() as client:
        first = client.ask()
        world.restart()
        assert client.ask() == first
        assert world.plane.adopt(["lb-1", "not-made-yet"]).adopted == {"lb-1"}
        world.plane.apply(wish(*world.udp, udp=(PORT, PORT + 1)))
        assert client.ask() == first
    assert world.relay() == before
    assert ask(port=PORT + 1) in names(world, 0, 1, 2)
    os.kill(before, signal.SIGKILL)  # the sockets came back too: what is sent now waits
    assert ask() in names(world, 0, 1, 2)


def test_relay_that_died_meanwhile_is_started_again(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp))
    world.plane.close()
    kill(world.relay())
    world.plane = world.new_plane()
    assert world.plane.adopt({"lb-1"}).restarted == {"lb-1"}
    world.eventually(lambda: world.plane.serving("lb-1"))
    assert everybody() == names(world, 0, 1, 2)


def test_orphans_are_ended_at_start(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp, lb_id="kept", ips=(IP,)))
    world.plane.apply(wish(*world.udp, lb_id="orphan", ips=(OTHER_IP,)))
    world.restart()
    adoption = world.plane.adopt({"kept"})
    assert (adoption.adopted, adoption.orphans_removed) == ({"kept"}, {"orphan"})
    assert (ask(IP) in names(world, 0, 1, 2), ask(OTHER_IP)) == (True, "refused")
    assert len(world.relays()) == 1


def test_handover_under_load_loses_no_round_trip(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp))
    time, pause = clock.SystemClock(), Event()
    with Conversations().going_on() as talk:
        time.wait(pause, 0.2)
        before = world.relay()
        for _ in range(5):
            world.plane.udp.renew("lb-1")
            time.wait(pause, 0.1)
        assert world.relay() != before
    assert (talk.lost, talk.moved) == (0, set())
    assert talk.answered > 500
    counted = world.listener()
    assert (counted.connections, counted.connections_total) == (20, 20)
    assert all(len(set(one.peers)) in (6, 7) for one in world.echo)  # no session got a new socket


def test_relay_of_another_version_is_replaced_at_start(
    world: UdpWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.plane.apply(wish(*world.udp))
    before = world.relay()
    with Client() as client:
        first = client.ask()
        monkeypatch.setattr(process, "version", lambda: "newer")
        world.restart()
        assert world.plane.adopt({"lb-1"}).adopted == {"lb-1"}
        world.eventually(lambda: world.versions() == ["newer"])
        assert client.ask() == first
    assert world.relays() != [before]
    assert world.listener().connections_total == 1


def test_older_epoch_opens_nothing(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp, epoch=7))
    with pytest.raises(errors.StaleEpoch):
        world.plane.apply(wish(*world.udp, epoch=6, udp=(PORT + 1,)))
    with pytest.raises(errors.StaleEpoch):
        world.plane.remove("lb-1", 6)
    assert (ask() in names(world, 0, 1, 2), ask(port=PORT + 1)) == (True, "refused")
    world.plane.remove("lb-1", 8)
    with pytest.raises(errors.StaleEpoch):
        world.plane.apply(wish(*world.udp, epoch=7))
    assert ask() == "refused"
    assert world.relays() == []


def test_taken_udp_port_keeps_both_as_they_were(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp, tcp=(PORT + 5,)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((IP, PORT + 1))
        with pytest.raises(errors.Transient, match=f"{IP}:{PORT + 1}") as refused:
            world.plane.apply(wish(*world.udp, tcp=(PORT + 6,), udp=(PORT, PORT + 1)))
    assert refused.value.code == "bind_failed"
    assert ask() in names(world, 0, 1, 2)
    assert world.reach(port=PORT + 5) != "refused"
    assert world.reach(port=PORT + 6) == "refused"
    world.plane.apply(wish(*world.udp, tcp=(PORT + 6,), udp=(PORT, PORT + 1)))
    assert ask(port=PORT + 1) in names(world, 0, 1, 2)


def test_taken_tcp_port_keeps_both_as_they_were(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp, tcp=(PORT + 5,)))
    with world.occupied(IP, PORT + 6), pytest.raises(errors.Transient):
        world.plane.apply(wish(world.udp[0], tcp=(PORT + 6,), udp=(PORT + 1,)))
    assert everybody() == names(world, 0, 1, 2)
    assert ask(port=PORT + 1) == "refused"
    assert world.reach(port=PORT + 5) != "refused"


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"group": {"send_proxy_protocol": "v2"}}, "send_proxy_protocol"),
        ({"group": {"affinity": {"kind": "cookie"}}}, "affinity"),
        ({"idle_timeout_s": 0}, "idle_timeout_s"),
    ],
    ids=str,
)
def test_refused_wish_names_the_field(world: UdpWorld, more: dict[str, object], field: str) -> None:
    world.plane.apply(wish(*world.udp))
    with pytest.raises(errors.Permanent, match=field):
        world.plane.apply(wish(world.udp[0], **more))  # type: ignore[arg-type]
    assert everybody() == names(world, 0, 1, 2)


def test_frozen_relay_is_a_transient_error_and_heals(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp))
    pid = world.relay()
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(errors.Transient) as refused:
        world.plane.apply(wish(world.udp[0]))
    assert refused.value.code == "runtime_unavailable"
    os.kill(pid, signal.SIGCONT)
    world.plane.apply(wish(world.udp[0]))
    assert everybody() == names(world, 0)


def test_relay_that_hangs_is_replaced_and_told() -> None:
    world = FastWorld()
    try:
        world.plane.apply(wish(*world.udp))
        before = world.relay()
        os.kill(before, signal.SIGSTOP)
        world.eventually(lambda: world.crashes == ["lb-1"], 20)
        world.eventually(lambda: world.relays() not in ([], [before]))
        assert everybody() == names(world, 0, 1, 2)
    finally:
        world.close()


def test_nothing_is_left_of_a_removed_one(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp))
    pid = world.relay()
    world.plane.remove("lb-1", 1)
    assert not Path(f"/proc/{pid}").exists()
    assert [path.name for path in (world.root / "state" / "lb").iterdir()] == ["lock"]
    assert list((world.root / "run").iterdir()) == []
    assert ask() == "refused"


def test_configuration_and_log_are_shown(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp, tcp=(PORT,)))
    text = world.plane.configuration("lb-1") or ""
    assert "frontend f0" in text
    assert f"bind u{PORT} {IP}" in text
    assert any("relay started" in line for line in world.plane.log_tail("lb-1", 100))


def test_control_socket_is_for_its_owner_alone(world: UdpWorld) -> None:
    world.plane.apply(wish(*world.udp))
    (path,) = (world.root / "run").glob("*.u*.sock")
    assert path.stat().st_mode & 0o777 == 0o600
    assert environment(world.relay()) == {b"PATH", b"FAKECLOUD_LB"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_relays_run_as_the_given_user() -> None:
    world = UdpWorld(run_as=(65534, 65534))
    try:
        world.plane.apply(wish(*world.udp))
        status = Path(f"/proc/{world.relay()}/status").read_text()
        assert "Uid:\t65534\t65534\t65534\t65534" in status
        assert "Groups:\t \n" in status
        assert "CapEff:\t0000000000000000" in status
        world.plane.udp.renew("lb-1")
        world.restart()
        assert world.plane.adopt({"lb-1"}).adopted == {"lb-1"}
        assert everybody() == names(world, 0, 1, 2)
    finally:
        world.close()
