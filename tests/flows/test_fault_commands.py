"""fakecloud fault, against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner, Result

from fakecloud import __main__ as program

pytestmark = pytest.mark.haproxy

Run = Callable[..., Result]


@pytest.fixture
def fault(cloud, monkeypatch) -> Iterator[Run]:
    """Return a function that runs `fakecloud fault …` against the cloud."""
    monkeypatch.setenv("FAKECLOUD_URL", cloud.url)
    monkeypatch.setenv("FAKECLOUD_TOKEN", cloud.token)

    def run(*words: str) -> Result:
        return CliRunner().invoke(program.whole(), ["fault", *words])

    yield run
    cloud.http.post("/v1/chaos:reset")


def added(fault: Run, *words: str) -> dict[str, object]:
    result = fault("add", *words, "-o", "json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)
    return found


def test_a_fault_is_added_seen_at_work_and_removed(cloud, fault):
    made = added(fault, "api", "status", "-p", "code=503", "-m", "methods=GET,PUT",
                 "-m", "route=/v1/operations", "--trigger", "nth=1", "--name", "flaky",
                 "--max-hits", "2", "--expires-in", "60", "--seed", "9")  # fmt: skip
    assert made["match"] == {"methods": ["GET", "PUT"], "route": "/v1/operations"}
    assert (made["trigger"], made["seed"], made["max_hits"]) == ({"nth": 1}, 9, 2)
    assert cloud.http.get("/v1/operations").status_code == 503
    head, line = fault("list").stdout.splitlines()
    assert head.split() == ["ID", "NAME", "LAYER", "ACTION", "ON", "LOOKS", "HITS", "EXPIRES"]
    assert line.split()[1:7] == ["flaky", "api", "status", "yes", "1", "1"]
    csv = fault("log", "-o", "csv").stdout.splitlines()
    assert csv[0] == "at,fault,layer,action,subject"
    assert csv[1].split(",")[1:4] == [made["id"], "api", "status"]
    assert fault("remove", str(made["id"])).stdout == f"{made['id']}: removed\n"
    assert json.loads(fault("list", "-o", "json").stdout) == []


def test_reset_says_what_went(cloud, fault):
    added(fault, "watch", "no_bookmarks")
    added(fault, "provision", "delay", "-p", "seconds=90", "-m", "operation=create")
    assert fault("reset").stdout == "removed: 2 faults, 0 hits\n"


def test_scenarios_are_listed_and_started(cloud, fault):
    listed = fault("scenario").stdout
    assert "blackout-60s" in listed
    started = json.loads(fault("scenario", "slow-ip", "--expires-in", "5", "-o", "json").stdout)
    assert [one["name"] for one in started] == ["slow-ip"]
    unknown = fault("scenario", "rain")
    assert unknown.exit_code == 1
    assert "there are aws-like" in unknown.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("add", "api", "explode"), 1, "/action/type: Input should be"),
        (("add", "api", "latency"), 1, "/action/seconds: latency needs it"),
        (("add", "api", "latency", "-p", "seconds"), 2, "NAME=VALUE"),
        (("add", "moon", "hang"), 1, "layer"),
        (("remove", "flt_none"), 1, "no fault 'flt_none'"),
        (("remove", "../tokens"), 2, "is not the id"),
        (("scenario", "a/b"), 2, "is not the name"),
    ],
)
def test_wrong_use_says_what_is_wrong(cloud, fault, words, code, says):
    result = fault(*words)
    assert result.exit_code == code, result.output
    assert says in result.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    "command", ["list", "add", "remove", "reset", "log", "actions", "scenario"]
)
def test_every_command_has_an_example(command, fault):
    shown = fault(command, "--help").stdout
    assert f"fakecloud fault {command}" in shown
