"""What a desired load balancer looks like as HAProxy's configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fakecloud import errors, model
from fakecloud.domain.disturbances import Disturbance
from fakecloud.haproxy import config, rendering, words

GOLDEN = Path(__file__).parents[3] / "golden" / "haproxy"
PLACE = rendering.Place(socket=words.Word("/run/fakecloud/0123456789.g1.sock"), number=1)
PROGRAM = os.environ.get("FAKECLOUD_HAPROXY", "haproxy")
V4 = model.Address(family="ipv4", ip="127.77.0.1", pool="default")
V6 = model.Address(family="ipv6", ip="FD00:0:0::1", pool="default")
A = model.Target(ip="10.0.0.1", port=30080)
B = model.Target(ip="10.0.0.2", port=30080, weight=7)
SIX = model.Target(ip="fd00::2", port=30080, drain=True)


def listener(name: str = "http", port: int = 80, **fields: object) -> model.Listener:
    whole = {"name": name, "protocol": "tcp", "port": port, "target_group": "web", **fields}
    return msgspec.convert(whole, model.Listener)


def group(*targets: model.Target, **fields: object) -> model.TargetGroup:
    empty = msgspec.convert({"name": "web", "targets": [], **fields}, model.TargetGroup)
    return msgspec.structs.replace(empty, targets=targets)


def desired(
    *listeners: model.Listener,
    groups: tuple[model.TargetGroup, ...] = (),
    down: tuple[model.Target, ...] = (),
    addresses: tuple[model.Address, ...] = (V4,),
    certificates: tuple[model.CertificateChain, ...] = (),
    **spec: object,
) -> model.Desired:
    whole = model.Spec(listeners=listeners, target_groups=groups)
    keys = [model.probe_key(target, model.HealthCheck()) for target in down]
    return model.Desired(
        lb_id="lb",
        epoch=1,
        generation=1,
        spec=msgspec.structs.replace(whole, **spec),
        addresses=addresses,
        certificates=certificates,
        down=frozenset(key for key in keys if key is not None),
    )


def build(wish: model.Desired) -> config.Config:
    return config.build(wish, connections=10_000)


def ready(*targets: model.Target, down: tuple[model.Target, ...], **fields: object) -> list[bool]:
    built = build(desired(listener(), groups=(group(*targets, **fields),), down=down))
    return [server.ready for server in built.backends[0].servers]


KEY = ec.generate_private_key(ec.SECP256R1())


@cache
def chain(name: str) -> model.CertificateChain:
    """Return a certificate; HAProxy only looks whether it and the key belong together."""
    when = datetime(2026, 1, 1, tzinfo=UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = x509.CertificateBuilder(
        subject, subject, KEY.public_key(), 1, when, when + timedelta(days=1)
    ).sign(KEY, hashes.SHA256())
    parts = (
        made.public_bytes(serialization.Encoding.PEM),
        KEY.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    return model.CertificateChain(name=name, pem=b"".join(parts).decode(), fingerprint=name)


EXAMPLES = {
    "simple": desired(listener(), groups=(group(A, B),)),
    "everything": desired(
        listener("z", 8443, accept_proxy_protocol=True, max_connections=50, idle_timeout_s=60),
        listener("a", 80),
        listener("m", 8080, target_group="sticky"),
        listener("n", 8081, target_group="hashed"),
        groups=(
            group(A, B, SIX, algorithm="least_connections", send_proxy_protocol="v2"),
            group(A, name="sticky", affinity={"kind": "client_ip"}, send_proxy_protocol="v1"),
            group(A, B, name="hashed", algorithm="source_hash", connect_timeout_s=9),
            group(A, name="unused"),
        ),
        addresses=(V6, V4),
        source_ranges=("10.1.2.3/8", "::/0"),
    ),
    "http": desired(
        listener("plain", 80, protocol="http", redirect_https=True),
        listener(
            "secure",
            443,
            protocol="https",
            tls={"certificates": ["b", "a"], "min_version": "1.3"},
            accept_proxy_protocol=True,
            routes=[
                {"host": "Shop.example", "path_prefix": "/cart/", "target_group": "cookies"},
                {"host": "*.example", "target_group": "sticky"},
                {"path_prefix": "/api", "target_group": "sticky"},
            ],
        ),
        listener("tls", 8443, tls={"certificates": ["a"]}),
        listener("short", 8080, protocol="http", idle_timeout_s=10),
        groups=(
            group(A, B),
            group(A, SIX, name="cookies", affinity={"kind": "cookie", "timeout_s": 60}),
            group(B, name="sticky", affinity={"kind": "client_ip"}, send_proxy_protocol="v2"),
        ),
        certificates=(chain("a"), chain("b")),
    ),
    "some_down": desired(listener(), groups=(group(A, B),), down=(B,)),
    "no_targets": desired(listener(), groups=(group(),)),
}
FAULTS = Disturbance(reset_share=0.1, delay_ms=250)
WHOLE = {name: build(wish) for name, wish in EXAMPLES.items()}
WHOLE["disturbed"] = config.disturbed(WHOLE["http"], FAULTS)


@pytest.mark.parametrize("name", WHOLE)
def test_rendered_configuration_is_the_golden_one(name: str) -> None:
    rendered = rendering.text(WHOLE[name], PLACE)
    assert (GOLDEN / f"{name}.cfg").read_text() == rendered


@pytest.mark.haproxy
@pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="no haproxy here")
@pytest.mark.parametrize("name", [*WHOLE, "known_bad"])
def test_haproxy_accepts_every_golden_file_without_a_warning(name: str, tmp_path: Path) -> None:
    for file, content in rendering.files(WHOLE.get(name, WHOLE["simple"]), PLACE).items():
        (tmp_path / file).write_text(content)
    command = [PROGRAM, "-c", "-dW", "-C", str(tmp_path), "-f", str(GOLDEN / f"{name}.cfg")]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (checked.returncode == 0) == (name != "known_bad"), checked.stderr


def test_weight_is_the_targets_own_word_where_the_group_asks_for_it() -> None:
    check = {"protocol": "http"}
    key = model.probe_key(A, model.HealthCheck(protocol="http"))
    assert key is not None
    said = frozenset({model.ProbeWeight(key, 3)})
    for weights_from, weights in (("none", [100, 7]), ("health_header", [3, 7])):
        wish = desired(
            listener(), groups=(group(A, B, weights_from=weights_from, health_check=check),)
        )
        built = build(msgspec.structs.replace(wish, weights=said))
        assert [server.weight for server in built.backends[0].servers] == weights


def test_user_and_group_are_rendered_when_asked() -> None:
    place = msgspec.structs.replace(PLACE, run_as=(65534, 65533))
    rendered = rendering.text(build(EXAMPLES["simple"]), place)
    assert "\n  uid 65534\n  gid 65533\n" in rendered


def test_order_of_a_document_does_not_matter() -> None:
    one = desired(listener("a", 80), listener("b", 81), groups=(group(A, B),))
    other = desired(listener("b", 81), listener("a", 80), groups=(group(B, A),))
    assert build(one) == build(other)


def test_networks_are_written_anew_without_doubles() -> None:
    wish = desired(listener(), groups=(group(A),), source_ranges=("10.9.9.9/8", "10.0.0.0/8"))
    assert rendering.files(build(wish), PLACE)[words.Word("g1.lst")] == "10.0.0.0/8\n"


@pytest.mark.parametrize(
    ("fail_open", "down", "expected"),
    [
        (False, (), [True, True]),
        (False, (A,), [False, True]),
        (False, (A, B), [False, False]),
        (True, (A,), [False, True]),
        (True, (A, B), [True, True]),
    ],
)
def test_failing_targets_take_nothing_unless_all_fail_open(
    fail_open: bool, down: tuple[model.Target, ...], expected: list[bool]
) -> None:
    assert ready(A, B, down=down, fail_open=fail_open) == expected


def test_fail_open_leaves_draining_targets_out() -> None:
    draining = msgspec.structs.replace(B, drain=True)
    assert ready(A, draining, down=(A,), fail_open=True) == [True, False]


def test_rules_are_a_map_of_whole_path_parts() -> None:
    files = rendering.files(build(EXAMPLES["http"]), PLACE)
    assert files[words.Word("g1.f1.map")] == ("*.example/ b1\n*/api/ b1\nshop.example/cart/ b0\n")


def test_first_certificate_is_for_unknown_hosts() -> None:
    files = rendering.files(build(EXAMPLES["http"]), PLACE)
    assert files[words.Word("g1.f1.crt")] == "g1.c1.pem\ng1.c0.pem\n"
    assert files[words.Word("g1.c0.pem")] == chain("a").pem


def test_keys_are_never_told_by_accident() -> None:
    wish = EXAMPLES["http"]
    assert "PRIVATE" not in f"{wish!r} {build(wish)!r} {wish.certificates[0]}"
    assert "PRIVATE" not in rendering.text(build(wish), PLACE)


def test_udp_is_not_for_haproxy() -> None:
    """Also on a port that TCP has too, and as the only protocol."""
    wish = desired(listener("dns", 53), listener("dns-udp", 53, protocol="udp"), groups=(group(A),))
    assert build(wish) == build(desired(listener("dns", 53), groups=(group(A),)))
    assert config.names(wish.spec)["f0", "FRONTEND"] == ("listener", "dns")
    assert build(desired(listener(protocol="udp"), groups=(group(A),))).frontends == ()


def test_administratively_down_has_no_frontend() -> None:
    wish = desired(listener(), groups=(group(A),), admin_up=False)
    assert build(wish).frontends == ()


@pytest.mark.parametrize(
    ("asked", "limit", "expected"),
    [(None, 10_000, (2000, 2000)), (9000, 10_000, (9000, 9000)), (9000, 500, (500, 9000))],
    ids=["default", "asked", "no more than the host allows"],
)
def test_connections_of_the_process(
    asked: int | None, limit: int, expected: tuple[int, int]
) -> None:
    wish = desired(listener(max_connections=asked), groups=(group(A),))
    built = config.build(wish, connections=limit)
    assert (built.max_connections, built.frontends[0].max_connections) == expected


def test_targets_see_the_client_where_that_was_asked_for() -> None:
    groups = (group(A, preserve_client_ip=True), msgspec.structs.replace(group(B), name="own"))
    wish = desired(listener(), listener("b", 81, target_group="own"), groups=groups)
    place = msgspec.structs.replace(PLACE, run_as=(990, 990))
    text = rendering.text(config.build(wish, connections=1000, transparent=True), place)
    assert text.count("  source 0.0.0.0 usesrc clientip\n") == 1
    assert text.index("setcap cap_net_raw\n") < text.index("uid 990\n")


def test_nobody_keeps_a_capability_without_need() -> None:
    wish = desired(listener(), groups=(group(A),))
    place = msgspec.structs.replace(PLACE, run_as=(990, 990))
    text = rendering.text(config.build(wish, connections=1000, transparent=True), place)
    assert "setcap" not in text
    assert "usesrc" not in text


@pytest.mark.parametrize(
    "wish",
    [
        desired(
            listener(),
            groups=(group(SIX, preserve_client_ip=True),),
        ),
        desired(listener(), groups=(group(A, SIX, preserve_client_ip=True),)),
        desired(
            listener(),
            listener("u", 53, protocol="udp"),
            groups=(group(A, preserve_client_ip=True),),
        ),
    ],
    ids=["another family than the address", "two families", "udp"],
)
def test_where_targets_can_not_see_the_client(wish: model.Desired) -> None:
    with pytest.raises(errors.Permanent, match="preserve_client_ip"):
        config.build(wish, connections=1000, transparent=True)


@pytest.mark.parametrize(
    ("wish", "code", "field"),
    [
        (
            desired(listener(), groups=(group(A, preserve_client_ip=True),)),
            "unsupported",
            "preserve_client_ip",
        ),
        (
            desired(listener(), groups=(group(A, affinity={"kind": "cookie"}),)),
            "config_invalid",
            "affinity",
        ),
        (
            desired(listener(tls={"certificates": ["a"]}), groups=(group(A),)),
            "config_invalid",
            "certificate 'a'",
        ),
        (
            desired(
                listener(protocol="http", routes=[{"host": "a b", "target_group": "web"}]),
                groups=(group(A),),
            ),
            "config_invalid",
            "routes",
        ),
        (desired(listener(target_group="x"), groups=()), "config_invalid", "target_group"),
        (desired(listener(port=0), groups=(group(A),)), "config_invalid", "port"),
        (desired(listener(), groups=(group(A, A),)), "config_invalid", "twice"),
        (
            desired(listener(), groups=(group(model.Target(ip="h.example", port=1)),)),
            "config_invalid",
            "targets.ip",
        ),
        (
            desired(listener(), groups=(group(A),), source_ranges=("all",)),
            "config_invalid",
            "source_ranges",
        ),
        (
            desired(listener(idle_timeout_s=2**31), groups=(group(A),)),
            "config_invalid",
            "idle_timeout_s",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_can_not_be_served_is_refused_by_name(
    wish: model.Desired, code: str, field: str
) -> None:
    with pytest.raises(errors.Permanent, match=field) as refused:
        build(wish)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "text", ["", " ", "a b", "a\n", "a;b", "a#b", '"a"', "$A", "a\\b", "a\0", "ä", "%e", "{", "'"]
)
def test_words_refuse_whatever_ends_a_line_or_an_argument(text: str) -> None:
    with pytest.raises(ValueError, match="not a word"):
        words.Word(text)


def test_a_port_of_the_machine_leads_to_the_same_frontend():
    plain = desired(listener(), listener("alt", 81), groups=(group(A),))
    published = (
        model.HostPort(listener="alt", transport="tcp", port=20000),
        model.HostPort(listener="http", transport="udp", port=20001),
    )
    built = build(msgspec.structs.replace(plain, host_ports=published))
    assert built.binds() - build(plain).binds() == {("0.0.0.0", 20000)}
    assert ("0.0.0.0", 20000) in built.frontends[1].binds
