"""What isn't a whole load balancer: its parts and actions, addresses, instances, administration."""

from __future__ import annotations

import json
import sqlite3
from threading import Event, Thread

import httpx2
import pytest

from tests.flows.conftest import CLOCK, Running, ask, document, eventually

pytestmark = pytest.mark.haproxy

LBS = "/v1/load-balancers"
TARGETS = [{"ip": "127.0.9.1", "port": 9000, "node": "n1"}, {"ip": "127.0.9.2", "port": 9000}]


def refused(answer: httpx2.Response, status: int, code: str) -> str:
    """Check that an answer is this problem; return its detail."""
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    detail: str = answer.json()["detail"]
    return detail


@pytest.fixture
def emptied(cloud) -> Running:
    """The cloud; afterwards every promise holds and the project is empty."""
    yield cloud
    assert cloud.http.post("/v1/admin:reset").status_code == 202
    eventually(lambda: not cloud.http.get(LBS).json()["items"])
    assert cloud.http.post("/v1/admin:check").json()["violations"] == []


def test_post_creates_once_by_name(emptied):
    body = document(TARGETS) | {"name": "web"}
    first = emptied.http.post(LBS, json=body)
    assert (first.status_code, first.headers["location"]) == (201, f"{LBS}/web")
    assert first.headers["operation-location"].startswith("/v1/operations/op_")
    assert emptied.http.post(LBS, json=body).status_code == 200
    other = emptied.http.post(LBS, json=document(TARGETS, 8099) | {"name": "web"})
    refused(other, 409, "name_in_use")


def test_post_without_a_name_gets_one(emptied):
    made = [emptied.http.post(LBS, json=document(TARGETS, port)) for port in (8081, 8082)]
    names = {one.json()["name"] for one in made}
    assert len(names) == 2
    batch = emptied.http.post(f"{LBS}:batchGet", json={"names": [*sorted(names), "none"]}).json()
    assert ([one["name"] for one in batch["items"]], batch["missing"]) == (sorted(names), ["none"])


def test_put_targets_leaves_the_rest(emptied, targets):
    before = emptied.active("web", document(targets[:1]))
    answer = emptied.http.put(
        f"{LBS}/web/targets", json={"target_groups": [{"name": "web", "targets": targets[1:]}]}
    )
    assert answer.status_code == 202
    after = answer.json()
    assert after["status"]["generation"] == before["status"]["generation"] + 1
    before["spec"]["target_groups"][0]["targets"] = after["spec"]["target_groups"][0]["targets"]
    assert after["spec"] == before["spec"]
    ip = after["status"]["addresses"][0]["ip"]
    eventually(lambda: ask(ip) == str(targets[1]["port"]))
    wrong = {"target_groups": [{"name": "other", "targets": []}]}
    refused(emptied.http.put(f"{LBS}/web/targets", json=wrong), 422, "validation_failed")
    stale = emptied.http.put(
        f"{LBS}/web/targets",
        json={"target_groups": [{"name": "web", "targets": []}]},
        headers={"if-match": '"1.1"'},
    )
    refused(stale, 412, "precondition_failed")


def test_drain_of_a_node_of_a_target_and_of_all(emptied):
    emptied.active("web", document(TARGETS))

    def drained(body) -> list[bool]:
        kwargs = {} if body is None else {"json": body}
        answer = emptied.http.post(f"{LBS}/web:drain", **kwargs)
        assert answer.status_code in (200, 202), answer.text
        return [t["drain"] for t in answer.json()["spec"]["target_groups"][0]["targets"]]

    refused(emptied.http.post(f"{LBS}/web:drain", json={"node": "n9"}), 422, "validation_failed")
    assert drained({"node": "n1"}) == [True, False]
    assert drained({"targets": [{"ip": "127.0.9.2"}]}) == [True, True]
    assert drained(None) == [True, True]


