"""Faults of the data plane on real traffic: each is seen to begin and to end."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from fakecloud.clock import SystemClock
from fakecloud.haproxy import state
from tests.flows.conftest import Running, ask, document, eventually

pytestmark = pytest.mark.haproxy

CLOCK = SystemClock()


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


def test_a_bandwidth_is_kept_to(cloud, web):
    if not cloud.app.state.cloud.inspector.can_limit_bandwidth():
        pytest.skip("this HAProxy has no limit of bandwidth (2.7 or newer has)")

    def seconds() -> float:
        began = CLOCK.monotonic()
        assert len(ask(web)) > 0
        return CLOCK.monotonic() - began

    fault = inject(cloud, "bandwidth", bytes_per_s=50)
    eventually(lambda: seconds() >= 1)  # an answer has more than a hundred bytes with its head
    remove(cloud, fault)
    eventually(lambda: seconds() < 1)


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
    "text", ["explode", "latency", "latency=soon", "resets=200", "refuse=1", "refuse/never"]
)
def test_annotations_that_say_nothing_are_refused(cloud, targets, text):
    wish = document(targets) | {"annotations": {"chaos.fakecloud.dev/dataplane": text}}
    answer = cloud.put("web", wish)
    assert answer.status_code == 422
    assert "/annotations/chaos.fakecloud.dev~1dataplane" in answer.text


def test_what_this_host_can_not_do_is_refused_with_the_reason(cloud):
    if cloud.app.state.cloud.inspector.can_limit_bandwidth():
        assert inject(cloud, "bandwidth", bytes_per_s=1000)["action"]["bytes_per_s"] == 1000
        return
    found = inject(cloud, "bandwidth", code=422, bytes_per_s=1000)
    assert "HAProxy 2.7" in found["detail"]


@pytest.fixture(autouse=True)
def _no_faults(request):
    yield
    for name in ("shared_cloud",):
        if name in request.fixturenames:
            request.getfixturevalue(name).http.post("/v1/chaos:reset")
