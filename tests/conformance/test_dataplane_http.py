"""What HAProxy does with requests: rules, headers, cookies, TLS, upgrades."""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from fakecloud import errors, model
from tests.conformance.dataplane_world import HAPROXY, IP, PORT, HaproxyWorld, desired
from tests.conformance.http_world import (
    HttpTargets,
    certificate,
    get,
    protocol_chosen,
    serial_seen,
    tls_version,
)

pytestmark = [
    pytest.mark.haproxy,
    pytest.mark.skipif(
        shutil.which(HAPROXY) is None, reason="no haproxy here (apt-get install haproxy)"
    ),
]
TLS_PORT = PORT + 1


@pytest.fixture
def real() -> Iterator[HaproxyWorld]:
    made = HaproxyWorld()
    yield made
    made.close()


@pytest.fixture
def web() -> Iterator[HttpTargets]:
    made = HttpTargets(3)
    yield made
    made.close()


def listener(protocol: str = "http", port: int = PORT, **fields: Any) -> model.Listener:
    whole = {"name": f"l{port}", "protocol": protocol, "port": port, "target_group": "web"}
    return msgspec.convert({**whole, **fields}, model.Listener)


def group(name: str, *targets: model.Target, **fields: Any) -> model.TargetGroup:
    empty = msgspec.convert({"name": name, "targets": [], **fields}, model.TargetGroup)
    return msgspec.structs.replace(empty, targets=targets)


def wish(
    *listeners: model.Listener,
    groups: tuple[model.TargetGroup, ...],
    certificates: tuple[model.CertificateChain, ...] = (),
    **spec: Any,
) -> model.Desired:
    whole = desired(listeners=listeners, target_groups=groups, **spec)
    return msgspec.structs.replace(whole, certificates=certificates)


def routed(web: HttpTargets, *routes: tuple[str | None, str | None, str]) -> model.Desired:
    rules = [{"host": h, "path_prefix": p, "target_group": g} for h, p, g in routes]
    groups = tuple(
        group(name, target) for name, target in zip(("web", "b", "c"), web.targets, strict=True)
    )
    return wish(listener(routes=rules), groups=groups)


def test_targets_hear_who_asked_for_what(real: HaproxyWorld, web: HttpTargets) -> None:
    real.plane.apply(wish(listener(), groups=(group("web", web.targets[0]),)))
    answer = get(
        "/a?b=c", "shop.example:81", X_Forwarded_For="192.0.2.1", X_Forwarded_Proto="https"
    )
    heard = answer.told["headers"]
    assert (answer.status, answer.told["path"]) == (200, "/a?b=c")
    assert heard["host"] == "shop.example:81"
    assert heard["x-forwarded-host"] == "shop.example:81"
    assert heard["x-forwarded-proto"] == "http"
    assert heard["x-forwarded-port"] == str(PORT)
    assert heard["x-forwarded-for"].split(", ")[-1] == "127.0.0.1"


def test_rules_choose_by_host_and_path(real: HaproxyWorld, web: HttpTargets) -> None:
    real.plane.apply(
        routed(
            web,
            ("shop.example", None, "b"),
            ("shop.example", "/cart", "c"),
            ("*.example", "/images", "c"),
            (None, "/api/", "b"),
        )
    )
    default, b, c = web.names
    for path, host, target in (
        ("/", "web.example", default),
        ("/", "shop.example", b),
        ("/x/cart", "SHOP.example:8080", b),
        ("/cart", "shop.example", c),
        ("/cart/1?x=/", "shop.example", c),
        ("/cartoon", "shop.example", b),
        ("/images/1", "any.example", c),
        ("/images/1", "deep.any.example", default),
        ("/api", "web.other", b),
        ("/api/x", "web.example", b),
        ("/apix", "web.example", default),
        ("/api?x", "[::1]:80", b),
    ):
        assert get(path, host).target == target, (path, host)


