"""The language between server and relay, and what a desired load balancer becomes in it."""

from __future__ import annotations

import msgspec
import pytest

from fakecloud import errors, model
from fakecloud.udp import config, wire

A, B = model.Target(ip="10.0.0.1", port=53), model.Target(ip="2001:db8::0:2", port=5353, weight=3)


def desired(**spec: object) -> model.Desired:
    group = model.TargetGroup(name="dns", targets=(A, B))
    whole = model.Spec(
        listeners=(
            model.Listener(name="dns", protocol="udp", port=53, target_group="dns"),
            model.Listener(name="web", protocol="tcp", port=53, target_group="dns"),
        ),
        target_groups=(group,),
    )
    return model.Desired(
        lb_id="lb",
        epoch=1,
        generation=1,
        spec=msgspec.structs.replace(whole, **spec),
        addresses=(
            model.Address(family="ipv6", ip="2001:DB8::1", pool="p"),
            model.Address(family="ipv4", ip="192.0.2.1", pool="p"),
        ),
    )


def text(wish: model.Desired, sessions: int = 100_000) -> str:
    return wire.render(config.build(wish, sessions=sessions))


def test_only_udp_is_relayed_and_nothing_is_as_the_user_wrote_it() -> None:
    (group,) = {first for first, target in config.names(desired().spec) if target}
    assert text(desired()) == (
        "fakecloud-udp 1\n"
        "limit 16384\n"
        "allow 0.0.0.0/0\n"
        "allow ::/0\n"
        f"group {group} balance round_robin affinity 0 drain 300\n"
        f"target {group} 10.0.0.1 53 weight 100 state ready\n"
        f"target {group} 2001:db8::2 5353 weight 3 state ready\n"
        f"listener u53 53 group {group} idle 350 limit 16384\n"
        "bind u53 192.0.2.1\n"
        "bind u53 2001:db8::1\n"
    )


def test_nothing_to_relay() -> None:
    assert config.build(desired(admin_up=False), sessions=9).listeners == ()
    assert config.build(desired(listeners=()), sessions=9).listeners == ()


def test_failing_and_draining_targets_leave() -> None:
    key = model.probe_key(A, model.HealthCheck())
    assert key is not None
    wish = msgspec.structs.replace(desired(), down=frozenset({key}))
    assert "10.0.0.1 53 weight 100 state leaving" in text(wish)
    draining = model.TargetGroup(name="dns", targets=(A, msgspec.structs.replace(B, drain=True)))
    assert "5353 weight 3 state leaving" in text(desired(target_groups=(draining,)))
    opened = model.TargetGroup(name="dns", targets=(A,), fail_open=True)
    wish = msgspec.structs.replace(desired(target_groups=(opened,)), down=frozenset({key}))
    assert "10.0.0.1 53 weight 100 state ready" in text(wish)


def test_sessions_are_limited_by_the_files_a_process_may_open() -> None:
    assert "limit 500\n" in text(desired(), sessions=500)


@pytest.mark.parametrize(
    ("field", "listener", "group"),
    [
        ("accept_proxy_protocol", {"accept_proxy_protocol": True}, {}),
        ("tls", {"tls": model.Tls()}, {}),
        ("routes", {"routes": (model.Route(target_group="dns"),)}, {}),
        ("redirect_https", {"redirect_https": True}, {}),
        ("send_proxy_protocol", {}, {"send_proxy_protocol": "v2"}),
        ("preserve_client_ip", {}, {"preserve_client_ip": True}),
        ("affinity.kind", {}, {"affinity": model.Affinity(kind="cookie")}),
        ("target_group", {"target_group": "nobody"}, {}),
        ("idle_timeout_s", {"idle_timeout_s": 0}, {}),
        ("targets.port", {}, {"targets": (model.Target(ip="10.0.0.1", port=0),)}),
        ("targets.ip", {}, {"targets": (model.Target(ip="10.0.0.1;x", port=1),)}),
        ("twice", {}, {"targets": (A, A)}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_no_meaning_is_refused_by_name(
    field: str, listener: dict[str, object], group: dict[str, object]
) -> None:
    told = model.Listener(name="dns", protocol="udp", port=53, target_group="dns")
    wish = desired(
        listeners=(msgspec.structs.replace(told, **listener),),
        target_groups=(
            msgspec.structs.replace(model.TargetGroup(name="dns", targets=(A,)), **group),
        ),
    )
    with pytest.raises(errors.Permanent, match=field):
        text(wish)


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "__init__",
        "limit",
        "limit many",
        "group g balance fastest affinity 0 drain 0",
        "group g balance round_robin affinity 0",
        "target g 10.0.0.1 53 weight 1 state ready",
        "listener u1 1 group nobody idle 1 limit 1",
        "bind u1 192.0.2.1",
    ],
)
def test_unknown_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="no such line"):
        wire.parse(f"{wire.VERSION}\n{line}\n")


def test_other_language_is_refused() -> None:
    with pytest.raises(ValueError, match="language"):
        wire.parse("fakecloud-udp 2\n")


def test_a_port_of_the_machine_is_a_second_door_to_the_same_listener() -> None:
    published = (
        model.HostPort(listener="dns", transport="udp", port=20000),
        model.HostPort(listener="web", transport="tcp", port=20001),
    )
    plain = desired()
    both = config.build(msgspec.structs.replace(plain, host_ports=published), sessions=1000)
    assert set(both.binds()) - set(config.build(plain, sessions=1000).binds()) == {
        ("0.0.0.0", 20000)
    }
    meaning = config.names(plain.spec)
    assert {meaning[one.name, ""] for one in both.listeners} == {("listener", "dns")}
    assert wire.render(wire.parse(wire.render(both))) == wire.render(both)
