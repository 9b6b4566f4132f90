"""The real server with the data plane off, beside an empty handler: what `bench-api` measures.

`python -m tests.bench.api_server STATE_DIR DATABASE_URL COUNT` fills an empty database with COUNT
load balancers, serves, and prints the URL. `/empty` is a bare FastAPI application on the same
uvicorn; `/changes` makes changes and says when each was committed.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from fakecloud import app, logs, model, serving, settings
from fakecloud.clock import SystemClock
from fakecloud.dataplane import premises
from fakecloud.domain.addresses import parse_pool
from fakecloud.model import Desired, ProbeKey, ProbeWeight, Spec, State
from fakecloud.requests.load_balancers import LoadBalancers
from fakecloud.requests.wishes import Wish
from fakecloud.store.database import Database
from fakecloud.supervision.processes import Adoption
from fakecloud.tables import cloud as tables

POOL = "default=loopback:127.80.0.0/15"
PER_COMMIT = 5


class NoDataPlane:
    """Everything is done at once, and nothing is."""

    def apply(self, desired: Desired) -> None: ...

    def set_down(
        self,
        lb_id: str,
        down: frozenset[ProbeKey],
        weights: frozenset[ProbeWeight] = frozenset(),
    ) -> None: ...

    def remove(self, lb_id: str, epoch: int) -> None: ...

    def adopt(self, known: Collection[str]) -> Adoption:
        """Run everything already."""
        return Adoption(adopted=frozenset(known))

    def serving(self, lb_id: str) -> bool:
        """Serve whatever it is."""
        return True

    def running(self) -> frozenset[str]:
        """Run nothing that anybody could see."""
        return frozenset()

    def counted(self) -> list[str]:
        """Count nothing."""
        return []

    def counters(self, lb_id: str) -> None: ...

    def close(self) -> None: ...


def spec(port: int = 80) -> dict[str, Any]:
    """Return the document of a load balancer without targets: nothing is probed."""
    return {
        "listeners": [
            {"name": name, "protocol": "tcp", "port": port + n, "target_group": name}
            for n, name in enumerate(("http", "metrics"))
        ],
        "target_groups": [{"name": name, "targets": []} for name in ("http", "metrics")],
    }


def labels(number: int) -> dict[str, str]:
    """Return labels as a cluster's controller sets them."""
    return {"cluster": "bench", "namespace": f"team-{number % 20}", "service": f"web-{number}"}


def fill(url: str, count: int) -> None:
    """Make the tables and `count` ACTIVE load balancers: one by the real path, copies of it."""
    database = Database(url)
    database.migrate()
    wish = Wish(labels=labels(0), annotations={}, spec=msgspec.convert(spec(), Spec))
    LoadBalancers(database, [parse_pool(POOL)], SystemClock()).put("default", "lb-0", wish)
    table = tables.load_balancer
    with database.write() as connection:
        connection.execute(
            sqlalchemy.update(table).values(
                state=State.ACTIVE.value, observed_generation=1, due_at=None
            )
        )
        first = dict(connection.execute(sqlalchemy.select(table)).mappings().one())
        del first["pk"]
        copies = []
        for n in range(1, count):
            ip = f"127.80.{100 + n // 250}.{n % 250 + 1}"
            addresses = [{**first["addresses"][0], "ip": ip}]
            copy = {"id": f"{first['id'][:-6]}{n:06}", "name": f"lb-{n}", "labels": labels(n)}
            copies.append({**first, **copy, "addresses": addresses})
        for start in range(0, len(copies), 1000):
            connection.execute(sqlalchemy.insert(table), copies[start : start + 1000])
    database.close()


class Front:
    """Sends what is under `/bench` to the bare application, all else to the cloud."""

    def __init__(self, cloud: ASGIApp, bare: ASGIApp) -> None:
        self._cloud = cloud
        self._bare = bare

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on."""
        ours = scope["type"] == "http" and scope["path"].startswith("/bench/")
        await (self._bare if ours else self._cloud)(scope, receive, send)


def bare(cloud: FastAPI) -> FastAPI:
    """Return the application with the empty handler."""
    made = FastAPI(openapi_url=None)

    @made.get("/bench/empty")
    async def empty() -> dict[str, str]:
        return {}

    @made.post("/bench/changes")
    async def changes(count: int, per_second: float) -> list[tuple[int, float]]:
        return await asyncio.to_thread(_change, cloud, count, per_second)

    return made


def _change(cloud: FastAPI, count: int, per_second: float) -> list[tuple[int, float]]:
    """Relabel load balancers, one event each; return resource versions and moments of commit."""
    parts = cloud.state.cloud
    wanted = msgspec.convert(spec(), Spec)
    found: list[tuple[int, float]] = []
    began = time.monotonic()
    for n in range(0, count, PER_COMMIT):
        wait_s = began + n / per_second - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        versions = []
        with parts.database.write():
            for number in range(n, n + PER_COMMIT):
                wish = Wish(
                    labels=labels(number) | {"at": f"{began:.6f}"}, annotations={}, spec=wanted
                )
                changed: model.LoadBalancer
                changed, _ = parts.load_balancers.put("default", f"lb-{number % 1000}", wish)
                versions.append(changed.resource_version)
        committed = time.monotonic()
        found += [(version, committed) for version in versions]
    return found


def main() -> None:
    """Fill, then serve until SIGTERM."""
    directory, url, count = sys.argv[1:]
    Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    logs.configure("info")  # as the program does; a line on our stdout would fill a pipe in the end
    fill(url, int(count))
    vars(premises)["data_plane"] = lambda *_args: NoDataPlane()  # app.py's only way to one
    running = app.running

    @contextmanager
    def with_front(wanted: settings.Settings) -> Iterator[Any]:
        with running(wanted) as cloud:
            assert isinstance(cloud.state.cloud.inspector, NoDataPlane), "a real data plane"
            front: Any = Front(cloud, bare(cloud))
            front.state = cloud.state
            yield front

    vars(app)["running"] = with_front
    serving.serve(
        settings.load(
            listen="127.0.0.1:0",
            state_dir=Path(directory),
            runtime_dir=Path(directory),
            database=url,
            pool=(POOL,),
        )
    )


if __name__ == "__main__":
    main()
