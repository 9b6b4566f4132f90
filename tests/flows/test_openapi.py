"""The API describes itself, and keeps to what it says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from tests.flows.conftest import Running

pytestmark = pytest.mark.haproxy

GOLDEN = Path(__file__).parent.parent / "golden" / "openapi.json"
EXAMPLES = int(os.environ.get("FAKECLOUD_TEST_EXAMPLES", "20"))  # per operation

# Endless, or made to disturb what else is asked; each has tests of its own.
APART = {"/v1/watch", "/v1/clock:advance", "/v1/clock"}

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


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


@pytest.mark.timeout(300)
def test_requests_made_from_the_description_get_described_answers(cloud: Running):
    """No 5xx, and only documented statuses, types and bodies."""
    schema = schemathesis.openapi.from_url(f"{cloud.url}/openapi.json")
    tried = [
        as_described(operation, cloud.token)
        for operation in (found.ok() for found in schema.get_all_operations())
        if operation.path not in APART and not operation.path.startswith("/v1/chaos")
    ]
    assert sum(tried) >= EXAMPLES * 8


@pytest.mark.timeout(120)
def test_faults_are_described_too(new_cloud):
    """In a cloud of their own, since they would disturb what the others are asked."""
    alone = new_cloud()
    schema = schemathesis.openapi.from_url(f"{alone.url}/openapi.json")
    tried = [
        as_described(operation, alone.token)
        for operation in (found.ok() for found in schema.get_all_operations())
        if operation.path.startswith("/v1/chaos")
    ]
    assert alone.http.post("/v1/chaos:reset").status_code == 200
    assert (len(tried), min(tried) > 0) == (9, True)


def as_described(operation: schemathesis.APIOperation, token: str) -> int:
    """Try an operation; return how often its answer was as described."""
    tried = 0

    @hypothesis.settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy())
    def described(case: schemathesis.Case) -> None:
        nonlocal tried
        tried += 1
        (case.query or {}).pop("min_rv", None)  # a version of the future is waited for
        case.call_and_validate(headers={"authorization": f"Bearer {token}"}, checks=CHECKS)

    described()
    return tried
