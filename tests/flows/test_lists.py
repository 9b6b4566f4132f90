"""Lists, views and long polls of the API, on a real server."""

from __future__ import annotations

from threading import Thread

import pytest

from tests.flows.conftest import Running, document, eventually

pytestmark = pytest.mark.haproxy

TARGETS = [{"ip": "127.0.9.1", "port": 9000}]
LBS = "/v1/load-balancers"


@pytest.fixture
def three(cloud) -> Running:
    """A cloud with load balancers b, a and c, of teams x, y and y."""
    for port, (name, team) in enumerate([("b", "x"), ("a", "y"), ("c", "y")], 8081):
        made = document(TARGETS, port) | {"labels": {"team": team, "app": name}}
        assert cloud.put(name, made, params={"wait": "20s"}).status_code == 200
    return cloud


def names(cloud: Running, **params) -> list[str]:
    """Return the names of a list, page by page."""
    found, token = [], None
    while True:
        more = {"page_token": token} if token else {}
        answer = cloud.http.get(LBS, params={**params, **more})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += [one["name"] for one in page["items"]]
        token = page["next_page_token"]
        if token is None:
            return found


@pytest.mark.parametrize("page_size", [1, 2, 100])
@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, ["b", "a", "c"]),
        ({"order_by": "name"}, ["a", "b", "c"]),
        ({"order_by": "name desc"}, ["c", "b", "a"]),
        ({"order_by": "created_at desc"}, ["c", "a", "b"]),
        ({"order_by": "updated_at"}, ["b", "a", "c"]),
        ({"filter": 'name="a"'}, ["a"]),
        ({"filter": 'state="ACTIVE" AND labels.team!="x"'}, ["a", "c"]),
        ({"filter": 'labels.team="y"', "order_by": "name desc"}, ["c", "a"]),
        ({"filter": 'state="DELETING"'}, []),
        ({"label_selector": "team=y,app in (a, b)"}, ["a"]),
        ({"label_selector": "team!=y"}, ["b"]),
        ({"label_selector": "!team"}, []),
        ({"label_selector": "team", "filter": "spec.type=lb-s"}, ["b", "a", "c"]),
    ],
)
def test_a_list_has_what_was_asked_in_that_order(three, params, expected, page_size):
    assert names(three, page_size=page_size, **params) == expected


def test_fields_give_only_those(three):
    answer = three.http.get(LBS, params={"fields": "name,status.state", "order_by": "name"})
    assert answer.json()["items"][0] == {"name": "a", "status": {"state": "ACTIVE"}}
    chosen = {"fields": "spec.listeners.port,status.targets.health", "filter": "name=a"}
    (one,) = three.http.get(LBS, params=chosen).json()["items"]
    assert one["spec"] == {"listeners": [{"port": 8082}]}
    assert set(one["status"]["targets"][0]) == {"health"}
    single = three.http.get(f"{LBS}/a", params={"fields": "labels.team"})
    assert single.json() == {"labels": {"team": "y"}}
    assert single.headers["etag"]


def test_parts_equal_those_of_the_whole(three):
    whole = three.http.get(LBS).json()["items"]
    basic = three.http.get(LBS, params={"view": "basic"}).json()["items"]
    for one, part in zip(whole, basic, strict=True):
        assert part == {
            "name": one["name"],
            "labels": one["labels"],
            "status": {name: one["status"][name] for name in part["status"]},
        }
        assert {"id", "state", "addresses", "resource_version"} <= set(part["status"])


def test_a_page_token_is_for_its_own_list(three):
    token = three.http.get(LBS, params={"page_size": 1}).json()["next_page_token"]
    for other in ({"filter": "name=a"}, {"order_by": "name"}, {"label_selector": "team"}):
        answer = three.http.get(LBS, params={"page_token": token, **other})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_page_token")
    answer = three.http.get("/v1/operations", params={"page_token": token})
    assert answer.json()["code"] == "invalid_page_token"


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"filter": "colour=red"}, "invalid_filter"),
        ({"label_selector": "a=b,"}, "invalid_filter"),
        ({"order_by": "size"}, "invalid_parameter"),
        ({"fields": "money"}, "invalid_parameter"),
        ({"view": "some"}, "invalid_parameter"),
    ],
)
def test_what_cant_be_understood_is_refused(cloud, params, code):
    answer = cloud.http.get(LBS, params=params)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_what_has_no_labels_has_none_of_those_that_are_asked_for(three):
    answers = [
        three.http.get("/v1/operations", params={"label_selector": selector}).json()["items"]
        for selector in ("tier=web", "tier in (web)", "tier", "!tier")
    ]
    assert [bool(items) for items in answers] == [False, False, False, True]


def test_min_rv_of_another_history_is_refused_after_two_seconds(three):
    version = three.http.get(LBS).json()["resource_version"]
    assert three.http.get(LBS, params={"min_rv": version}).status_code == 200
    answer = three.http.get(f"{LBS}/a", params={"min_rv": 10**15})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")


def test_a_get_waits_for_a_state(cloud):
    cloud.put("web", document(TARGETS))
    found = cloud.http.get(f"{LBS}/web", params={"wait_for": "state:ACTIVE,ERROR", "wait": "20s"})
    assert found.json()["status"]["state"] == "ACTIVE"
    answer = cloud.http.get(f"{LBS}/web", params={"wait_for": "health:good"})
    assert answer.json()["code"] == "invalid_parameter"


def test_a_get_waits_for_the_next_change_and_no_longer(cloud):
    before = cloud.active("web", document(TARGETS))["status"]["resource_version"]
    same = cloud.http.get(f"{LBS}/web", params={"rv_gt": before, "wait": "0.2s"}).json()
    newest = same["status"]["resource_version"]
    answers = []
    params = {"rv_gt": newest, "wait": "20s"}
    asking = Thread(target=lambda: answers.append(cloud.http.get(f"{LBS}/web", params=params)))
    asking.start()
    eventually(lambda: cloud.app.state.cloud.hub._waiting)
    cloud.put("web", document(TARGETS) | {"labels": {"team": "b"}})
    asking.join(10)
    assert int(answers[0].json()["status"]["resource_version"]) > int(newest)


def test_operations_are_filtered_waited_for_and_read_together(cloud):
    put = cloud.put("web", document(TARGETS))
    id = put.json()["status"]["operation"]
    ended = cloud.http.get(f"/v1/operations/{id}", params={"wait": "20s"})
    assert (ended.json()["status"], ended.headers.get("retry-after")) == ("SUCCEEDED", None)
    params = {"filter": "target=web AND type=create AND status=SUCCEEDED", "fields": "id,status"}
    latest = cloud.http.get("/v1/operations", params=params).json()["items"][-1]
    assert latest == {"id": id, "status": "SUCCEEDED"}
    batch = cloud.http.post("/v1/operations:batchGet", json={"ids": [id, "op_none", id]}).json()
    assert ([one["id"] for one in batch["items"]], batch["missing"]) == ([id], ["op_none"])
    many = cloud.http.post("/v1/operations:batchGet", json={"ids": ["x"] * 501})
    assert many.json()["code"] == "validation_failed"
    refused = cloud.http.post(f"/v1/operations/{id}:cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_cancellable")
