"""Every fault once, as a client meets it: on the wire, in streams, in provisioning, on the bill."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fakecloud.store import billing_events
from tests.flows.conftest import CLOCK, document, eventually

pytestmark = pytest.mark.haproxy


@pytest.fixture(autouse=True)
def _no_fault_left(cloud) -> Iterator[None]:
    yield
    assert cloud.http.post("/v1/chaos:reset").status_code == 200


def inject(cloud, layer: str, type: str, **more: Any) -> dict[str, Any]:
    """Return a fault that is now in place."""
    parts = {key: more.pop(key) for key in ("match", "trigger", "max_hits", "expires_in_s")
             if key in more}  # fmt: skip
    body = {"layer": layer, "action": {"type": type, **more}, **parts}
    answer = cloud.http.post("/v1/chaos/faults", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/chaos/faults/{answer.json()['id']}"
    found: dict[str, Any] = answer.json()
    return found


def log(cloud) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cloud.http.get("/v1/chaos/log").json()["items"]
    return found


def is_problem(answer, status: int, code: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["status"], answer.json()["code"]) == (status, code)


def html(answer) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (502, "text/html; charset=utf-8")
    assert answer.text.startswith("<html>")


def cut_off(answer) -> None:
    raise AssertionError("an answer came")


def not_json(answer) -> None:
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def limited(answer) -> None:
    is_problem(answer, 429, "rate_limited")
    assert answer.headers["retry-after"] == "7"


def locked(answer) -> None:
    is_problem(answer, 423, "maintenance_locked")


def teapot(answer) -> None:
    is_problem(answer, 418, "injected_fault")


def as_html(answer) -> None:
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.json()["items"] is not None


def empty(answer) -> None:
    assert answer.json()["items"] == []


def named_web(answer) -> None:
    assert [one["name"] for one in answer.json()["items"]] == ["web"]


API = {
    "status-423": ("status", {"code": 423}, locked),
    "status-418": ("status", {"code": 418}, teapot),
    "status-503": ("status", {"code": 503}, lambda a: is_problem(a, 503, "unavailable")),
    "status-problem": (
        "status",
        {"code": 409, "problem": "being_deleted"},
        lambda a: is_problem(a, 409, "being_deleted"),
    ),
    "html_502": ("html_502", {}, html),
    "latency": ("latency", {"seconds": 0.3}, named_web),
    "malformed_json": ("malformed_json", {}, not_json),
    "wrong_content_type": ("wrong_content_type", {}, as_html),
    "omit_from_list": ("omit_from_list", {}, empty),
    "rate_limit": ("rate_limit", {"retry_after_s": 7}, limited),
}


@pytest.mark.parametrize(("type", "parameters", "check"), API.values(), ids=API)
def test_an_answer_is_disturbed_and_says_by_whom(cloud, type, parameters, check):
    cloud.put("web", document([]))
    fault = inject(cloud, "api", type, **parameters, match={"route": "/v1/load-balancers"})
    started = CLOCK.monotonic()
    answer = cloud.http.get("/v1/load-balancers")
    took = CLOCK.monotonic() - started
    assert answer.headers["x-fault-injected"] == fault["id"]
    check(answer)
    assert took >= parameters.get("seconds", 0)
    (hit,) = log(cloud)
    assert (hit["fault_id"], hit["action"]) == (fault["id"], type)
    assert hit["subject"] == answer.headers["x-request-id"]
    assert cloud.http.get("/v1/operations").status_code == 200, "only what matches"


@pytest.mark.parametrize(
    ("type", "parameters", "says"),
    [
        ("reset_before", {}, "disconnected without"),
        ("hang", {"seconds": 0.5}, "disconnected without"),
        ("drop_after_commit", {}, "disconnected without"),
        ("truncate_body", {}, "peer closed connection without sending complete"),
    ],
)
def test_a_connection_is_cut(cloud, type, parameters, says):
    inject(cloud, "api", type, **parameters, match={"methods": ["PUT"]})
    with pytest.raises(httpx2.RemoteProtocolError, match=says):
        cloud.put("web", document([]))
    done = cloud.http.get("/v1/load-balancers/web").status_code
    assert done == (200 if type in ("drop_after_commit", "truncate_body") else 404)


def test_a_stale_read_is_what_was_true_before(cloud):
    cloud.active("web", document([]))
    cloud.active("web", document([], 8081))
    cloud.put("new", document([]))
    inject(cloud, "api", "stale_read", versions=100)
    old = cloud.get("web")
    assert (old["status"]["state"], old["status"]["generation"]) == ("PENDING", 1)
    names = [one["name"] for one in cloud.http.get("/v1/load-balancers").json()["items"]]
    assert "web" in names


def test_a_fault_can_be_about_labels_and_clients(cloud):
    cloud.put("a", document([]))
    cloud.put("b", {**document([]), "labels": {"team": "b"}})
    match = {"label_selector": "team=b", "user_agent": "ccm/*", "resource_name": "*"}
    inject(cloud, "api", "html_502", match=match)
    ccm = {"user-agent": "ccm/1"}
    got = {
        (name, bool(headers)): cloud.http.get(
            f"/v1/load-balancers/{name}", headers=headers
        ).status_code
        for name in ("a", "b")
        for headers in ({}, ccm)
    }
    assert got == {("a", False): 200, ("a", True): 200, ("b", False): 200, ("b", True): 502}


def test_a_fault_disturbs_its_own_project_only(cloud):
    made = cloud.http.post("/v1/projects", json={"id": "other"})
    assert made.status_code in (201, 409), made.text
    inject(cloud, "api", "html_502")
    assert cloud.http.get("/v1/operations").status_code == 502
    other = {"x-project": "other"}
    assert cloud.http.get("/v1/operations", headers=other).status_code == 200


def test_health_and_chaos_itself_are_never_disturbed(cloud):
    inject(cloud, "api", "reset_before")
    for path in ("/healthz", "/readyz", "/metrics", "/v1/chaos/faults", "/v1/chaos/log"):
        assert cloud.http.get(path).status_code == 200, path
    with pytest.raises(httpx2.RemoteProtocolError):
        cloud.http.get("/v1/operations")
    assert b'fakecloud_faults_injected_total{action="reset_before"' in (
        cloud.http.get("/metrics").content
    )
    assert cloud.http.post("/v1/chaos:reset").json()["faults"] == 1
    assert cloud.http.get("/v1/operations").status_code == 200


MUTATIONS = ["PUT new", "PUT update", "POST", "PATCH", "DELETE"]


def mutate(cloud, which: str, headers: dict[str, str]) -> httpx2.Response:
    """Send one mutation of `web`."""
    path = "/v1/load-balancers"
    changed = document([], 8082)
    send = {
        "PUT new": lambda: cloud.put("web", changed, headers=headers),
        "PUT update": lambda: cloud.put("web", changed, headers=headers),
        "POST": lambda: cloud.http.post(path, json={"name": "web", **changed}, headers=headers),
        "PATCH": lambda: cloud.http.patch(
            f"{path}/web",
            content='{"labels": {"team": "z"}}',
            headers={**headers, "content-type": "application/merge-patch+json"},
        ),
        "DELETE": lambda: cloud.http.delete(f"{path}/web", headers=headers),
    }
    answer: httpx2.Response = send[which]()
    return answer


@pytest.mark.parametrize("which", MUTATIONS)
@pytest.mark.parametrize("key", [None, "k-1"])
def test_a_retry_after_a_lost_answer_does_it_exactly_once(new_cloud, which, key):
    """One load balancer, one address, one thing on the bill, whatever was lost."""
    cloud = new_cloud()
    if which not in ("PUT new", "POST"):
        cloud.active("web", document([]))
    headers = {} if key is None else {"idempotency-key": key}
    inject(cloud, "api", "drop_after_commit",
           match={"methods": ["PUT", "POST", "PATCH", "DELETE"]}, max_hits=1)  # fmt: skip
    with pytest.raises(httpx2.RemoteProtocolError):
        mutate(cloud, which, headers)
    again = mutate(cloud, which, headers)
    gone = which == "DELETE"
    assert again.is_success or (gone and again.status_code == 404), again.text
    if key is not None:
        assert again.headers["idempotency-replayed"] == "true"
    path = "/v1/load-balancers"
    if gone:
        eventually(lambda: not cloud.http.get(path).json()["items"])
    else:
        eventually(lambda: cloud.get("web")["status"]["state"] == "ACTIVE")
    expected = 0 if gone else 1
    found = cloud.http.get(path).json()["items"]
    assert len(found) == expected
    types = [one["type"] for one in cloud.http.get("/v1/operations").json()["items"]]
    wanted = {
        "PUT update": ["create", "update"],
        "DELETE": ["create", "delete"],
    }.get(which, ["create"])
    assert types == wanted
    database = cloud.app.state.cloud.database
    with database.read() as connection:
        held = connection.exec_driver_sql(
            "SELECT count(*) FROM address WHERE load_balancer_id IS NOT NULL"
        ).scalar_one()
        billed = billing_events.open(connection)
    assert held == expected
    kinds = [[event.kind.value for event in history] for history in billed.values()]
    change = {"PATCH": ["attributed"]}.get(which, [])
    assert [[one for one in all if one != "changed"] for all in kinds] == (
        [["created", "activated", *change]] if expected else []
    )


@contextmanager
def stream(cloud, **params: Any) -> Iterator[Iterator[dict[str, Any]]]:
    """Give the frames of a watch."""
    with cloud.http.stream("GET", "/v1/watch", params={"heartbeat": "0.2s", **params}) as answer:
        assert answer.status_code == 200
        yield (json.loads(line) for line in answer.iter_lines() if line)


def test_a_watch_is_disconnected_after_so_many_events(cloud):
    cloud.put("a", document([]))
    cloud.put("b", document([]))
    inject(cloud, "watch", "disconnect", after_n=1)
    with stream(cloud, kinds="load_balancer", initial="true") as frames:
        assert next(frames)["object"]["name"] == "a"
        with pytest.raises(httpx2.RemoteProtocolError):
            next(frames)


def test_an_open_watch_meets_a_fault_made_later(cloud):
    with stream(cloud) as frames:
        assert next(frames)["type"] == "BOOKMARK"
        inject(cloud, "watch", "disconnect")
        with pytest.raises(httpx2.RemoteProtocolError):
            list(islice(frames, 20))


def test_a_watch_expires_before_or_inside_the_stream(cloud):
    cloud.put("a", document([]))
    fault = inject(cloud, "watch", "expire")
    answer = cloud.http.get("/v1/watch")
    assert (answer.status_code, answer.json()["code"]) == (410, "watch_expired")
    assert answer.headers["x-fault-injected"] == fault["id"]
    cloud.http.post("/v1/chaos:reset")
    inject(cloud, "watch", "expire", after_n=1)
    with stream(cloud, kinds="load_balancer", initial="true") as frames:
        assert [one["type"] for one in frames] == ["ADDED", "ERROR"]


def test_a_watch_repeats_delays_and_keeps_bookmarks_back(cloud):
    cloud.put("a", document([]))
    eventually(lambda: cloud.get("a")["status"]["state"] == "ACTIVE")
    inject(cloud, "watch", "duplicate")
    with stream(cloud, kinds="load_balancer", initial="true") as frames:
        first, second = next(frames), next(frames)
        assert first == second
        assert first["type"] == "ADDED"
    cloud.http.post("/v1/chaos:reset")
    inject(cloud, "watch", "no_bookmarks")
    with stream(cloud, kinds="load_balancer", initial="true") as frames:
        assert next(frames)["type"] == "ADDED"
        cloud.put("b", document([]))
        assert next(frames)["type"] == "ADDED"
    cloud.http.post("/v1/chaos:reset")
    inject(cloud, "watch", "delay", seconds=0.5)
    started = CLOCK.monotonic()
    with stream(cloud, kinds="load_balancer", initial="true") as frames:
        next(frames)
    assert CLOCK.monotonic() - started >= 0.5


def test_a_watch_falls_silent_and_speaks_again_without_the_fault(cloud):
    fault = inject(cloud, "watch", "silent_stall")
    watching = cloud.http.stream("GET", "/v1/watch", params={"heartbeat": "0.1s"}, timeout=1)
    with watching as answer, pytest.raises(httpx2.ReadTimeout):
        next(line for line in answer.iter_lines() if line)
    assert cloud.http.delete(f"/v1/chaos/faults/{fault['id']}").status_code == 204
    with stream(cloud) as frames:
        assert next(frames)["type"] == "BOOKMARK"


PROVISION = {
    "delay": {"type": "delay", "seconds": 1.5},
    "delay-claim": {"type": "delay", "seconds": 1.5, "phase": "claim"},
    "fail_transient": {"type": "fail_transient", "times": 2},
    "error_then_heal": {"type": "error_then_heal", "seconds": 1.5},
}


@pytest.mark.parametrize("action", PROVISION.values(), ids=PROVISION)
def test_provisioning_is_disturbed_and_heals(cloud, action):
    inject(cloud, "provision", action.pop("type"), **action)
    cloud.put("web", document([]))
    eventually(lambda: "FaultInjected" in conditions(cloud, "web"))
    eventually(lambda: cloud.get("web")["status"]["state"] == "ACTIVE")
    assert conditions(cloud, "web")["FaultInjected"] == "False"
    subject = log(cloud)[0]["subject"]
    assert subject.startswith(cloud.get("web")["status"]["id"] + "/create/g1/")


def conditions(cloud, name: str) -> dict[str, str]:
    return {one["type"]: one["status"] for one in cloud.get(name)["status"]["conditions"]}


def test_stuck_until_removed_and_failed_until_reset(cloud):
    fault = inject(cloud, "provision", "stuck")
    cloud.put("web", document([]))
    eventually(lambda: conditions(cloud, "web").get("FaultInjected") == "True")
    cloud.http.patch(f"/v1/chaos/faults/{fault['id']}", json={"enabled": False})
    eventually(lambda: cloud.get("web")["status"]["state"] == "ACTIVE")
    inject(cloud, "provision", "fail_permanent", code="config_invalid")
    cloud.put("web", document([], 8081))
    eventually(lambda: cloud.get("web")["status"]["state"] == "ERROR")
    assert cloud.get("web")["status"]["last_error"]["code"] == "config_invalid"
    cloud.http.post("/v1/chaos:reset")
    eventually(lambda: cloud.get("web")["status"]["state"] == "ACTIVE")


def test_a_slow_delete(cloud):
    cloud.active("web", document([]))
    inject(cloud, "provision", "slow_delete", seconds=1.0)
    assert cloud.http.delete("/v1/load-balancers/web").status_code == 202
    eventually(lambda: log(cloud))
    assert cloud.get("web")["status"]["state"] == "DELETING"
    eventually(lambda: cloud.http.get("/v1/load-balancers/web").status_code == 404)


@pytest.mark.parametrize(
    ("type", "status", "code"),
    [("pool_exhausted", 507, "no_capacity"), ("quota_zero", 403, "quota_exceeded")],
)
def test_nothing_new_fits_but_what_is_there_stays(cloud, type, status, code):
    cloud.put("old", document([]))
    fault = inject(cloud, "provision", type)
    refused = cloud.put("new", document([]))
    is_problem(refused, status, code)
    assert refused.headers["x-fault-injected"] == fault["id"]
    assert cloud.put("old", document([], 8081)).is_success
    cloud.http.post("/v1/chaos:reset")
    assert cloud.put("new", document([])).status_code == 201


def test_workers_are_disturbed_and_it_ends_well(new_cloud):
    """A crash ends the process and has its own test; here are the others, one by one."""
    cloud = new_cloud(lease_s=1)
    disturbances = [
        {"type": "pause", "seconds": 1.5, "point": "post_apply"},
        {"type": "lease_steal"},
        {"type": "duplicate_run"},
        {"type": "db_error", "kind": "disconnect"},
    ]
    for number, action in enumerate(disturbances):
        inject(cloud, "worker", action.pop("type"), **action, max_hits=1)
        name = f"web-{number}"
        cloud.put(name, document([]))
        eventually(lambda name=name: cloud.get(name)["status"]["state"] == "ACTIVE", 15)
    assert [one["action"] for one in log(cloud)] == [
        "db_error", "duplicate_run", "lease_steal", "pause",
    ]  # fmt: skip
    operations = cloud.http.get("/v1/operations").json()["items"]
    assert {one["status"] for one in operations} == {"SUCCEEDED"}


@pytest.mark.parametrize("point", ["post_apply", "pre_commit"])
def test_a_worker_that_dies_leaves_one_load_balancer(tmp_path, network, point):
    """The process ends without a word; the next one finds everything and makes it whole."""
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed; for these tests: apt-get install haproxy")
    with (
        tempfile.TemporaryDirectory(prefix="fc-") as runtime,
        served(tmp_path, runtime, network) as (process, http),
    ):
        body = {"layer": "worker", "action": {"type": "crash", "point": point}, "max_hits": 1}
        assert http.post("/v1/chaos/faults", json=body).status_code == 201
        assert http.put("/v1/load-balancers/web", json=document([])).status_code == 201
        assert process.wait(30) == 70
        with served(tmp_path, runtime, network) as (_, again):
            path = "/v1/load-balancers/web"
            eventually(lambda: again.get(path).json()["status"]["state"] == "ACTIVE", 20)
            assert [one["action"] for one in again.get("/v1/chaos/log").json()["items"]] == [
                "crash"
            ]
            assert len(list((tmp_path / "lb").glob("lb_*"))) == 1
            assert again.delete(path).status_code == 202
            eventually(lambda: again.get(path).status_code == 404)


@contextmanager
def served(
    directory: Path, runtime: str, network: str
) -> Iterator[tuple[subprocess.Popen[str], httpx2.Client]]:
    """Give a server that is a process of its own, and a client of it."""
    options = ["--listen", "127.0.0.1:0", "--state-dir", str(directory), "--runtime-dir", runtime]
    process = subprocess.Popen(
        [sys.executable, "-m", "fakecloud", "serve", *options,
         "--pool", f"default=loopback:{network}.0.0/16"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        token = (directory / "admin.token").read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        with httpx2.Client(base_url=url, headers=headers, timeout=10) as http:
            yield process, http
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def test_an_annotation_asks_for_a_fault(cloud):
    asked = {"chaos.fakecloud.dev/provision": "fail_transient=1,delay=1s"}
    cloud.put("web", {**document([]), "annotations": asked})
    eventually(lambda: cloud.get("web")["status"]["state"] == "ACTIVE")
    assert sorted(one["action"] for one in log(cloud)) == ["delay", "fail_transient"]
    state = {"chaos.fakecloud.dev/state": "error"}
    assert cloud.put("web", {**document([]), "annotations": state}).status_code == 200
    eventually(lambda: cloud.get("web")["status"]["state"] == "ERROR")
    cloud.put("web", document([]))
    eventually(lambda: cloud.get("web")["status"]["state"] == "ACTIVE")


def test_an_annotation_that_is_not_understood_is_refused(cloud):
    wrong = {"chaos.fakecloud.dev/provision": "delay=tomorrow"}
    answer = cloud.put("web", {**document([]), "annotations": wrong})
    is_problem(answer, 422, "validation_failed")
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/annotations/chaos.fakecloud.dev~1provision"
    assert "delay='tomorrow' is not a time" in error["message"]


def test_expiry_leaves_nothing_behind(cloud):
    inject(cloud, "provision", "stuck", expires_in_s=1)
    inject(cloud, "api", "html_502", expires_in_s=1, match={"methods": ["PATCH"]})
    inject(cloud, "watch", "silent_stall", expires_in_s=1)
    cloud.put("web", document([]))
    eventually(lambda: cloud.get("web")["status"]["state"] == "ACTIVE")
    eventually(lambda: cloud.http.get("/v1/chaos/faults").json()["items"] == [])
    with stream(cloud) as frames:
        assert next(frames)["type"] == "BOOKMARK"
    with cloud.app.state.cloud.database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM fault").scalar_one() == 0


def test_faults_survive_a_restart(new_cloud):
    cloud = new_cloud()
    fault = inject(cloud, "api", "html_502", trigger={"first_n": 2})
    assert cloud.http.get("/v1/operations").status_code == 502
    cloud.stop()
    cloud.start()
    assert cloud.http.get("/v1/operations").status_code == 502
    assert cloud.http.get("/v1/operations").status_code == 200
    counts = cloud.http.get(f"/v1/chaos/faults/{fault['id']}").json()
    assert (counts["looks"], counts["hits"]) == (3, 2)


@pytest.mark.parametrize(
    "name",
    ["aws-like", "octavia-stuck", "hetzner-ratelimited", "flaky-5", "blackout-60s", "slow-ip"],
)
def test_scenarios_are_listed_and_started(cloud, name):
    listed = {one["name"]: one for one in cloud.http.get("/v1/chaos/scenarios").json()["items"]}
    made = cloud.http.post(f"/v1/chaos/scenarios/{name}")
    assert made.status_code == 201
    items = made.json()["items"]
    assert len(items) == listed[name]["faults"]
    assert {one["name"] for one in items} == {name}
    shown = cloud.http.get("/v1/chaos/faults").json()["items"]
    assert sorted(one["id"] for one in shown) == sorted(one["id"] for one in items)


REFUSED = {
    "unknown action": ({"layer": "api", "action": {"type": "explode"}}, "/action/type"),
    "other layer's action": ({"layer": "api", "action": {"type": "stuck"}}, "/action/type"),
    "missing parameter": ({"layer": "api", "action": {"type": "latency"}}, "/action/seconds"),
    "foreign parameter": (
        {"layer": "api", "action": {"type": "hang", "times": 3}},
        "/action/times",
    ),
    "two triggers": (
        {"layer": "api", "action": {"type": "hang"}, "trigger": {"nth": 1, "first_n": 1}},
        "/trigger",
    ),
    "endless": ({"layer": "api", "action": {"type": "hang"}, "expires_in_s": 1e9}, "/expires_in_s"),
    "unknown field": ({"layer": "api", "action": {"type": "hang"}, "color": 1}, "/color"),
}


@pytest.mark.parametrize(("body", "pointer"), REFUSED.values(), ids=REFUSED)
def test_a_fault_that_makes_no_sense_is_refused_by_field(cloud, body, pointer):
    answer = cloud.http.post("/v1/chaos/faults", json=body)
    is_problem(answer, 422, "validation_failed")
    assert pointer in [one["pointer"] for one in answer.json()["errors"]]


def test_faults_need_the_scope_chaos(cloud):
    made = cloud.http.post("/v1/tokens", json={"description": "viewer", "scopes": ["viewer"]})
    secret = next(v for v in made.json().values() if isinstance(v, str) and len(v) == 64)
    headers = {"authorization": f"Bearer {secret}"}
    answer = cloud.http.get("/v1/chaos/faults", headers=headers)
    is_problem(answer, 403, "scope_missing")
    assert cloud.http.get("/v1/chaos/faults/flt_none").json()["code"] == "not_found"
