"""The command line against a real cloud: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.conftest import Running, document

pytestmark = pytest.mark.haproxy

TARGETS = [{"ip": "127.0.9.1", "port": 9000}]


@pytest.fixture
def run(cloud: Running):
    """Run the program as people do: its own process, nothing on a terminal."""
    settings = {"FAKECLOUD_URL": cloud.url, "FAKECLOUD_TOKEN": cloud.token}

    def call(*words: str, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [sys.executable, "-m", "fakecloud", *words],
            env={**os.environ, **settings},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == code, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return result

    return call


def written(tmp_path: Path, *documents) -> str:
    file = tmp_path / "wanted.yaml"
    file.write_text("---\n".join(json.dumps(one) + "\n" for one in documents))
    return str(file)


def test_apply_makes_what_the_file_says_and_waits(run, cloud, tmp_path):
    one, two = document(TARGETS) | {"name": "web"}, document(TARGETS, 8090) | {"name": "api"}
    lines = run("lb", "apply", "-f", written(tmp_path, one, two)).stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["web:", "ACTIVE"], ["api:", "ACTIVE"]]
    assert cloud.get("web")["status"]["generation"] == 1
    run("lb", "apply", "-f", "-", stdin=json.dumps(one))
    assert cloud.get("web")["status"]["generation"] == 1, "nothing changed"


def test_apply_tells_progress_on_standard_error(run, tmp_path):
    file = written(tmp_path, document(TARGETS) | {"name": "web"})
    result = run("lb", "apply", "-f", file)
    assert result.stdout.startswith("web: ACTIVE 127.")
    assert "create" not in result.stdout


@pytest.mark.parametrize("text", ["a: [", "spec: {}", "[]"])
def test_a_file_that_cant_be_used_is_wrong_usage(run, text):
    run("lb", "apply", "-f", "-", stdin=text, code=2)
    run("lb", "apply", "-f", "/nowhere/file", code=2)


def test_apply_of_a_wrong_document_fails(run, tmp_path):
    file = written(tmp_path, {"name": "web", "spec": {}})
    assert "listeners" in run("lb", "apply", "-f", file, code=1).stderr


def test_operations_are_listed_shown_and_waited_for(run, cloud):
    cloud.put("web", document(TARGETS))
    id = cloud.get("web")["status"]["operation"]
    done = run("op", "wait", id, "--timeout", "20").stdout.splitlines()
    assert done[1].split()[:4] == [id, "create", "web", "SUCCEEDED"]
    (row,) = [
        line
        for line in run("op", "list", "--target", "web", "--type", "create").stdout.splitlines()
        if id in line
    ]
    assert "SUCCEEDED" in row
    assert json.loads(run("op", "get", id, "-o", "json").stdout)["phases"]
    assert "started" in run("op", "get", id).stdout.lower()
    assert run("op", "list", "--target", "none", "-o", "csv").stdout.count("\n") == 1
    assert "not_cancellable" in run("op", "cancel", id, code=1).stderr
    assert "not_found" in run("op", "wait", "op_none", code=1).stderr


def test_admin_checks_and_exports(run, cloud, tmp_path):
    cloud.active("web", document(TARGETS))
    assert run("admin", "check").stdout.startswith("all hold: I1")
    assert json.loads(run("admin", "check", "-o", "json").stdout)["ok"]
    file = tmp_path / "all.ndjson"
    run("admin", "export", "-f", str(file))
    kinds = {json.loads(line)["kind"] for line in file.read_text().splitlines()}
    assert {"load_balancer", "operation"} <= kinds
    assert '"load_balancer"' in run("admin", "export").stdout


def test_a_broken_promise_is_exit_code_1(run, cloud):
    cloud.active("web", document(TARGETS))
    database = cloud.app.state.cloud.database
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE billed_resource SET ended_us = begun_us")
    found = run("admin", "check", code=1).stdout
    assert "I5" in found
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE billed_resource SET ended_us = NULL")
