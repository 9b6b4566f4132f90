"""What a running HAProxy is told, and what takes a new process."""

from __future__ import annotations

import msgspec
import pytest

from fakecloud import model
from fakecloud.haproxy import affinity, changes, config, runtime, targets, words


def wish(*targets: model.Target, **fields: object) -> config.Config:
    group = model.TargetGroup(name="g", targets=targets)
    of_group = {name: fields.pop(name) for name in list(fields) if hasattr(group, name)}
    listener = model.Listener(
        name="l", protocol="tcp", port=int(str(fields.pop("port", 80))), target_group="g"
    )
    spec = model.Spec(
        listeners=(listener,), target_groups=(msgspec.structs.replace(group, **of_group),)
    )
    desired = model.Desired(
        lb_id="lb",
        epoch=1,
        generation=1,
        spec=msgspec.structs.replace(spec, **fields),
        addresses=(model.Address(family="ipv4", ip="127.77.0.1", pool="default"),),
    )
    return config.build(desired, connections=10_000)


A, B = (model.Target(ip=f"10.0.0.{i}", port=80) for i in (1, 2))
SIX = model.Target(ip="fd00::1", port=80)


def told(old: config.Config, new: config.Config) -> list[str]:
    step = changes.diff(old, new)
    assert isinstance(step, changes.RuntimeChanges)
    return [" ".join(command) for command in changes.commands(step)]


def test_equal_configurations_need_nothing() -> None:
    assert not changes.diff(wish(A, B), wish(B, A))


def test_added_server_is_told_to_take_connections() -> None:
    assert told(wish(A), wish(A, SIX, send_proxy_protocol="none")) == [
        "add server b0/tfd00__1_80 ipv6@fd00::1:80 weight 100",
        "set server b0/tfd00__1_80 state ready",
    ]


def test_added_server_that_fails_its_probe_stays_silent() -> None:
    silent = msgspec.structs.replace(B, drain=True)
    assert told(wish(A), wish(A, silent)) == ["add server b0/t10_0_0_2_80 10.0.0.2:80 weight 100"]


def test_added_server_has_the_options_of_its_backend() -> None:
    (add, _) = told(wish(A, send_proxy_protocol="v2"), wish(A, B, send_proxy_protocol="v2"))
    assert add == "add server b0/t10_0_0_2_80 10.0.0.2:80 weight 100 send-proxy-v2"


def test_removed_server_is_silenced_before_it_is_deleted() -> None:
    assert told(wish(A, B), wish(A)) == [
        "set server b0/t10_0_0_2_80 state maint",
        "del server b0/t10_0_0_2_80",
    ]


def test_weight_and_state_are_told_apart() -> None:
    other = msgspec.structs.replace(A, weight=3, drain=True)
    assert told(wish(A), wish(other)) == [
        "set server b0/t10_0_0_1_80 weight 3",
        "set server b0/t10_0_0_1_80 state maint",
    ]


def test_source_ranges_change_at_run_time() -> None:
    step = changes.diff(wish(A), wish(A, source_ranges=()))
    assert step == changes.RuntimeChanges(source_ranges=())
    assert step


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (wish(A, port=81), "frontends"),
        (wish(A, algorithm="least_connections"), "backends"),
        (wish(A, affinity=model.Affinity(kind="client_ip")), "backends"),
        (wish(A, connect_timeout_s=9), "backends"),
        (wish(A, send_proxy_protocol="v1"), "backends"),
    ],
    ids=["port", "algorithm", "affinity", "timeout", "proxy protocol"],
)
def test_everything_else_takes_a_new_process(new: config.Config, reason: str) -> None:
    assert changes.diff(wish(A), new) == changes.Swap(reason)


def test_limit_of_connections_changes_at_run_time() -> None:
    listener = model.Listener(name="l", protocol="tcp", port=80, target_group="g")
    limited = wish(A, listeners=(msgspec.structs.replace(listener, max_connections=7),))
    assert told(wish(A), limited) == ["set maxconn frontend f0 7"]


def test_drain_timeout_is_not_haproxys() -> None:
    assert not changes.diff(wish(A), wish(A, drain_timeout_s=1))


def test_settling_is_told() -> None:
    unsettled = msgspec.structs.replace(wish(A), settled=False)
    assert changes.diff(unsettled, wish(A)) == changes.RuntimeChanges(settle=True)


def test_clients_are_remembered_by_the_name_of_their_server() -> None:
    sticky = model.Affinity(kind="client_ip")
    old, new = wish(A, B, affinity=sticky), wish(SIX, B, affinity=sticky)
    assert list(affinity.pairs(old, new)) == [("b0", "b0")]
    assert list(affinity.pairs(old, wish(A))) == []
    rows = [("b0", "t10_0_0_1_80", "1"), ("b0", "t10_0_0_2_80", "2"), ("b1", "t10_0_0_1_80", "3")]
    had = {(backend, server): number for backend, server, number in rows}
    has = {("b0", "tfd00__1_80"): "1", ("b0", "t10_0_0_2_80"): "7"}
    entries = [
        {"key": "::ffff:192.0.2.1", "server_id": "1"},
        {"key": "::ffff:192.0.2.2", "server_id": "2"},
        {"key": "::ffff:192.0.2.3"},
    ]
    commands = affinity.commands(words.Word("b0"), words.Word("b0"), entries, had, has)
    assert [" ".join(command) for command in commands] == [
        "set table b0 key ::ffff:192.0.2.2 data.server_id 7"
    ]


def test_observed_servers_replace_the_assumed_ones() -> None:
    row = {
        "be_name": "b0",
        "srv_name": "t10_0_0_2_80",
        "srv_addr": "10.0.0.2",
        "srv_port": "80",
        "srv_uweight": "7",
        "srv_admin_state": "5",
    }
    seen = changes.observed(
        wish(A),
        runtime.Look(servers=[row], ranges=["10.0.0.0/8"], limits={"f0": 7}, settled=False),
    )
    assert seen.frontends[0].max_connections == 7
    assert not seen.settled
    assert seen.source_ranges == ("10.0.0.0/8",)
    assert seen.backends[0].servers == (
        targets.Server(
            name=words.Word("t10_0_0_2_80"),
            address=words.Word("10.0.0.2:80"),
            weight=7,
            ready=False,
        ),
    )