def test_rules_change_in_the_running_process(real: HaproxyWorld, web: HttpTargets) -> None:
    real.plane.apply(routed(web, (None, "/a", "b"), (None, "/b", "c")))
    before = real.starts()
    real.plane.apply(routed(web, (None, "/a", "c"), ("x.example", "/~a%20b", "b")))
    assert get("/a").target == web.names[2]
    assert get("/b").target == web.names[0]
    assert get("/~a%20b/", "x.example").target == web.names[1]
    assert real.starts() == before
    real.restart()
    real.plane.adopt({"lb-1"})
    real.plane.apply(routed(web, (None, "/a", "b"), (None, "/b", "c")))
    assert get("/a").target == web.names[1]
    assert real.starts() == before


def test_a_cookie_brings_clients_back(real: HaproxyWorld, web: HttpTargets) -> None:
    """Also to a target that came later, and across another process."""

    def shape(*targets: model.Target, **fields: Any) -> model.Desired:
        sticky = {"affinity": {"kind": "cookie", "timeout_s": 60}}
        return wish(listener(**fields), groups=(group("web", *targets, **sticky),))

    real.plane.apply(shape(*web.targets[:1]))
    before = real.starts()
    real.plane.apply(shape(*web.targets))
    assert real.starts() == before
    cookies = {}
    for _ in range(6):
        answer = get()
        assert "httponly" in answer.headers["set-cookie"].lower()
        cookies[answer.target] = answer.headers["set-cookie"].partition(";")[0]
    assert set(cookies) == set(web.names)
    assert len(set(cookies.values())) == 3
    real.plane.apply(shape(*web.targets, idle_timeout_s=99))
    assert real.starts() != before
    for target, cookie in cookies.items():
        assert {get(Cookie=cookie).target for _ in range(4)} == {target}
    gone = web.names[0]
    real.plane.apply(shape(*web.targets[1:], idle_timeout_s=99))
    assert get(Cookie=cookies[gone]).target in web.names[1:]