@pytest.mark.parametrize(
    ("action", "type"), [("repair", "repair"), ("failover", "system.failover")]
)
def test_an_active_one_is_put_into_effect_again(emptied, targets, action, type):
    before = emptied.active("web", document(targets[:1]))
    answer = emptied.http.post(f"{LBS}/web:{action}")
    assert (answer.status_code, answer.json()["status"]["state"]) == (202, "UPDATING")
    id = answer.headers["operation-location"].rpartition("/")[2]
    ended = emptied.http.get(f"/v1/operations/{id}", params={"wait": "20s"}).json()
    assert (ended["type"], ended["status"]) == (type, "SUCCEEDED")
    after = emptied.get("web")
    assert after["status"]["generation"] == before["status"]["generation"]
    assert ask(after["status"]["addresses"][0]["ip"]) == str(targets[0]["port"])
    refused(emptied.http.post(f"{LBS}/none:{action}"), 404, "not_found")


def test_a_look_inside(emptied, targets):
    lb = emptied.active("web", document(targets[:1]))
    for _ in range(3):
        ask(lb["status"]["addresses"][0]["ip"])
    tree = emptied.http.get(f"{LBS}/web/status").json()
    (target,) = tree["listeners"][0]["target_group"]["targets"]
    assert (target["ip"], target["health"]) == (targets[0]["ip"], "healthy")
    config = emptied.http.get(f"{LBS}/web/config")
    assert config.headers["content-type"].startswith("text/plain")
    assert "default_backend" in config.text
    assert "stats socket <redacted>" in config.text
    assert emptied.http.get(f"{LBS}/web/logs", params={"lines": 5}).json()["name"] == "web"
    stats = emptied.http.get(f"{LBS}/web/stats").json()
    counted = {(one["kind"], one["name"]): one for one in stats["counters"]}
    assert stats["running"]
    assert counted["listener", "web"]["connections_total"] == 3
    assert counted["target_group", "web"]["bytes_out"] > 0
    name = f"{targets[0]['ip']} port {targets[0]['port']}"
    assert counted["target", name]["connections_total"] == 3


def test_what_does_not_run_has_no_configuration(emptied):
    emptied.active("web", document(TARGETS, admin_up=False))
    refused(emptied.http.get(f"{LBS}/web/config"), 404, "not_found")
    assert not emptied.http.get(f"{LBS}/web/stats").json()["running"]


def test_a_reserved_address_goes_from_one_to_the_next(emptied):
    made = emptied.http.post("/v1/addresses", json={"name": "site", "labels": {"a": "b"}})
    assert (made.status_code, made.json()["state"]) == (201, "RESERVED")
    ip = made.json()["ip"]
    again = emptied.http.post("/v1/addresses", json={"name": "site", "labels": {"a": "b"}})
    assert again.json()["ip"] == ip
    refused(emptied.http.post("/v1/addresses", json={"name": "site"}), 409, "name_in_use")

    first = emptied.active("one", document(TARGETS, addresses=[{"ip": ip}]))
    assert first["status"]["addresses"][0]["ip"] == ip
    assert emptied.http.get(f"/v1/addresses/{ip}").json()["load_balancer"] == "one"
    refused(emptied.http.delete("/v1/addresses/site"), 409, "in_use")

    emptied.remove("one")
    assert emptied.http.get("/v1/addresses/site").json()["state"] == "RESERVED"
    # No quarantine for its owner: that is what it was reserved for.
    assert emptied.active("two", document(TARGETS))["status"]["addresses"][0]["ip"] != ip
    assigned = emptied.http.post("/v1/addresses/site:assign", json={"load_balancer": "two"})
    assert assigned.status_code == 202
    assert [a["ip"] for a in assigned.json()["status"]["addresses"]] == [ip]
    released = emptied.http.post("/v1/addresses/site:release")
    assert released.json()["status"]["addresses"][0]["ip"] != ip
    refused(emptied.http.post("/v1/addresses/site:release"), 409, "in_use")
    assert emptied.http.delete("/v1/addresses/site").status_code == 204
    taken = {"name": "new", "ip": ip}
    assert "resting" in refused(
        emptied.http.post("/v1/addresses", json=taken), 409, "address_in_use"
    )


