"""What every route refuses, for every route that the description has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import Running

pytestmark = pytest.mark.haproxy

GOLDEN = Path(__file__).parent.parent / "golden" / "openapi.json"
OPERATIONS: list[tuple[str, str, dict[str, Any]]] = [
    (method.upper(), path, operation)
    for path, item in json.loads(GOLDEN.read_text())["paths"].items()
    for method, operation in item.items()
    if path.startswith("/v1/")
]
ALL = [pytest.param(m, p, id=f"{m} {p}") for m, p, _ in OPERATIONS]
WITH_BODY = [
    pytest.param(m, p, *o["requestBody"]["content"], id=f"{m} {p}")
    for m, p, o in OPERATIONS
    if "requestBody" in o
]


def sent(cloud: Running, method: str, path: str, **more: Any) -> tuple[int, dict[str, Any]]:
    """Return the status and the problem that answer a request; names in the path are made up."""
    place = path
    for name in ("name", "id", "project", "metric", "cluster_uid"):
        place = place.replace(f"{{{name}}}", "default")
    answer = cloud.http.request(method, place, **more)
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    found: dict[str, Any] = answer.json()
    return answer.status_code, found


def test_there_are_routes_to_try():
    assert len(ALL) > 60
    assert len(WITH_BODY) > 15


@pytest.mark.parametrize(("method", "path"), ALL)
def test_an_unknown_parameter_is_named(cloud, method, path):
    status, problem = sent(cloud, method, path, params={"colour": "red"})
    if status == 422:  # the missing body was found first
        assert problem["code"] == "validation_failed"
        status, problem = sent(cloud, method, path, params={"colour": "red"}, json={})
    assert (status, problem["code"]) in ((400, "unknown_parameter"), (415, UNSUPPORTED))
    if status == 400:
        assert "'colour'" in problem["detail"]


UNSUPPORTED = "unsupported_media_type"


@pytest.mark.parametrize(("method", "path"), ALL)
def test_without_a_token_nothing_is_told(cloud, method, path):
    status, problem = sent(cloud, method, path, headers={"authorization": ""})
    assert (status, problem["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize(("method", "path", "kind"), WITH_BODY)
def test_a_body_that_is_no_json_is_refused_with_the_position(cloud, method, path, kind):
    status, problem = sent(cloud, method, path, content=b'{"a": x}', headers={"content-type": kind})
    assert (status, problem["code"]) == (400, "malformed_json")
    assert "character 6" in problem["detail"]


@pytest.mark.parametrize(("method", "path", "kind"), WITH_BODY)
def test_a_large_body_and_another_type_are_refused(cloud, method, path, kind):
    large = b" " * ((1 << 20) + 1)
    status, problem = sent(cloud, method, path, content=large, headers={"content-type": kind})
    assert (status, problem["code"]) == (413, "payload_too_large")
    other = {"content-type": "text/plain"}
    status, problem = sent(cloud, method, path, content=b"{}", headers=other)
    assert (status, problem["code"]) == (415, UNSUPPORTED)


@pytest.mark.parametrize(("method", "path", "kind"), WITH_BODY)
def test_an_unknown_field_is_named(cloud, method, path, kind):
    body = b'{"colour": "red"}'
    if path == "/v1/load-balancers/{name}" and method == "PATCH":
        made = {"spec": {"listeners": [], "target_groups": []}}
        assert cloud.put("default", made).is_success
    status, problem = sent(cloud, method, path, content=body, headers={"content-type": kind})
    assert (status, problem["code"]) == (422, "validation_failed")
    assert "/colour" in [error["pointer"] for error in problem["errors"]]
