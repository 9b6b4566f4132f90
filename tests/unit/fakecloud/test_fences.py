"""`Fakecloud-Fence`: who was deposed writes nothing more, however late its request arrives."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from fakecloud.api.mutations import parse_fence
from fakecloud.errors import FenceInvalid
from fakecloud.store import fences
from tests.fakes.api_cloud import Answer, ApiCloud

LINE = "cluster-1/lease-1"
AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def api(database_url: str) -> Iterator[ApiCloud]:
    made = ApiCloud(database_url)
    yield made
    made.close()


def put(api: ApiCloud, name: str, fence: str | None, **labels: str) -> Answer:
    headers = {} if fence is None else {"fakecloud_fence": fence}
    listener = {"name": "a", "protocol": "tcp", "port": 8080, "target_group": "a"}
    spec = {"listeners": [listener], "target_groups": [{"name": "a", "targets": []}]}
    body = {"labels": labels, "spec": spec}
    answer = api.request("PUT", f"/v1/load-balancers/{name}", body, **headers)
    assert answer is not None
    return answer


def names(api: ApiCloud) -> set[str]:
    answer = api.request("GET", "/v1/load-balancers")
    assert answer is not None
    return {one["name"] for one in answer.json()["items"]}


def test_an_older_writer_neither_creates_nor_changes_nor_deletes(api):
    assert put(api, "web", f"{LINE}:1").status == 201
    assert put(api, "other", f"{LINE}:2").status == 201
    for late in (
        put(api, "new", f"{LINE}:1"),
        put(api, "web", f"{LINE}:1", team="b"),
        api.request("DELETE", "/v1/load-balancers/web", fakecloud_fence=f"{LINE}:1"),
    ):
        assert late.status == 409
        assert late.json()["code"] == "stale_fence"
        assert f"{LINE} is at 2" in late.json()["detail"]
    assert names(api) == {"web", "other"}
    found = api.request("GET", "/v1/load-balancers/web")
    assert found.json()["labels"] == {}
    assert put(api, "web", f"{LINE}:2", team="b").status == 200


def test_a_refused_write_raises_no_fence(api):
    """Otherwise a wrong request would lock out whoever is right."""
    refused = put(api, "NOT A NAME", f"{LINE}:9")
    assert refused.status >= 400
    assert put(api, "web", f"{LINE}:1").status == 201


def test_lines_and_projects_are_apart_and_nobody_needs_a_fence(api):
    assert put(api, "a", f"{LINE}:7").status == 201
    assert put(api, "b", "cluster-2/lease-1:1").status == 201
    assert put(api, "c", None).status == 201
    with api.database.write() as connection:
        assert fences.raise_to(connection, "another", LINE, 1, AT) == 1


def test_a_fence_is_a_name_and_a_number(api):
    answer = put(api, "web", "seven")
    assert (answer.status, answer.json()["code"]) == (400, "fence_invalid")
    assert names(api) == set()
    assert parse_fence("a/b-c.d_e:0") == ("a/b-c.d_e", 0)
    for wrong in ("", ":1", "a:", "a:01", "a:-1", "a b:1", "a:1\n", "/a:1", "a" * 129 + ":1"):
        with pytest.raises(FenceInvalid):
            parse_fence(wrong)


def test_lines_of_writers_are_bounded(api, monkeypatch):
    monkeypatch.setattr(fences, "MOST", 3)
    with api.database.write() as connection:
        for number in range(5):
            at = AT + timedelta(seconds=number)
            fences.raise_to(connection, "default", f"line-{number}", 5, at)
        assert fences.raise_to(connection, "default", "line-4", 1, AT) == 5
        assert fences.raise_to(connection, "default", "line-0", 1, AT) == 1