def test_a_reserved_address_is_for_its_project_only(emptied):
    ip = emptied.http.post("/v1/addresses", json={"name": "mine"}).json()["ip"]
    made = emptied.http.post("/v1/projects", json={"id": "other", "description": "x"})
    assert made.status_code in (200, 201, 409), made.text
    there = {"x-project": "other"}
    stolen = emptied.put("theft", document(TARGETS, addresses=[{"ip": ip}]), headers=there)
    refused(stolen, 409, "address_in_use")
    assert emptied.http.get("/v1/addresses/mine", headers=there).status_code == 404
    assert emptied.http.get("/v1/addresses", headers=there).json()["items"] == []


def test_pools_say_how_full_they_are(emptied, network):
    def pool() -> dict[str, object]:
        items = emptied.http.get("/v1/ip-pools").json()["items"]
        return next(one for one in items if one["name"] == "tiny")

    before = pool()
    assert (before["capacity"], before["cidr"]) == (2, f"{network}.9.0/30")
    emptied.http.post("/v1/addresses", json={"name": "kept", "pool": "tiny"})
    emptied.active("web", document(TARGETS, addresses=[{"pool": "tiny"}]))
    now = pool()
    assert (now["reserved"], now["used"]) == (1, 1)
    full = emptied.http.post("/v1/addresses", json={"name": "more", "pool": "tiny"})
    refused(full, 507, "no_capacity")


def test_instances_are_made_changed_watched_and_listed(emptied):
    frames: list[dict[str, object]] = []
    params = {"kinds": "instance", "initial": "true", "heartbeat": "0.2s"}
    done = Event()

    def watch() -> None:
        with emptied.http.stream("GET", "/v1/watch", params=params) as stream:
            for line in stream.iter_lines():
                if line:
                    frames.append(json.loads(line))
                if done.is_set():
                    return

    watching = Thread(target=watch)
    watching.start()
    eventually(lambda: frames)
    wish = {"zone": "local-1b", "addresses": [{"type": "InternalIP", "address": "127.0.3.1"}]}
    made = emptied.http.post("/v1/instances", json={"name": "n1", "labels": {"a": "b"}, **wish})
    assert made.status_code == 201
    id = made.json()["id"]
    assert made.json()["provider_id"] == f"fakecloud://local-1/{id}"
    off = emptied.http.put("/v1/instances/n1", json={**wish, "power_state": "stopped"})
    assert (off.status_code, off.json()["id"]) == (200, id)
    stopped = emptied.http.get("/v1/instances", params={"filter": "power_state=stopped"}).json()
    assert [one["name"] for one in stopped["items"]] == ["n1"]
    refused(emptied.http.post("/v1/instances", json={"name": "n1"}), 409, "name_in_use")
    assert emptied.http.delete(f"/v1/instances/{id}").status_code == 204
    refused(emptied.http.get("/v1/instances/n1"), 404, "not_found")
    changes = eventually(lambda: [f for f in frames if f["type"] != "BOOKMARK"][2:] and frames)
    done.set()
    watching.join(10)
    seen = [(f["type"], f["object"]["power_state"]) for f in changes if f["type"] != "BOOKMARK"]
    assert seen == [("ADDED", "running"), ("MODIFIED", "stopped"), ("DELETED", "stopped")]


