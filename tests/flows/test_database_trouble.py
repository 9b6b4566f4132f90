"""The database is locked or gone: callers hear 503 and when to try again, traffic goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.fakes import postgresql
from tests.flows.conftest import ask, document, eventually

pytestmark = pytest.mark.haproxy


@pytest.fixture
def server() -> Iterator[postgresql.Server]:
    if postgresql.binaries() is None:
        pytest.skip(postgresql.MISSING)
    with postgresql.running() as running:
        yield running


def refused(answer) -> bool:
    """Say whether it is a 503 that says when to try again."""
    if answer.status_code != 503:
        return False
    body = answer.json()
    assert (body["code"], body["retryable"]) == ("unavailable", True)
    assert int(answer.headers["retry-after"]) >= 1
    return True


@pytest.mark.timeout(90)
def test_without_its_postgresql_the_cloud_waits_and_traffic_flows(server, new_cloud, targets):
    cloud = new_cloud(database=server.database())
    ip = cloud.active("web", document(targets))["status"]["addresses"][0]["ip"]
    server.stop()
    assert refused(cloud.put("web", document(targets, port=8081)))
    assert refused(cloud.http.get("/v1/operations"))
    ready = cloud.http.get("/readyz")
    assert ready.status_code == 503
    assert ask(ip)
    assert cloud.http.get("/healthz").status_code == 200
    server.start()
    eventually(lambda: cloud.http.get("/readyz").status_code == 200, 20)
    cloud.active("web", document(targets, port=8081))
    assert ask(ip, 8081)
    assert cloud.http.post("/v1/admin:check").json()["violations"] == []


@pytest.mark.timeout(60)
def test_while_sqlite_is_locked_reads_and_traffic_go_on(new_cloud, targets):
    cloud = new_cloud()
    ip = cloud.active("web", document(targets))["status"]["addresses"][0]["ip"]
    file = cloud.app.state.cloud.database.url.database
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert refused(cloud.put("web", document(targets, port=8081)))
        assert cloud.get("web")["spec"]["listeners"][0]["port"] == 8080
        assert ask(ip)
        other.execute("ROLLBACK")
    cloud.active("web", document(targets, port=8081))
    assert ask(ip, 8081)
