"""Faults of lists, headers, tokens and streams as a client meets them; the catalogue of actions."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from typer.testing import CliRunner

from fakecloud import __main__ as program
from tests.flows.conftest import ask, document, eventually
from tests.flows.test_faults import conditions, inject, is_problem, log, stream

pytestmark = pytest.mark.haproxy


@pytest.fixture(autouse=True)
def _no_fault_left(cloud) -> Iterator[None]:
    yield
    assert cloud.http.post("/v1/chaos:reset").status_code == 200


def paged(cloud, size: int) -> list[list[str]]:
    """Return the names on every page of the list of load balancers."""
    pages: list[list[str]] = []
    token = None
    while True:
        params = {"page_size": size} | ({"page_token": token} if token else {})
        answer = cloud.http.get("/v1/load-balancers", params=params)
        assert answer.status_code == 200, answer.text
        pages.append([one["name"] for one in answer.json()["items"]])
        token = answer.json()["next_page_token"]
        if token is None:
            return pages
        assert len(pages) < 20, "the pages have no end"


@pytest.fixture
def letters(cloud) -> None:
    for name in "abcdef":
        assert cloud.put(name, document([])).status_code == 201


def test_pages_overlap(cloud, letters):
    assert paged(cloud, 2) == [["a", "b"], ["c", "d"], ["e", "f"]]
    inject(cloud, "api", "dup_page", trigger={"nth": 1})
    assert paged(cloud, 2) == [["a", "b"], ["b", "c"], ["d", "e"], ["f"]]
    cloud.http.post("/v1/chaos:reset")
    inject(cloud, "api", "dup_page")
    assert paged(cloud, 4) == [["a", "b", "c", "d"], ["c", "d", "e", "f"]]
    assert paged(cloud, 1) == [[one] for one in "abcdef"], "one item can't be half a page"


def test_pages_leave_a_gap(cloud, letters):
    inject(cloud, "api", "skip_page", trigger={"nth": 1})
    assert paged(cloud, 2) == [["a", "b"], ["e", "f"]]
    cloud.http.post("/v1/chaos:reset")
    inject(cloud, "api", "skip_page")
    assert paged(cloud, 1) == [["a"], ["c"], ["e"]]
    assert [one["action"] for one in log(cloud)] == ["skip_page"] * 3


def test_the_clock_in_the_headers_is_wrong(cloud):
    def ahead() -> timedelta:
        before = datetime.fromisoformat(cloud.http.get("/v1/clock").json()["now"])
        told = cloud.http.get("/v1/operations").headers["fakecloud-time"]
        return datetime.fromisoformat(told) - before

    for skew_s in (300, -300):
        fault = inject(cloud, "api", "clock_skew_header", skew_s=skew_s,
                       match={"route": "/v1/operations"})  # fmt: skip
        assert abs(ahead() - timedelta(seconds=skew_s)) < timedelta(seconds=5)
        assert cloud.http.delete(f"/v1/chaos/faults/{fault['id']}").status_code == 204
    assert abs(ahead()) < timedelta(seconds=5)


def test_a_good_token_is_refused_now_and_then(cloud):
    fault = inject(cloud, "api", "auth_flap", times=2)
    answers = [cloud.http.get("/v1/operations") for _ in range(6)]
    assert [one.status_code for one in answers] == [401, 401, 200, 200, 401, 401]
    is_problem(answers[0], 401, "unauthenticated")
    assert answers[0].headers["www-authenticate"] == "Bearer"
    assert answers[0].headers["x-fault-injected"] == fault["id"]
    cloud.http.post("/v1/chaos:reset")
    inject(cloud, "api", "auth_flap", problem="token_expired", trigger={"first_n": 1})
    is_problem(cloud.http.get("/v1/operations"), 401, "token_expired")
    assert cloud.http.get("/v1/operations").status_code == 200


@pytest.mark.parametrize(
    ("layer", "action", "path"),
    [
        ("api", {"type": "html_502"}, "/v1/operations"),
        ("api", {"type": "status", "code": 503}, "/v1/operations"),
        ("api", {"type": "rate_limit"}, "/v1/operations"),
        ("api", {"type": "stale_read"}, "/v1/load-balancers"),
        ("api", {"type": "auth_flap"}, "/v1/watch"),
        ("watch", {"type": "expire"}, "/v1/watch"),
    ],
)
def test_an_answer_that_a_fault_gives_has_the_headers_of_every_answer(cloud, layer, action, path):
    fault = inject(cloud, layer, action.pop("type"), **action)
    answer = cloud.http.get(path, headers={"x-request-id": "mine-1"})
    assert answer.headers["x-fault-injected"] == fault["id"]
    assert answer.headers["x-request-id"] == "mine-1"
    for name in ("fakecloud-time", "fakecloud-version", "x-request-id"):
        assert len(answer.headers.get_list(name)) == 1, name


def names(frames, count: int) -> list[tuple[str, str]]:
    """Return (name, state) of so many events about load balancers."""
    found: list[tuple[str, str]] = []
    for frame in frames:
        if frame["type"] in ("ADDED", "MODIFIED", "DELETED"):
            found.append((frame["object"]["name"], frame["object"]["status"]["state"]))
        if len(found) == count:
            break
    return found


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream"])
def test_events_of_different_objects_change_places(cloud, accept):
    for name in "abcdef":
        cloud.active(name, document([], port=8080))
    inject(cloud, "watch", "reorder_across_objects")
    params = {"kinds": "load_balancer", "initial": "true", "heartbeat": "0.2s"}
    with cloud.http.stream("GET", "/v1/watch", params=params, headers={"accept": accept}) as answer:
        lines = (
            line.removeprefix("data: ")
            for line in answer.iter_lines()
            if line.startswith(("{", "data: "))
        )
        met = []
        for line in lines:
            frame = json.loads(line)
            if frame["type"] == "BOOKMARK":
                break
            met.append(frame["object"]["name"])
    assert sorted(met) == list("abcdef")
    assert met != list("abcdef")


def test_events_of_one_object_keep_their_order_and_none_is_lost(cloud):
    inject(cloud, "watch", "reorder_across_objects")
    with stream(cloud, kinds="load_balancer") as frames:
        next(frames)
        for name in "ab":
            cloud.active(name, document([]))
        found = names(frames, 6)
    for name in "ab":
        states = [state for of, state in found if of == name]
        assert states == ["PENDING", "PROVISIONING", "ACTIVE"], found


def test_partial_serves_some_listeners_and_heals(cloud, targets):
    wanted = document(targets)
    wanted["spec"]["listeners"].append(
        {"name": "admin", "protocol": "tcp", "port": 8081, "target_group": "web"}
    )
    fault = inject(cloud, "provision", "partial", listeners=["web"])
    ip = cloud.active("web", wanted)["status"]["addresses"][0]["ip"]
    assert conditions(cloud, "web")["FaultInjected"] == "True"
    eventually(lambda: ask(ip, 8081))
    with pytest.raises(Exception, match="refused"):
        ask(ip, 8080)
    assert cloud.http.delete(f"/v1/chaos/faults/{fault['id']}").status_code == 204
    eventually(lambda: conditions(cloud, "web")["FaultInjected"] == "False")
    eventually(lambda: cloud.get("web")["status"]["state"] == "ACTIVE")
    assert ask(ip, 8080)


def test_a_state_flaps_and_the_watch_tells(cloud):
    cloud.active("web", document([]))
    with stream(cloud, kinds="load_balancer") as frames:
        next(frames)
        inject(cloud, "provision", "flap_state", seconds=0.2, max_hits=1)
        found = names(frames, 3)
    assert [state for _, state in found] == ["UPDATING", "UPDATING", "ACTIVE"]


@pytest.mark.parametrize("leaks", ["process", "ip"])
def test_what_a_deletion_leaves_is_swept(new_cloud, leaks):
    cloud = new_cloud(heartbeat_s=1)
    cloud.active("web", document([]))
    used = cloud.http.get("/v1/ip-pools").json()["items"]
    inject(cloud, "provision", "delete_leaks", leaks=leaks)
    cloud.remove("web")
    assert [one["action"] for one in log(cloud)] == ["delete_leaks"]
    eventually(lambda: cloud.http.post("/v1/admin:check").json()["violations"] == [])
    eventually(
        lambda: sum(one["used"] for one in cloud.http.get("/v1/ip-pools").json()["items"]) == 0
    )
    assert sum(one["used"] for one in used) == 1
    assert not cloud.app.state.cloud.inspector.running()


def test_every_action_has_an_example_that_works(cloud, monkeypatch):
    monkeypatch.setenv("FAKECLOUD_URL", cloud.url)
    monkeypatch.setenv("FAKECLOUD_TOKEN", cloud.token)

    def run(*words: str) -> list[dict[str, object]]:
        result = CliRunner().invoke(program.whole(), [*words, "-o", "json"])
        assert result.exit_code == 0, (words, result.output)
        found: list[dict[str, object]] = json.loads(result.stdout)
        return found

    kinds = run("fault", "actions")
    for kind in kinds:
        words = shlex.split(str(kind["example"]))[1:]
        tried = CliRunner().invoke(program.whole(), words)
        cloud.http.post("/v1/chaos:reset")
        if tried.exit_code == 1 and "bandwidth needs HAProxy 2.7" in tried.output:
            continue  # what this machine's can't do is said
        (made,) = run(*words)
        assert made["action"]["type"] == kind["type"]
        assert made["layer"] == kind["layer"]
        cloud.http.post("/v1/chaos:reset")
    assert {one["layer"] for one in kinds} == {
        *("api", "watch", "provision", "worker", "dataplane")
    }
    assert all(one["layer"] == "watch" for one in run("fault", "actions", "watch"))
    plain = CliRunner().invoke(program.whole(), ["fault", "actions", "api", "-o", "csv"])
    assert "api,rate_limit,[retry_after_s],the request is refused with 429" in plain.stdout