def test_networks_and_routes_are_made_changed_listed_and_deleted(emptied):
    http = emptied.http
    made = http.put("/v1/networks/pods", json={"ranges": ["10.244.0.0/16", "fd00:10:244::/56"]})
    assert (made.status_code, made.headers["location"]) == (201, "/v1/networks/pods")
    same = http.put("/v1/networks/pods", json={"ranges": made.json()["ranges"]})
    assert (same.status_code, same.json()) == (200, made.json())

    wish = {"network": "pods", "destination": "10.244.1.0/24", "next_hop": "127.0.3.1"}
    route = http.put("/v1/routes/n1", json={**wish, "labels": {"node": "n1"}})
    assert route.status_code == 201
    active = eventually(
        lambda: (found := http.get("/v1/routes/n1").json())["state"] == "ACTIVE" and found
    )
    assert (active["id"], active["last_error"]) == (route.json()["id"], None)
    listed = http.get("/v1/routes", params={"filter": "next_hop=127.0.3.1"}).json()
    assert [one["name"] for one in listed["items"]] == ["n1"]
    assert http.get("/v1/networks", params={"fields": "name"}).json()["items"]

    refused(http.put("/v1/networks/other", json={"ranges": ["10.0.0.0/8"]}), 409, "range_in_use")
    refused(http.put("/v1/routes/n2", json=wish), 409, "range_in_use")
    refused(http.delete("/v1/networks/pods"), 409, "in_use")
    for body, field in (
        ({**wish, "network": "none"}, "/network"),
        ({**wish, "destination": "10.245.0.0/24"}, "/destination"),
        ({**wish, "destination": "0.0.0.0/0"}, "/destination"),
    ):
        answer = http.put("/v1/routes/n3", json=body)
        refused(answer, 422, "validation_failed")
        assert answer.json()["errors"][0]["pointer"] == field
    refused(
        http.put("/v1/routes/n3", json={**wish, "next_hop": "fd00::1"}), 422, "validation_failed"
    )
    assert http.delete(f"/v1/routes/{active['id']}").status_code == 204
    assert http.delete("/v1/networks/pods").status_code == 204
    refused(http.get("/v1/routes/n1"), 404, "not_found")
    kinds = {line["path"] for line in http.get("/v1/audit").json()["items"]}
    assert {"/v1/routes/n1", "/v1/networks/pods"} <= kinds


def test_a_watch_tells_of_routes(emptied):
    emptied.http.put("/v1/networks/pods", json={"ranges": ["10.244.0.0/16"]})
    wish = {"network": "pods", "destination": "10.244.1.0/24", "next_hop": "127.0.3.1"}
    emptied.http.put("/v1/routes/n1", json=wish)
    params = {"kinds": "network,route", "initial": "true", "heartbeat": "0.2s"}
    seen = []
    with emptied.http.stream("GET", "/v1/watch", params=params) as stream:
        for line in stream.iter_lines():
            frame = json.loads(line)
            seen.append((frame.get("kind"), frame["type"]))
            if frame["type"] == "BOOKMARK" and len(seen) > 2:
                break
    assert {("network", "ADDED"), ("route", "ADDED")} <= set(seen)


def test_a_watch_by_labels_sees_objects_come_and_go(emptied):
    emptied.active("web", document(TARGETS) | {"labels": {"team": "a"}})
    emptied.active("api", document(TARGETS, 8090) | {"labels": {"team": "b"}})
    params = {
        "kinds": "load_balancer", "initial": "true", "heartbeat": "0.2s",
        "label_selector": "team=a", "fields": "labels",
    }  # fmt: skip
    seen: list[tuple[str, str, str]] = []

    def watch() -> None:
        with emptied.http.stream("GET", "/v1/watch", params=params) as stream:
            for line in filter(None, stream.iter_lines()):
                frame = json.loads(line)
                if frame["type"] == "BOOKMARK":
                    seen.append(("BOOKMARK", "", ""))
                    continue
                assert set(frame["object"]) == {"name", "labels"}
                seen.append(
                    (frame["type"], frame["object"]["name"], frame["object"]["labels"]["team"])
                )
                if frame["type"] == "DELETED" and frame["object"]["name"] == "api":
                    return

    watching = Thread(target=watch)
    watching.start()
    eventually(lambda: ("BOOKMARK", "", "") in seen)
    for name, port, team in (("web", 8080, "c"), ("api", 8090, "a"), ("api", 8090, "b")):
        emptied.put(name, document(TARGETS, port) | {"labels": {"team": team}})
    watching.join(10)
    assert [one for one in seen if one[0] != "BOOKMARK"] == [
        ("ADDED", "web", "a"), ("DELETED", "web", "c"), ("ADDED", "api", "a"),
        ("DELETED", "api", "b"),
    ]  # fmt: skip


def test_catalogues(cloud):
    types = cloud.http.get("/v1/types").json()["items"]
    assert [(one["name"], one["max_targets"]) for one in types] == [
        ("lb-s", 25), ("lb-m", 75), ("lb-l", 150),
    ]  # fmt: skip
    assert cloud.http.get("/v1/regions").json()["items"][0]["name"] == "local-1"


