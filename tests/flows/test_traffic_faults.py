"""Faults of the data plane on real traffic: each is seen to begin and to end."""

from __future__ import annotations

import itertools
import re
import socket
import ssl
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event
from typing import Any

import pytest
from cryptography import x509

from fakecloud.clock import SystemClock
from fakecloud.haproxy import state
from tests.flows.conftest import Running, ask, document, eventually
from tests.flows.test_certificates import brought, secured

pytestmark = pytest.mark.haproxy

CLOCK = SystemClock()
_WEIGHTS = itertools.count(1)


@pytest.fixture
def web(cloud, targets) -> str:
    """A load balancer that serves; its address."""
    return made(cloud, targets)


def made(cloud: Running, targets: list[dict[str, Any]], **annotations: str) -> str:
    wish = document(targets) | {
        "annotations": {f"chaos.fakecloud.dev/{key}": text for key, text in annotations.items()}
    }
    found = cloud.active("web", wish)
    ip = found["status"]["addresses"][0]["ip"]
    if not annotations:
        eventually(lambda: cloud.get("web")["status"]["operating_state"] == "ONLINE")
    return ip


def inject(cloud: Running, type: str, code: int = 201, **action: object) -> dict[str, Any]:
    fault = {"layer": "dataplane", "action": {"type": type, **action}, "expires_in_s": 30}
    answer = cloud.http.post("/v1/chaos/faults", json=fault)
    assert answer.status_code == code, answer.text
    found: dict[str, Any] = answer.json()
    return found


def remove(cloud: Running, fault: dict[str, Any]) -> None:
    assert cloud.http.delete(f"/v1/chaos/faults/{fault['id']}").status_code == 204


def meets(ip: str, patience_s: float = 0.3) -> str:
    """Return what a client meets: ok, refused, reset, or silence within `patience_s`."""
    try:
        with socket.create_connection((ip, 8080), timeout=patience_s) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            return "ok" if client.recv(64) else "closed"
    except TimeoutError:
        return "silence"
    except ConnectionRefusedError:
        return "refused"
    except (ConnectionResetError, BrokenPipeError):
        return "reset"


def pid(cloud: Running) -> int | None:
    record = state.load(cloud.directory / "lb" / cloud.get("web")["status"]["id"])
    return next((p.pid for p in record.processes if p.number == record.active), None)


@pytest.mark.parametrize(
    ("type", "action", "met"),
    [
        ("refuse", {}, "refused"),
        ("blackhole", {}, "silence"),
        ("latency", {"seconds": 1.5}, "silence"),
        ("timeout", {"seconds": 0.1}, "closed"),
        ("resets", {}, "reset"),
        ("stop", {}, "silence"),
        ("host_down", {}, "refused"),
    ],
)
def test_traffic_is_disturbed_until_the_fault_is_gone(cloud, web, type, action, met):
    fault = inject(cloud, type, **action)
    eventually(lambda: meets(web) == met)
    remove(cloud, fault)
    eventually(lambda: meets(web) == "ok")
    hits = cloud.http.get("/v1/chaos/log", params={"fault": fault["id"]}).json()["items"]
    assert [hit["action"] for hit in hits] == [type]


def test_each_ends_by_itself(cloud, web):
    inject(cloud, "refuse", lasts_s=1.0)
    eventually(lambda: meets(web) == "refused")
    eventually(lambda: meets(web) == "ok")
    assert cloud.http.get("/v1/chaos/faults").json()["items"], "the rule goes on, for others"


def test_latency_delays_the_start_of_a_connection_only(cloud, web):
    inject(cloud, "latency", seconds=0.4)
    began = eventually(lambda: CLOCK.monotonic() if meets(web) == "silence" else 0.0)
    began = CLOCK.monotonic()
    assert ask(web)
    assert CLOCK.monotonic() - began >= 0.4


