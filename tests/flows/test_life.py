"""A load balancer from PUT to DELETE, with traffic, restarts and the bill's ground."""

from __future__ import annotations

import copy
import os
import signal
from pathlib import Path
from threading import Event, Thread

import httpx2
import pytest

from tests.flows.conftest import ask, document, eventually

pytestmark = pytest.mark.haproxy


def address(found) -> str:
    return found["status"]["addresses"][0]["ip"]


def pids(cloud) -> set[int]:
    """Return the processes whose command line names the cloud's state directory."""
    found = set()
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            line = (proc / "cmdline").read_bytes().decode()
        except OSError:
            continue
        if str(cloud.directory) in line and "haproxy" in line:
            found.add(int(proc.name))
    return found


def test_put_waits_until_traffic_flows_and_delete_leaves_nothing(cloud, targets):
    answer = cloud.put("web", document(targets))
    assert answer.status_code == 201
    assert answer.headers["location"] == "/v1/load-balancers/web"
    operation = answer.headers["operation-location"]
    found = eventually(lambda: cloud.get("web")["status"]["state"] == "ACTIVE" and cloud.get("web"))
    assert ask(address(found)) in {str(t["port"]) for t in targets}
    assert cloud.http.get(operation).json()["status"] == "SUCCEEDED"
    deleting = cloud.http.delete("/v1/load-balancers/web")
    assert deleting.status_code == 202
    again = cloud.http.delete("/v1/load-balancers/web")
    assert again.status_code in (202, 404)
    if again.status_code == 202:
        assert again.json()["id"] == deleting.json()["id"]
    eventually(lambda: cloud.http.get("/v1/load-balancers/web").status_code == 404)
    assert cloud.http.delete("/v1/load-balancers/web").json()["code"] == "not_found"
    with pytest.raises(httpx2.ConnectError):
        ask(address(found))
    done = cloud.http.get(deleting.headers["operation-location"]).json()
    assert (done["type"], done["status"], done["done"]) == ("delete", "SUCCEEDED", True)
    assert not list((cloud.directory / "lb").glob("lb_*"))


def test_what_was_read_can_be_put_back_unchanged(cloud, targets):
    found = cloud.active("web", document(targets))
    before = cloud.http.get("/v1/load-balancers").json()["resource_version"]
    answer = cloud.put("web", found)
    assert answer.status_code == 200
    assert answer.headers["etag"] == f'"1.{found["status"]["resource_version"]}"'
    assert cloud.http.get("/v1/load-balancers").json()["resource_version"] == before


def test_labels_change_without_a_new_generation(cloud, targets):
    found = cloud.active("web", document(targets))
    other = {**found, "labels": {"team": "b"}}
    answer = cloud.put("web", other)
    assert answer.status_code == 200
    after = answer.json()
    assert after["labels"] == {"team": "b"}
    assert after["status"]["generation"] == 1
    assert int(after["status"]["resource_version"]) > int(found["status"]["resource_version"])


def test_an_update_is_accepted_and_waited_for(cloud, targets):
    found = cloud.active("web", document(targets[:1]))
    assert ask(address(found)) == str(targets[0]["port"])
    answer = cloud.put("web", document(targets[1:]))
    assert answer.status_code == 202
    assert answer.json()["status"]["generation"] == 2
    moved = cloud.active("web", document(targets[1:], 8081))
    assert moved["status"]["addresses"] == found["status"]["addresses"]
    assert ask(address(moved), 8081) == str(targets[1]["port"])


