"""The API describes itself, and keeps to what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import Running

pytestmark = pytest.mark.haproxy

GOLDEN = Path(__file__).parent.parent / "golden" / "openapi.json"

LONG = os.environ.get("FAKECLOUD_TEST_EXAMPLES")  # per operation; unset: what takes a minute
EXAMPLES = int(LONG or "12")
PHASES = "examples,coverage,fuzzing,stateful" if LONG else "coverage,stateful"
LIMIT_S = 3600 if LONG else 240

APART = "/v1/watch"  # endless; tests/flows/test_watching.py
DISTURBING = "/v1/(chaos|clock).*"
BEYOND = "positive_data_acceptance"
"""What a schema can't say: a filter's grammar, an address that must be of the pool."""


def test_the_description_is_the_agreed_one(cloud):
    """A change of the public surface shows here; UPDATE_GOLDEN=1 writes the file anew."""
    now = json.dumps(cloud.http.get("/openapi.json").json(), indent=1, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(now)
    assert now == GOLDEN.read_text(), "if meant, run it again with UPDATE_GOLDEN=1"


def test_the_documentation_renders(cloud):
    page = cloud.http.get("/docs")
    assert page.status_code == 200
    assert "/openapi.json" in page.text


@pytest.fixture(scope="module")
def described(shared_cloud, tmp_path_factory) -> Path:
    """The description without `default`: only a status that is named is one that was described."""
    document = shared_cloud.http.get("/openapi.json").json()
    for item in document["paths"].values():
        for operation in item.values():
            operation["responses"].pop("default", None)
    file: Path = tmp_path_factory.mktemp("openapi") / "openapi.json"
    file.write_text(json.dumps(document))
    return file


@pytest.mark.timeout(LIMIT_S)
def test_requests_made_from_the_description_get_described_answers(cloud: Running, described: Path):
    """Valid and invalid ones, alone and along the links, with and without a token."""
    found = schemathesis(cloud, described, "--exclude-path-regex", f"^({APART}|{DISTURBING})$")
    assert found["test_cases"]["generated"] > 1500
    assert found["operations"]["tested"] >= 55
    assert not cloud.http.post("/v1/admin:check").json()["violations"]


@pytest.mark.timeout(LIMIT_S)
def test_faults_and_the_clock_are_described_too(new_cloud, described: Path):
    """In a cloud of their own, since they would disturb what the others are asked."""
    alone = new_cloud()
    found = schemathesis(alone, described, "--include-path-regex", f"^({DISTURBING})$")
    assert alone.http.post("/v1/chaos:reset").status_code == 200
    assert alone.http.put("/v1/clock", json={"mode": "real"}).status_code == 200
    assert found["test_cases"]["generated"] > 400
    assert found["operations"]["tested"] >= 12


def schemathesis(cloud: Running, described: Path, *only: str) -> dict[str, Any]:
    """Return the report of a run in which every answer was as described."""
    report = described.parent / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("--no-color", "run", str(described), "--url", cloud.url),
            *("--header", f"Authorization: Bearer {cloud.token}"),
            *("--mode", "all", "--phases", PHASES, "--max-examples", str(EXAMPLES)),
            *("--checks", "all", "--exclude-checks", BEYOND),
            "--generation-deterministic",
            *("--request-timeout", "30", "--continue-on-failure"),
            *("--report", "json", "--report-json-path", str(report)),
            *only,
        ],
        capture_output=True,
        text=True,
        cwd=described.parent,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    found: dict[str, Any] = json.loads(report.read_text())
    assert found["complete"]
    assert (found["failures"], found["errors"]) == ([], [])
    return found