def pieces(ip: str) -> tuple[list[tuple[float, bytes]], float]:
    """Return when which part of an answer came, and when its end: seconds after the request."""
    found = []
    with socket.create_connection((ip, 8080), timeout=5) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        began = CLOCK.monotonic()
        client.sendall(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
        with suppress(ConnectionResetError):
            while part := client.recv(4096):
                found.append((CLOCK.monotonic() - began, part))
        return found, CLOCK.monotonic() - began


def asks_again(client: socket.socket) -> bool:
    """Ask over a connection that stays; say whether the answer is a good one."""
    client.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
    found = b""
    while not found.partition(b"\r\n\r\n")[2]:
        found += client.recv(4096)
    return b" 200 " in found


def whole(ip: str) -> bytes:
    return b"".join(part for _, part in pieces(ip)[0])


@pytest.mark.parametrize(
    ("type", "action", "spoiled"),
    [
        ("bandwidth", {"bytes_per_s": 100}, lambda ip: pieces(ip)[0][-1][0] >= 0.8),
        ("slicer", {"bytes": 20, "seconds": 0.1}, lambda ip: len(pieces(ip)[0]) >= 5),
        ("limit_data", {"bytes": 30}, lambda ip: len(whole(ip)) == 30),
        ("slow_close", {"seconds": 0.8}, lambda ip: pieces(ip)[1] - pieces(ip)[0][-1][0] > 0.5),
        ("jitter", {"seconds": 1.5}, lambda ip: pieces(ip)[0][0][0] > 0.3),
        (
            "slicer",
            {"bytes": 10, "seconds": 0.2, "direction": "upstream"},
            lambda ip: pieces(ip)[0][0][0] > 0.6,
        ),
    ],
)
def test_the_way_to_the_targets_is_spoiled_until_the_fault_is_gone(
    cloud, web, type, action, spoiled
):
    """On every version of HAProxy, and for new connections only."""
    good = whole(web)
    with socket.create_connection((web, 8080), timeout=5) as old:
        assert asks_again(old)
        fault = inject(cloud, type, **action)
        eventually(lambda: spoiled(web), 10)
        began = CLOCK.monotonic()
        assert asks_again(old)
        assert CLOCK.monotonic() - began < 0.3
    if type != "limit_data":
        assert len(whole(web)) == len(good)
    remove(cloud, fault)
    eventually(lambda: len(whole(web)) == len(good) and pieces(web)[1] < 0.3)


def test_targets_change_while_the_way_to_them_is_spoiled(cloud, targets):
    ip = made(cloud, targets[:1])
    inject(cloud, "slicer", bytes=20, seconds=0.01)
    eventually(lambda: len(pieces(ip)[0]) > 3)
    cloud.active("web", document(targets))
    both = {str(target["port"]) for target in targets}
    assert {ask(ip) for _ in range(8)} == both
    cloud.active("web", document(targets[1:]))
    assert {ask(ip) for _ in range(4)} == {str(targets[1]["port"])}


def test_a_share_of_the_connections_is_spoiled(cloud, web):
    good = len(whole(web))
    inject(cloud, "limit_data", bytes=30, probability=0.5)
    eventually(lambda: len(whole(web)) == 30)
    lengths = [len(whole(web)) for _ in range(60)]
    assert {30, good} >= set(lengths)
    assert 10 < lengths.count(30) < 50


def test_nobody_comes_through_to_anything_but_the_targets(cloud, web, targets):
    """What spoils connections listens on the loopback interface, where others are, too."""
    fault = inject(cloud, "slow_close", seconds=0.5)
    lb_id = cloud.get("web")["status"]["id"]
    found = eventually(lambda: re.search(r"socks4 (\S+):(\d+)", configuration(cloud)))
    assert found[1] == "127.0.0.1"
    with socket.create_server((web, 0)) as secret:
        for ip, port, code in (
            (*secret.getsockname(), 91),
            (targets[0]["ip"], targets[0]["port"], 90),
        ):
            with socket.create_connection((found[1], int(found[2])), timeout=5) as client:
                asked = struct.pack("!BBH4s", 4, 1, port, socket.inet_aton(ip))
                client.sendall(asked + b"me\0")
                assert client.recv(8)[1] == code
    remove(cloud, fault)
    eventually(lambda: "socks4" not in configuration(cloud))
    assert lb_id


def configuration(cloud: Running) -> str:
    text: str = cloud.http.get("/v1/load-balancers/web/config").text
    return text


def test_certificates_run_out_and_are_good_again(cloud, targets):
    cloud.http.put("/v1/certificates/shop", json=brought("shop.example", serial=77))
    ip = cloud.active("web", secured(targets, "shop"))["status"]["addresses"][0]["ip"]

    def shown() -> x509.Certificate:
        return x509.load_pem_x509_certificate(ssl.get_server_certificate((ip, 8080)).encode())

    good = shown()
    before = pid(cloud)
    fault = inject(cloud, "cert_expire")
    eventually(lambda: shown().not_valid_after_utc < good.not_valid_before_utc)
    assert shown().subject == good.subject
    assert shown().public_key() == good.public_key()
    assert shown() == shown()
    remove(cloud, fault)
    eventually(lambda: shown() == good)
    assert pid(cloud) == before, "no process was needed"


def test_process_that_hears_nothing_serves_on_and_is_heard_again(cloud, web, targets):
    before = pid(cloud)
    fault = inject(cloud, "stats_socket_hang")
    eventually(lambda: not can_change(cloud, targets))
    assert meets(web) == "ok"
    remove(cloud, fault)
    cloud.active("web", document(targets, port=8080, source_ranges=["127.0.0.0/8"]))
    assert meets(web) == "ok"
    assert before


def test_process_that_stays_deaf_is_replaced(cloud, web):
    before = pid(cloud)
    inject(cloud, "stats_socket_hang")
    eventually(lambda: pid(cloud) not in (None, before), 30)
    eventually(lambda: meets(web) == "ok")


def can_change(cloud: Running, targets: list[dict[str, Any]]) -> bool:
    """Say whether the data plane still learns of another weight."""
    weight = next(_WEIGHTS)
    wish = document([{**one, "weight": weight} for one in targets])
    cloud.put("web", wish, params={"wait": "1s"})
    return cloud.get("web")["status"]["state"] == "ACTIVE"


def test_a_share_of_the_connections_is_reset(cloud, web):
    inject(cloud, "resets", probability=0.5)
    eventually(lambda: "reset" in {meets(web) for _ in range(10)})
    with ThreadPoolExecutor(8) as pool:
        met = list(pool.map(lambda _: meets(web, 5), range(200)))
    assert 50 < met.count("reset") < 150
    assert met.count("ok") == 200 - met.count("reset")


def test_established_connections_are_left_alone(cloud, web):
    with socket.create_connection((web, 8080), timeout=5) as old:
        inject(cloud, "blackhole")
        eventually(lambda: meets(web) == "silence")
        old.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        assert old.recv(64)


def test_killed_process_comes_back_and_is_killed_once(cloud, web):
    before = pid(cloud)
    inject(cloud, "kill")
    after = eventually(lambda: now if (now := pid(cloud)) not in (None, before) else None)
    eventually(lambda: meets(web) == "ok")
    CLOCK.wait(Event(), 0.6)  # two more turns
    assert pid(cloud) == after


def test_health_flaps_and_is_well_afterwards(cloud, web):
    fault = inject(cloud, "health_flap", seconds=1.0)

    def status() -> dict[str, Any]:
        found: dict[str, Any] = cloud.get("web")["status"]
        return found

    failing = eventually(lambda: s if (s := status())["operating_state"] == "OFFLINE" else None)
    assert {target["reason"] for target in failing["targets"]} == {"fault_injected"}
    eventually(lambda: meets(web) in ("closed", "reset"))
    eventually(lambda: status()["operating_state"] == "ONLINE")
    eventually(lambda: status()["operating_state"] == "OFFLINE")
    remove(cloud, fault)
    eventually(lambda: status()["operating_state"] == "ONLINE")
    eventually(lambda: meets(web) == "ok")


def test_change_that_needs_a_process_fails_and_the_last_one_serves(cloud, web, targets):
    fault = inject(cloud, "reload_fail")
    wish = document(targets, port=8081)
    hits = lambda: cloud.http.get("/v1/chaos/log").json()["items"]  # noqa: E731
    eventually(hits)
    CLOCK.wait(Event(), 0.3)
    cloud.put("web", wish)
    error = eventually(lambda: _reload_error(cloud))
    assert error["code"] == "fault_injected"
    assert meets(web) == "ok"
    remove(cloud, fault)
    eventually(lambda: cloud.get("web")["status"]["observed_generation"] == 2, 30)
    assert ask(web, 8081)


def _reload_error(cloud: Running) -> dict[str, Any] | None:
    operation = cloud.get("web")["status"]
    found: dict[str, Any] | None = operation["last_error"]
    return found


def test_what_was_imposed_ends_with_the_server_and_what_lasts_comes_back(new_cloud, targets):
    cloud = new_cloud()
    ip = made(cloud, targets)
    fault = inject(cloud, "blackhole")
    eventually(lambda: meets(ip) == "silence")
    cloud.stop()
    assert meets(ip) == "silence", "nobody was there to end it"
    cloud.start()
    eventually(lambda: meets(ip) == "silence")
    remove(cloud, fault)
    eventually(lambda: meets(ip) == "ok")
    inject(cloud, "blackhole", lasts_s=1.0)
    eventually(lambda: meets(ip) == "silence")
    cloud.stop()
    CLOCK.wait(Event(), 1.0)
    cloud.start()
    eventually(lambda: meets(ip) == "ok")


def test_stopped_process_goes_on_after_a_restart_of_the_server(new_cloud, targets):
    cloud = new_cloud()
    ip = made(cloud, targets)
    fault = inject(cloud, "stop")
    eventually(lambda: meets(ip) == "silence")
    remove_later = fault["id"]
    cloud.app.state.cloud.chaos.remove("default", remove_later)
    cloud.stop()
    cloud.start()
    eventually(lambda: meets(ip) == "ok")


def test_asked_for_by_an_annotation_for_a_while(cloud, targets):
    """As a Service in Kubernetes does."""
    ip = made(cloud, targets, dataplane="refuse/2s")
    eventually(lambda: meets(ip) == "refused")
    eventually(lambda: meets(ip) == "ok")
    CLOCK.wait(Event(), 0.6)
    assert meets(ip) == "ok", "once"


@pytest.mark.parametrize(
    "text",
    [
        "explode",
        "latency",
        "latency=soon",
        "resets=200",
        "refuse=1",
        "refuse/never",
        "slicer",
        "bandwidth=0",
    ],
)
def test_annotations_that_say_nothing_are_refused(cloud, targets, text):
    wish = document(targets) | {"annotations": {"chaos.fakecloud.dev/dataplane": text}}
    answer = cloud.put("web", wish)
    assert answer.status_code == 422
    assert "/annotations/chaos.fakecloud.dev~1dataplane" in answer.text


@pytest.fixture(autouse=True)
def _no_faults(request):
    yield
    for name in ("shared_cloud",):
        if name in request.fixturenames:
            request.getfixturevalue(name).http.post("/v1/chaos:reset")