def test_websockets_pass(real: HaproxyWorld, web: HttpTargets) -> None:
    real.plane.apply(wish(listener(), groups=(group("web", web.targets[0]),)))
    with socket.create_connection((IP, PORT), timeout=5) as connection:
        connection.sendall(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(256)
        assert answer.startswith(b"HTTP/1.1 101 ")
        connection.sendall(b"frame")
        assert connection.recv(64) == b"frame"


@pytest.mark.parametrize("secure", [False, True], ids=["h1", "h2"])
def test_without_a_healthy_target_nobody_answers(
    real: HaproxyWorld, web: HttpTargets, secure: bool
) -> None:
    """The connection closes; no 503 that a client could take for the application's."""
    kind = listener("https", tls={"certificates": ["c"]}) if secure else listener()
    apply = wish(kind, groups=(group("web", *web.targets),), certificates=(CERTIFICATE,))
    real.plane.apply(apply)
    check = model.HealthCheck()
    down = frozenset(model.probe_key(target, check) for target in web.targets)
    real.plane.set_down("lb-1", frozenset(key for key in down if key))
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        get(tls=secure)
    real.plane.set_down("lb-1", frozenset())
    assert get(tls=secure).status == 200


def test_dead_targets_that_no_probe_has_noticed_give_no_answer_of_ours(
    real: HaproxyWorld, web: HttpTargets
) -> None:
    dead = msgspec.structs.replace(web.targets[0], port=1)
    real.plane.apply(wish(listener(), groups=(group("web", dead),)))
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        get()


CERTIFICATE = certificate("c", "web.example")
A = certificate("a", "a.example")
WILD = certificate("w", "*.wild.example")


def secured(
    web: HttpTargets, *certificates: model.CertificateChain, min_version: str = "1.2"
) -> model.Desired:
    names = [one.name for one in certificates]
    tls = {"certificates": names, "min_version": min_version}
    return wish(
        listener("https", tls=tls),
        groups=(group("web", *web.targets),),
        certificates=certificates,
    )


def test_a_cookie_of_https_is_for_https_alone(real: HaproxyWorld, web: HttpTargets) -> None:
    """Also where http and https share the target group; and both mean the same target."""
    secure = listener("https", TLS_PORT, tls={"certificates": [CERTIFICATE.name]})
    sticky = group("web", *web.targets, affinity={"kind": "cookie", "timeout_s": 60})
    real.plane.apply(wish(listener(), secure, groups=(sticky,), certificates=(CERTIFICATE,)))
    plain, tls = get(), get(port=TLS_PORT, tls=True)
    assert "secure" not in plain.headers["set-cookie"].lower()
    assert "secure" in tls.headers["set-cookie"].lower()
    cookie = tls.headers["set-cookie"].partition(";")[0]
    assert {get(Cookie=cookie).target for _ in range(4)} == {tls.target}


def test_certificates_are_chosen_by_host_name(real: HaproxyWorld, web: HttpTargets) -> None:
    real.plane.apply(secured(web, CERTIFICATE, A, WILD))
    assert serial_seen("a.example")[0] == "a.example"
    assert serial_seen("x.wild.example")[0] == "*.wild.example"
    assert serial_seen("web.example")[0] == "web.example"
    assert serial_seen("unknown.example")[0] == "web.example"
    heard = get(tls=True).told["headers"]
    assert (heard["x-forwarded-proto"], heard["x-forwarded-port"]) == ("https", str(PORT))


def test_a_renewed_certificate_is_used_without_another_process(
    real: HaproxyWorld, web: HttpTargets
) -> None:
    real.plane.apply(secured(web, CERTIFICATE, A))
    before = real.starts()
    renewed = certificate("a", "a.example", serial=2)
    real.plane.apply(secured(web, CERTIFICATE, renewed))
    assert serial_seen("a.example") == ("a.example", 2)
    assert real.starts() == before
    real.restart()
    real.plane.adopt({"lb-1"})
    real.plane.apply(secured(web, CERTIFICATE, A))
    assert serial_seen("a.example") == ("a.example", 1)
    assert real.starts() == before
    real.crash()
    real.eventually(lambda: real.plane.serving("lb-1") and real.starts() != before)
    assert serial_seen("a.example") == ("a.example", 1)


def test_other_certificates_take_a_swap(real: HaproxyWorld, web: HttpTargets) -> None:
    real.plane.apply(secured(web, CERTIFICATE))
    real.plane.apply(secured(web, CERTIFICATE, A))
    assert serial_seen("a.example")[0] == "a.example"
    real.plane.apply(secured(web, A))
    assert serial_seen("web.example")[0] == "a.example"


def test_keys_lie_where_only_the_server_reads(real: HaproxyWorld, web: HttpTargets) -> None:
    real.plane.apply(secured(web, CERTIFICATE, A))
    directory = real.root / "state" / "lb" / "lb-1"
    holders = [p for p in directory.iterdir() if p.is_file() and b"PRIVATE" in p.read_bytes()]
    assert len(holders) >= 2
    assert {path.stat().st_mode & 0o777 for path in holders} == {0o600}
    assert directory.stat().st_mode & 0o777 == 0o700
    assert "PRIVATE" not in (real.plane.configuration("lb-1") or "")


def test_lowest_version_of_tls_is_kept(real: HaproxyWorld, web: HttpTargets) -> None:
    real.plane.apply(secured(web, CERTIFICATE))
    assert tls_version(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    real.plane.apply(secured(web, CERTIFICATE, min_version="1.3"))
    assert tls_version(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises(OSError, match=r"(?i)alert|version|reset"):
        tls_version(ssl.TLSVersion.TLSv1_2)


def test_http_2_is_spoken_with_who_can(real: HaproxyWorld, web: HttpTargets) -> None:
    real.plane.apply(secured(web, CERTIFICATE))
    assert protocol_chosen("h2", "http/1.1") == "h2"
    assert protocol_chosen("http/1.1") == "http/1.1"


def test_http_2_without_tls_is_spoken_with_who_begins_it(
    real: HaproxyWorld, web: HttpTargets
) -> None:
    """Prior knowledge (RFC 9113, 3.3), as gRPC clients have it: a SETTINGS frame answers."""
    real.plane.apply(wish(listener(), groups=(group("web", *web.targets),)))
    with socket.create_connection((IP, PORT), timeout=5) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        frame = connection.recv(64)
        assert frame[3] == 4


def test_tls_may_end_before_tcp(real: HaproxyWorld) -> None:
    """The target gets bytes, and no protocol is offered to the client."""
    of = listener("tcp", tls={"certificates": ["c"]})
    real.plane.apply(wish(of, groups=(group("web", *real.targets),), certificates=(CERTIFICATE,)))
    assert protocol_chosen("h2", "http/1.1") is None
    assert serial_seen("web.example")[0] == "web.example"


@pytest.mark.parametrize(
    ("ports", "there"), [((443,), ""), ((TLS_PORT,), f":{TLS_PORT}"), ((), "")]
)
def test_plain_clients_are_sent_to_https(
    real: HaproxyWorld, web: HttpTargets, ports: tuple[int, ...], there: str
) -> None:
    secure = [listener("https", port, tls={"certificates": ["c"]}) for port in ports]
    apply = wish(
        listener(redirect_https=True),
        *secure,
        groups=(group("web", *web.targets),),
        certificates=(CERTIFICATE,),
    )
    try:
        real.plane.apply(apply)
    except errors.Permanent:
        pytest.skip("port 443 needs a privilege")
    answer = get("/a?b=c", f"web.example:{PORT}")
    assert answer.status == 301
    assert answer.headers["location"] == f"https://web.example{there}/a?b=c"


@pytest.mark.parametrize("head", [b"HTTP/1.0", b"HTTP/1.1\r\nHost: \r\nConnection: close"])
def test_who_names_no_host_is_not_sent_anywhere(
    real: HaproxyWorld, web: HttpTargets, head: bytes
) -> None:
    real.plane.apply(wish(listener(redirect_https=True), groups=(group("web", *web.targets),)))
    with socket.create_connection((IP, PORT), timeout=5) as client:
        client.sendall(b"GET /a " + head + b"\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_the_configuration_is_shown_whole_but_for_its_sockets(
    real: HaproxyWorld, web: HttpTargets
) -> None:
    secure = listener("https", tls={"certificates": ["c"]})
    groups = (group("web", *web.targets),)
    real.plane.apply(wish(secure, groups=groups, certificates=(CERTIFICATE,)))
    shown = real.plane.configuration("lb-1")
    assert shown is not None
    assert "stats socket <redacted> mode 600" in shown
    assert "ssl crt-list g1.f0.crt ssl-min-ver TLSv1.2 alpn h2,http/1.1" in shown


def test_clients_are_known_by_address_also_with_requests(
    real: HaproxyWorld, web: HttpTargets
) -> None:
    sticky = {"affinity": {"kind": "client_ip", "timeout_s": 60}}
    real.plane.apply(wish(listener(), groups=(group("web", *web.targets, **sticky),)))
    (first,) = {get().target for _ in range(6)}
    real.plane.apply(
        wish(listener(idle_timeout_s=99), groups=(group("web", *web.targets, **sticky),))
    )
    assert {get().target for _ in range(6)} == {first}


def test_ranges_are_kept_with_requests(real: HaproxyWorld, web: HttpTargets) -> None:
    real.plane.apply(
        wish(listener(), groups=(group("web", *web.targets),), source_ranges=("192.0.2.0/24",))
    )
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        get()


def test_what_can_not_be_used_leaves_the_last_good_one(
    real: HaproxyWorld, web: HttpTargets
) -> None:
    """HAProxy itself says no: a key that belongs to another certificate."""
    real.plane.apply(secured(web, CERTIFICATE))
    other = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    broken = model.CertificateChain(name="x", pem=other, fingerprint="0")
    with pytest.raises(errors.Permanent) as refused:
        real.plane.apply(secured(web, CERTIFICATE, broken))
    assert refused.value.code == "config_invalid"
    assert "/" not in refused.value.message.partition("certificate")[0]
    assert get(tls=True).status == 200
