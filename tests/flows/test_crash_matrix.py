"""A server killed at each point of each operation: after its restart nothing is lost or doubled.

A worker says that it stands at the point, and the whole process is ended by SIGKILL there. What
was stored and what ran at that moment is compared too, so that each cell is the one it says.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy

from fakecloud.billing.events import Kind
from fakecloud.tables.billing import billing_event
from fakecloud.tables.cloud import address, load_balancer
from tests.fakes import postgresql
from tests.flows import servers
from tests.flows.conftest import ask, document, eventually

pytestmark = [pytest.mark.haproxy, pytest.mark.timeout(120)]

POINTS = ("claim", "pre_apply", "post_apply", "pre_commit", "post_commit")
OPERATIONS = ("create", "update", "delete")
BEFORE = {"create": ("PROVISIONING", 0), "update": ("UPDATING", 1), "delete": ("DELETING", 1)}
AFTER = {"create": ("ACTIVE", 1), "update": ("ACTIVE", 2), "delete": ("DELETED", 1)}
NOT_APPLIED = ("claim", "pre_apply")
PATH = "/v1/load-balancers/web"


class World:
    """A server, and the only load balancer of it."""

    def __init__(
        self, directory: Path, runtime: Path, url: str, network: str, targets: list[dict[str, Any]]
    ) -> None:
        self.targets = targets
        self._stand_at = directory / "stand.at"
        self._stands = directory / "stand.stands"
        os.mkfifo(self._stands)
        self.server = servers.Process(
            directory / "state",
            runtime,
            url,
            module="tests.flows.standing",
            # Nobody else takes the lease while a worker stands.
            environment=servers.FAST | {"STAND_AT": str(self._stand_at), "FAKECLOUD_LEASE_S": "60"},
            pool=f"default=loopback:{network}.64.0/24",
        )
        self._engine = sqlalchemy.create_engine(
            url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sqlalchemy.NullPool
        )

    def ask_for(self, operation: str, **headers: str) -> httpx2.Response:
        """Send the request of an operation."""
        if operation == "delete":
            return self.server.request("DELETE", PATH, headers=headers)
        wanted = document(self.targets[: 2 if operation == "update" else 1])
        return self.server.request("PUT", PATH, json=wanted, headers=headers)

    def active(self, generation: int) -> dict[str, Any]:
        """Return the status when that generation serves."""

        def settled() -> dict[str, Any] | None:
            found = self.server.status("web")
            done = (found.get("state"), found.get("observed_generation"))
            return found if done == ("ACTIVE", generation) else None

        found: dict[str, Any] = eventually(settled, 20)
        return found

    def kill_at(self, operation: str, point: str) -> tuple[str, httpx2.Response]:
        """Ask for an operation and end the server there; return the id, and what was answered."""
        self._stand_at.write_text(f"{operation} {point}")
        answer = self.ask_for(operation, **{"idempotency-key": f"{operation}-{point}"})
        lb_id = self._stands.read_text().strip()
        self.server.kill()
        return lb_id, answer

    def stood(self, lb_id: str) -> tuple[tuple[str, int], int]:
        """Return the stored state and observed generation, and how many processes run."""
        columns = (load_balancer.c.state, load_balancer.c.observed_generation)
        with self._engine.connect() as connection:
            row = connection.execute(
                sqlalchemy.select(*columns).where(load_balancer.c.id == lb_id)
            ).one()
        return (row.state, row.observed_generation), len(self.server.balancers())

    def rows(self, lb_id: str) -> tuple[int, list[Any]]:
        """Return how many addresses it has, and what billing was told, but for changes."""
        with self._engine.connect() as connection:
            held = connection.execute(
                sqlalchemy.select(address.c.ip).where(address.c.load_balancer_id == lb_id)
            ).all()
            used = connection.execute(
                sqlalchemy.select(billing_event.c.kind)
                .where(billing_event.c.resource == lb_id, billing_event.c.kind != Kind.CHANGED)
                .order_by(billing_event.c.seq)
            ).all()
        return len(held), [row.kind for row in used]


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
        world = World(directory, Path(runtime), url, network, targets)
        world.server.start()
        yield world
        world.server.kill()
        world.server.kill_balancers()


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_at(world: World, operation: str, point: str) -> None:
    if operation != "create":
        world.ask_for("create")
        ip = world.active(1)["addresses"][0]["ip"]
    lb_id, answer = world.kill_at(operation, point)
    assert answer.status_code == (201 if operation == "create" else 202), answer.text
    stored, processes = world.stood(lb_id)
    assert stored == (AFTER if point == "post_commit" else BEFORE)[operation]
    assert processes == ((operation == "create") != (point in NOT_APPLIED) or operation == "update")
    if operation == "update" or (operation == "delete" and point in NOT_APPLIED):
        assert ask(ip), "it serves without the server"

    world.server.start()
    again = world.ask_for(operation, **{"idempotency-key": f"{operation}-{point}"})
    assert again.headers.get("idempotency-replayed") == "true", again.text
    assert again.json() == answer.json()
    if operation != "delete":
        serves_once(world, lb_id, 2 if operation == "update" else 1)
        world.ask_for("delete")
    is_gone(world, lb_id)


def serves_once(world: World, lb_id: str, generation: int) -> None:
    """Check that there is one load balancer, one address, billed once, one process."""
    found = world.active(generation)
    assert found["id"] == lb_id
    assert world.rows(lb_id) == (1, ["created", "activated"])
    assert ask(found["addresses"][0]["ip"]) in {str(t["port"]) for t in world.targets}
    eventually(lambda: len(world.server.balancers()) == 1)
    assert len(world.server.request("GET", "/v1/load-balancers").json()["items"]) == 1
    assert not world.server.broken()


def is_gone(world: World, lb_id: str) -> None:
    """Check that nothing of it is left but what it was billed."""
    eventually(lambda: not world.server.status("web"), 20)
    whole = ["created", "activated", "delete_requested", "deleted"]
    assert world.rows(lb_id) == (0, whole)
    eventually(lambda: not world.server.balancers())
    assert not list((world.server.directory / "lb").glob("lb_*"))
    assert not world.server.broken()
    operations = world.server.request("GET", "/v1/operations").json()["items"]
    assert all(one["done"] for one in operations)