def test_preconditions_hold_or_refuse(cloud, targets):
    wish = document(targets)
    only_new = {"if-none-match": "*"}
    assert cloud.put("web", wish, headers={"if-match": '"1"'}).status_code == 412
    assert cloud.put("web", wish, headers={"if-match": "*"}).status_code == 412
    assert cloud.put("web", wish, headers=only_new).status_code == 201
    assert cloud.put("web", wish, headers=only_new).status_code == 412
    found = cloud.active("web", document(targets, 8081))
    etag = cloud.http.get("/v1/load-balancers/web").headers["etag"]
    stale = cloud.put("web", wish, headers={"if-match": '"1.5"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    huge = '"' + "9" * 5000 + '"'
    assert cloud.put("web", wish, headers={"if-match": huge}).status_code == 412
    assert cloud.get("web")["spec"] == found["spec"]
    assert cloud.put("web", wish, headers={"if-match": f'"7", {etag}'}).status_code == 202
    assert (
        cloud.http.delete("/v1/load-balancers/web", headers={"if-match": '"1"'}).status_code == 412
    )


def test_a_read_with_the_known_etag_is_not_sent_again(cloud, targets):
    cloud.active("web", document(targets))
    etag = eventually(lambda: cloud.http.get("/v1/load-balancers/web")).headers["etag"]
    for known in (etag, f'"0.1", {etag}', f"W/{etag}", "*"):
        answer = cloud.http.get("/v1/load-balancers/web", headers={"if-none-match": known})
        assert (answer.status_code, answer.content) == (304, b""), known
    other = cloud.http.get("/v1/load-balancers/web", headers={"if-none-match": '"0.1"'})
    assert other.status_code == 200


def test_a_name_or_an_id_finds_it(cloud, targets):
    found = cloud.active("web", document(targets))
    assert cloud.get(found["status"]["id"])["name"] == "web"


def test_lists_come_in_pages_without_gap_or_repetition(cloud):
    nothing = document([])
    for number in range(5):
        assert cloud.put(f"lb-{number}", nothing).status_code == 201
    for path, most in (("/v1/load-balancers", 2), ("/v1/operations", 3)):
        seen, token = [], None
        while True:
            params = {"page_size": most} | ({"page_token": token} if token else {})
            page = cloud.http.get(path, params=params).json()
            assert len(page["items"]) <= most
            seen += [one.get("name") or one["id"] for one in page["items"]]
            token = page["next_page_token"]
            if token is None:
                break
        assert len(seen) == len(set(seen)) >= 5
    names = [one["name"] for one in cloud.http.get("/v1/load-balancers").json()["items"]]
    assert names == [f"lb-{n}" for n in range(5)]


def test_an_unhealthy_target_gets_no_traffic_and_is_shown(cloud, targets):
    dead = {"ip": targets[0]["ip"], "port": 9}
    found = cloud.active("web", document([targets[0], dead]))
    shown = {t["port"]: t["health"] for t in found["status"]["targets"]}
    assert shown == {targets[0]["port"]: "healthy", 9: "unhealthy"}
    assert found["status"]["operating_state"] == "DEGRADED"
    assert {ask(address(found)) for _ in range(6)} == {str(targets[0]["port"])}


def test_a_taken_port_is_said_and_heals_by_itself(cloud, targets, network):
    import socket

    with socket.create_server((f"{network}.7.7", 8080)):
        wish = document(targets, addresses=[{"ip": f"{network}.7.7"}])
        assert cloud.put("web", wish).status_code == 201
        note = eventually(lambda: cloud.get("web")["status"]["last_error"])
        assert note["code"] == "bind_failed"
        assert f"{network}.7.7" in note["message"]
    found = eventually(lambda: cloud.get("web")["status"]["state"] == "ACTIVE" and cloud.get("web"))
    assert found["status"]["last_error"] is None


def test_a_restart_of_the_server_costs_no_request(new_cloud, targets):
    """Same process before and after, and nothing failed in between."""
    cloud = new_cloud()
    found = cloud.active("web", document(targets))
    cloud.put("later", document(targets, 8081))
    before = pids(cloud)
    assert before
    stop, failures, answers = Event(), [], []

    def traffic() -> None:
        while not stop.is_set():
            try:
                answers.append(ask(address(found)))
            except httpx2.HTTPError as error:
                failures.append(error)

    thread = Thread(target=traffic)
    thread.start()
    try:
        cloud.stop()
        served_before = len(answers)
        cloud.start()
        eventually(lambda: len(answers) > served_before + 5)
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert before <= pids(cloud)
    after = cloud.get("web")
    assert after["status"]["generation"] == after["status"]["observed_generation"] == 1
    assert cloud.active("later", document(targets, 8081))["status"]["generation"] == 1
    assert ask(address(cloud.active("web", document(targets, 8082))), 8082)


def test_a_load_balancer_lost_while_the_server_was_down_comes_back(new_cloud, targets):
    cloud = new_cloud()
    found = cloud.active("web", document(targets))
    cloud.stop()
    for pid in pids(cloud):
        os.kill(pid, signal.SIGKILL)
    cloud.start()
    eventually(lambda: pids(cloud))
    eventually(lambda: _answers(address(found)))
    assert cloud.get("web")["status"]["addresses"] == found["status"]["addresses"]


def test_a_load_balancer_whose_directory_is_gone_comes_back(new_cloud, targets):
    """The container was made anew: the database is there, the processes and files are not."""
    import shutil

    cloud = new_cloud()
    found = cloud.active("web", document(targets))
    cloud.stop()
    for pid in pids(cloud):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(cloud.directory / "lb")
    cloud.start()
    eventually(lambda: cloud.get("web")["status"]["state"] == "ACTIVE")
    assert ask(address(found))
    assert cloud.get("web")["status"]["addresses"] == found["status"]["addresses"]


def _answers(ip: str) -> bool:
    try:
        return bool(ask(ip))
    except httpx2.HTTPError:
        return False


def test_many_clients_put_the_same_name_and_one_load_balancer_comes_of_it(cloud, targets):
    codes: list[int] = []

    def client(number: int) -> None:
        wish = document(targets)
        wish["annotations"] = {"client": str(number)}
        codes.append(cloud.put("web", copy.deepcopy(wish)).status_code)

    threads = [Thread(target=client, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200] * 7 + [201]
    assert len(cloud.http.get("/v1/load-balancers").json()["items"]) == 1