def test_limits_of_types_hold_outside_profile_dev(new_cloud):
    strict = new_cloud("strict", profile="instant")
    many = [{"ip": f"127.0.9.{n}", "port": 9000} for n in range(1, 27)]
    detail = refused(strict.put("web", document(many)), 422, "limit_exceeded")
    assert "max_targets of type lb-s, which is 25" in detail
    assert strict.put("web", document(many, type="lb-m")).status_code == 201


def test_reset_takes_protected_ones_too(cloud):
    cloud.put("web", document(TARGETS, deletion_protection=True))
    ip = cloud.http.post("/v1/addresses", json={"name": "kept"}).json()["ip"]
    cloud.put("api", document(TARGETS, 8090, addresses=[{"ip": ip}]))
    cloud.http.post("/v1/instances", json={"name": "n1"})
    cloud.http.put("/v1/networks/pods", json={"ranges": ["10.244.0.0/16"]})
    wish = {"network": "pods", "destination": "10.244.1.0/24", "next_hop": "127.0.3.1"}
    cloud.http.put("/v1/routes/n1", json=wish)
    answer = cloud.http.post("/v1/admin:reset")
    assert answer.status_code == 202
    told = answer.json()
    assert (told["load_balancers"], told["addresses"], told["instances"]) == (2, 1, 1)
    for id in told["operations"]:
        ended = cloud.http.get(f"/v1/operations/{id}", params={"wait": "20s"}).json()
        assert ended["status"] == "SUCCEEDED"
    assert (told["networks"], told["routes"]) == (1, 1)
    for path in ("load-balancers", "addresses", "instances", "networks", "routes"):
        assert cloud.http.get(f"/v1/{path}").json()["items"] == []
    assert cloud.http.post("/v1/admin:check").json()["ok"]


def test_an_export_has_everything(emptied):
    emptied.active("web", document(TARGETS))
    emptied.http.post("/v1/addresses", json={"name": "kept"})
    answer = emptied.http.post("/v1/admin:export")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert {line["kind"] for line in lines} == {"load_balancer", "operation", "address"}
    (lb,) = [line["object"] for line in lines if line["kind"] == "load_balancer"]
    assert lb == emptied.get("web")


def test_a_snapshot_is_the_database_as_it_was(emptied):
    emptied.active("web", document(TARGETS))
    made = emptied.http.post("/v1/snapshots")
    assert made.status_code == 201
    snapshot = made.json()
    with sqlite3.connect(snapshot["file"]) as copy:
        assert copy.execute(
            "SELECT name FROM load_balancer WHERE deleted_at IS NULL"
        ).fetchall() == [("web",)]
    copy.close()
    listed = emptied.http.get("/v1/snapshots").json()["items"]
    assert snapshot["id"] in [one["id"] for one in listed]
    path = f"/v1/snapshots/{snapshot['id']}"
    assert "stop it" in refused(emptied.http.post(f"{path}:restore"), 422, "unsupported")
    assert emptied.http.delete(path).status_code == 204
    refused(emptied.http.get(path), 404, "not_found")


def test_a_work_that_no_worker_is_at_can_be_stopped(new_cloud):
    slow = new_cloud("slow", profile="aws-nlb")
    slow.put("web", document(TARGETS))
    id = slow.get("web")["status"]["operation"]
    running = slow.http.get(f"/v1/operations/{id}")
    assert 1 <= int(running.headers["retry-after"]) <= 15
    cancelled = eventually(
        lambda: (answer := slow.http.post(f"/v1/operations/{id}:cancel")).is_success and answer
    )
    assert cancelled.json()["status"] == "CANCELLED"
    status = slow.get("web")["status"]
    assert (status["state"], status["last_error"]["code"]) == ("ERROR", "cancelled")
    assert slow.http.post("/v1/admin:check").json()["violations"] == []
    CLOCK.wait(Event(), 0.3)
    assert slow.get("web")["status"]["state"] == "ERROR"
    assert slow.http.post(f"{LBS}/web:repair").status_code == 202
