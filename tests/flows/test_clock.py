"""Business time over HTTP and on the command line, and a slow cloud under a fast clock."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.flows.conftest import document, eventually

pytestmark = pytest.mark.haproxy


@pytest.fixture
def mine(new_cloud):
    return new_cloud()


def clock(cloud):
    answer = cloud.http.get("/v1/clock")
    assert answer.status_code == 200
    return answer.json()


def command(cloud, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"FAKECLOUD_URL": cloud.url, "FAKECLOUD_TOKEN": cloud.token}
    return subprocess.run(
        [sys.executable, "-m", "fakecloud", "clock", *words],
        capture_output=True,
        text=True,
        env=environment,
        timeout=30,
        check=False,
    )


def test_modes_and_an_advance(mine):
    assert clock(mine)["mode"] == "real"
    assert mine.http.put("/v1/clock", json={"mode": "manual"}).json()["mode"] == "manual"
    before = clock(mine)["now"]
    assert clock(mine)["now"] == before
    answer = mine.http.post("/v1/clock:advance", json={"by": "31d"})
    assert answer.status_code == 202
    done = mine.http.get(answer.headers["operation-location"], params={"wait": "10s"}).json()
    assert (done["type"], done["status"], done["progress"]) == ("clock.advance", "SUCCEEDED", 100)
    assert clock(mine)["now"][:10] > before[:10]
    assert clock(mine)["status"] == "READY"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/clock", {"mode": "rate"}),
        ("PUT", "/v1/clock", {"mode": "real", "rate": 5}),
        ("PUT", "/v1/clock", {"mode": "rate", "rate": 100_001}),
        ("POST", "/v1/clock:advance", {}),
        ("POST", "/v1/clock:advance", {"by": "1d", "to": "2030-01-01T00:00:00Z"}),
        ("POST", "/v1/clock:advance", {"to": "2020-01-01T00:00:00Z"}),
        ("POST", "/v1/clock:advance", {"by": "800d"}),
        ("POST", "/v1/clock:advance", {"by": "9999999999d"}),
        ("POST", "/v1/clock:advance", {"to": "2030-01-01T00:00:00"}),
    ],
)
def test_what_makes_no_sense_is_refused(cloud, method, path, body):
    answer = cloud.http.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


def test_a_slow_cloud_under_a_fast_clock(mine, targets):
    """157 s of an NLB are half a second at rate 300; the operation says what is going on."""
    assert mine.http.put("/v1/clock", json={"mode": "rate", "rate": 300}).status_code == 200
    wish = document(targets) | {"annotations": {"chaos.fakecloud.dev/profile": "aws-nlb"}}
    answer = mine.put("web", wish)
    assert answer.status_code == 201
    path = answer.headers["operation-location"]
    found = mine.http.get(path).json()
    assert (found["status"], found["phase"] in ("allocate", "apply", "wait")) == ("RUNNING", True)
    assert found["eta"] > found["created_at"]
    eventually(lambda: mine.get("web")["status"]["state"] == "ACTIVE")
    assert mine.http.get(path).json()["status"] == "SUCCEEDED"


def test_retry_after_grows_with_the_delay(mine, targets):
    wish = document(targets) | {"labels": {"chaos.fakecloud.dev/profile": "aws-nlb"}}
    answer = mine.put("web", wish)
    assert answer.headers["retry-after"] == "15"
    eventually(lambda: mine.http.get("/v1/operations").json()["items"][0]["phase"] == "wait")
    assert mine.get("web")["status"]["state"] == "PROVISIONING"


def test_profiles_are_listed_with_their_sources(cloud):
    items = cloud.http.get("/v1/profiles").json()["items"]
    assert [one["name"] for one in items if one["default"]] == ["dev"]
    assert all(one["source"] for one in items)
    assert cloud.http.get("/v1/profiles/do").json()["name"] == "digitalocean"
    assert cloud.http.get("/v1/profiles/ibm").status_code == 404


def test_the_command(mine):
    done = command(mine, "set", "manual")
    assert (done.returncode, "manual" in done.stdout) == (0, True), done.stderr
    before = clock(mine)["now"]
    done = command(mine, "advance", "1d", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert before[:19] not in done.stdout
    assert "READY" in command(mine, "show").stdout
    assert command(mine, "advance").returncode == 1
