"""A server killed at each point of each operation: after its restart nothing is lost or doubled."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy

from fakecloud.tables import address, usage_interval
from tests.fakes import postgresql
from tests.flows import servers
from tests.flows.conftest import ask, document, eventually

pytestmark = [pytest.mark.haproxy, pytest.mark.timeout(120)]

POINTS = ("claim", "pre_apply", "post_apply", "pre_commit", "post_commit")
OPERATIONS = ("create", "update", "delete")
CRASHED = 70


class World:
    """A server, and the only load balancer of it."""

    def __init__(self, server: servers.Process, url: str, targets: list[dict[str, Any]]) -> None:
        self.server = server
        self.url = url
        self.targets = targets

    def put(self, targets: int, **params: str) -> None:
        wanted = document(self.targets[:targets])
        self.server.request("PUT", "/v1/load-balancers/web", json=wanted, params=params)

    def active(self, generation: int) -> dict[str, Any]:
        def settled() -> dict[str, Any] | None:
            found = self.server.status("web")
            done = (found.get("state"), found.get("observed_generation"))
            return found if done == ("ACTIVE", generation) else None

        found: dict[str, Any] = eventually(settled, 20)
        return found

    def crash_at(self, operation: str, point: str) -> None:
        answer = self.server.request(
            "POST",
            "/v1/chaos/faults",
            json={
                "layer": "worker",
                "action": {"type": "crash", "point": point},
                "match": {"operation": operation},
                "max_hits": 1,
            },
        )
        assert answer.status_code == 201, answer.text

    def rows(self, lb_id: str) -> tuple[int, list[Any]]:
        """Return how many addresses it has, and its usage intervals."""
        engine = sqlalchemy.create_engine(self.url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.connect() as connection:
            held = connection.execute(
                sqlalchemy.select(address.c.ip).where(address.c.load_balancer_id == lb_id)
            ).all()
            used = connection.execute(
                sqlalchemy.select(usage_interval.c.ended_at).where(
                    usage_interval.c.load_balancer_id == lb_id
                )
            ).all()
        engine.dispose()
        return len(held), [row.ended_at for row in used]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request, tmp_path_factory, network, targets) -> Iterator[World]:
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed; for these tests: apt-get install haproxy")
    if request.param == "postgresql" and postgresql.binaries() is None:
        pytest.skip(postgresql.MISSING)
    directory = tmp_path_factory.mktemp("crash")
    with (
        tempfile.TemporaryDirectory(prefix="fc-") as runtime,
        servers.databases(request.param, directory) as url,
    ):
        pool = f"default=loopback:{network}.64.0/24"
        server = servers.Process(directory / "state", Path(runtime), url, pool=pool)
        server.start()
        yield World(server, url, targets)
        server.kill()
        server.kill_balancers()


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_at(world: World, operation: str, point: str) -> None:
    if operation != "create":
        world.put(1, wait="10s")
        lb_id = world.active(1)["id"]
    world.crash_at(operation, point)
    with suppress(httpx2.HTTPError):  # it may die before it has answered
        if operation == "delete":
            world.server.request("DELETE", "/v1/load-balancers/web")
        else:
            world.put(1 if operation == "create" else 2)
    assert world.server.died() == CRASHED
    world.server.start()
    if operation == "delete":
        eventually(lambda: not world.server.status("web"), 20)
    else:
        found = world.active(1 if operation == "create" else 2)
        lb_id = found["id"]
        addresses, ends = world.rows(lb_id)
        assert (addresses, ends) == (1, [None])
        assert ask(found["addresses"][0]["ip"]) in {str(t["port"]) for t in world.targets}
        eventually(lambda: len(world.server.balancers()) == 1)
        assert len(world.server.request("GET", "/v1/load-balancers").json()["items"]) == 1
        assert not world.server.broken()
        world.server.request("DELETE", "/v1/load-balancers/web")
        eventually(lambda: not world.server.status("web"), 20)
    addresses, ends = world.rows(lb_id)
    assert addresses == 0
    assert len(ends) == 1
    assert ends[0] is not None
    eventually(lambda: not world.server.balancers())
    assert not list((world.server.directory / "lb").glob("lb_*"))
    assert not world.server.broken()
    running = world.server.request("GET", "/v1/operations").json()["items"]
    assert all(one["done"] for one in running)
