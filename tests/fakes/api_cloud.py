"""The HTTP API over a small cloud with several hosts: no sockets, no waiting, any kind of luck."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread, get_ident
from typing import Any

import msgspec
from fastapi import FastAPI

from fakecloud.access.quotas import STANDARD, Quotas
from fakecloud.access.tokens import Authority
from fakecloud.accounting.costs import Costs
from fakecloud.accounting.invoices import Invoices
from fakecloud.accounting.ledger import Ledger
from fakecloud.accounting.spending import Spending
from fakecloud.accounting.webhooks import Undelivered
from fakecloud.api import application
from fakecloud.api.context import Cloud
from fakecloud.api.writer import Writer
from fakecloud.billing import books
from fakecloud.chaos.engine import Chaos
from fakecloud.chaos.interference import Interference
from fakecloud.domain import addresses, scopes
from fakecloud.domain.business_time import BusinessClock
from fakecloud.domain.hooks import Point
from fakecloud.domain.sealing import Seal
from fakecloud.health.board import Health
from fakecloud.hosts import Hosts
from fakecloud.insight import Insight
from fakecloud.metering import Metering
from fakecloud.metrics import Metrics
from fakecloud.model import Counters, Desired, LoadBalancer
from fakecloud.network.pools import PooledAddresses
from fakecloud.provisioning.provisioner import Provisioner
from fakecloud.requests.actions import Actions
from fakecloud.requests.certificates import Certificates
from fakecloud.requests.instances import Instances
from fakecloud.requests.load_balancers import LoadBalancers
from fakecloud.requests.networks import Networks, Routes
from fakecloud.requests.reservations import Reservations
from fakecloud.requests.snapshots import Snapshots
from fakecloud.store import load_balancers as rows
from fakecloud.store.database import Database
from fakecloud.store.readiness import Readiness
from fakecloud.timekeeper import Timekeeper
from fakecloud.watch.hub import Hub, Watcher
from tests.fakes.clock import FakeClock
from tests.fakes.dataplane import FakeDataPlane, FakeHost
from tests.fakes.small_cloud import LEASE_S, POOL, Crashed, FakeProbes

DEAD_AFTER_S = 30.0
HANDOFF_S = 20.0
KINDS = frozenset({"load_balancer", "operation", "instance"})


class Answer(msgspec.Struct, frozen=True):
    """What came back: status, headers by lower-case name, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as a value."""
        return json.loads(self.body)


class _Connection:
    """One request of a client, as the server sees it. `transport.abort` cuts it."""

    def __init__(self, body: bytes) -> None:
        self._body: list[bytes] = [body]
        self.transport = self
        self.aborted = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []

    def abort(self) -> None:
        """Lose everything that wasn't sent."""
        self.aborted = True

    async def receive(self) -> dict[str, Any]:
        """Give the request's body once, then the end."""
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        if not self.aborted:
            await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        """Take a part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode().lower(): v.decode() for k, v in message["headers"]}
        else:
            self.chunks.append(message.get("body", b""))


class Luck:
    """A hook that lets a worker die or sleep at a point; otherwise what faults say happens."""

    def __init__(self, faults: Interference) -> None:
        self._faults = faults
        self.plans: dict[int, tuple[Point, Callable[[], None]]] = {}

    def at(self, point: Point, lb: LoadBalancer) -> None:
        """Do what is planned for this thread."""
        self._faults.at(point, lb)
        planned = self.plans.get(get_ident())
        if planned is not None and planned[0] is point:
            del self.plans[get_ident()]
            planned[1]()

    def spoils_commit(self, lb: LoadBalancer) -> bool:
        """Say whether something is planned before this commit."""
        planned = self.plans.get(get_ident())
        mine = planned is not None and planned[0] is Point.PRE_COMMIT
        return mine or self._faults.spoils_commit(lb)

    def wanted(self, lb: LoadBalancer, desired: Desired) -> Desired:
        """Return what faults make of it."""
        return self._faults.wanted(lb, desired)

    def forgets(self, lb: LoadBalancer) -> bool:
        """Say what faults say."""
        return self._faults.forgets(lb)


def die() -> None:
    """End the process here."""
    raise Crashed(9)


class Sleeper:
    """A worker that sleeps at a point of its step until it is woken or killed."""

    def __init__(self, node: Node, point: Point) -> None:
        self._stopped = Event()
        self._go = Event()
        self._killed = False
        self.failure: BaseException | None = None
        self._thread = Thread(target=self._run, args=(node, point), daemon=True)
        self._thread.start()
        assert self._stopped.wait(HANDOFF_S), "a worker neither stopped nor ended"

    @property
    def asleep(self) -> bool:
        """Say whether it got to its point and hasn't ended."""
        return self._thread.is_alive()

    def wake(self, *, kill: bool = False) -> None:
        """Let it go on to its end, or end here."""
        self._killed = kill
        self._go.set()
        self._thread.join(HANDOFF_S)
        assert not self._thread.is_alive(), "a worker hangs"
        if self.failure is not None and not kill:
            raise self.failure

    def _sleep(self) -> None:
        self._stopped.set()
        assert self._go.wait(HANDOFF_S * 10)
        if self._killed:
            die()

    def _run(self, node: Node, point: Point) -> None:
        node.luck.plans[get_ident()] = (point, self._sleep)
        try:
            node.provisioner.step()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.failure = error
        finally:
            node.luck.plans.pop(get_ident(), None)
            self._thread_ended()

    def _thread_ended(self) -> None:
        self._stopped.set()


class Node:
    """A host with its processes. `crash` and `start` make lives of its server."""

    def __init__(self, cloud: ApiCloud, name: str) -> None:
        self._cloud = cloud
        self.name = name
        self.host = FakeHost()
        self.alive = False
        self.sleepers: list[Sleeper] = []
        self.start()

    def start(self) -> None:
        """Begin a life of the server, as app.py does."""
        cloud = self._cloud
        self.dataplane = FakeDataPlane(self.host)
        self.health = Health(cloud.database, self.dataplane, cloud.clock)
        self.probes = FakeProbes(cloud.system)
        self.health.connect(self.probes)
        self.luck = Luck(Interference(cloud.database, cloud.chaos, cloud.clock, end=_ended))
        self.me = Hosts(
            cloud.database,
            cloud.clock,
            self.name,
            f"identity-{self.name}",
            ["default"],
            dead_after_s=DEAD_AFTER_S,
        )
        self.provisioner = Provisioner(
            cloud.database,
            self.dataplane,
            PooledAddresses([cloud.pool], {}, cloud.clock),
            self.health,
            cloud.clock,
            host=self.name,
            owner=self.name,
            lease_s=LEASE_S,
            rng=random.Random(1),
            hook=self.luck,
        )
        self.me.register()
        living = [lb for lb in cloud.living() if lb.host == self.name]
        self.health.register(lb for lb in living if lb.was_active)
        adoption = self.dataplane.adopt({lb.id for lb in living})
        here = adoption.adopted | adoption.restarted
        self.provisioner.hold(here)
        self.provisioner.recover([lb for lb in living if lb.was_active and lb.id not in here])
        self.alive = True

    def crash(self, *, disk_lost: bool = False) -> None:
        """End every process but the load balancers; or lose those and all files as well."""
        for sleeper in self.sleepers:
            sleeper.wake(kill=True)
        self.sleepers.clear()
        self.dataplane.close()
        self.alive = False
        if disk_lost:
            for of_host in (self.host.desired, self.host.running):
                of_host.clear()
            self.host.epochs.clear()

    def step(self, point: Point | None = None) -> bool:
        """Do one step; at `point` the process ends, and a new one starts."""
        if point is not None:
            self.luck.plans[get_ident()] = (point, die)
        try:
            return self.provisioner.step()
        except Crashed:
            self._cloud.restart(self)
            return True
        finally:
            self.luck.plans.pop(get_ident(), None)

    def fall_asleep(self, point: Point) -> None:
        """Let a worker begin and sleep at `point`, if it gets there."""
        sleeper = Sleeper(self, point)
        if sleeper.asleep:
            self.sleepers.append(sleeper)
        elif isinstance(sleeper.failure, Crashed):
            self._cloud.restart(self)
        elif sleeper.failure is not None:
            raise sleeper.failure

    def wake(self) -> None:
        """Let who fell asleep first go on to the end of its step."""
        try:
            self.sleepers.pop(0).wake()
        except Crashed:
            self._cloud.restart(self)

    def beat(self) -> None:
        """Do a turn of the heartbeat loop."""
        self.me.beat()
        self.provisioner.drop_moved()
        self.me.sweep()


def _ended(code: int) -> None:
    raise Crashed(code)


class _Inspector:
    """A look at what the first host runs."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def running(self) -> frozenset[str]:
        """Return what is run here."""
        return frozenset(self._node.host.desired)

    def configuration(self, lb_id: str) -> str | None:
        """Return nothing: there is no file."""
        return None

    def log_tail(self, lb_id: str, most: int) -> list[str]:
        """Return nothing: there is no log."""
        return []

    def counters(self, lb_id: str) -> list[Counters] | None:
        """Return nothing: no traffic flows."""
        return None

    def counted(self) -> list[str]:
        """Return nothing: no traffic flows."""
        return []

    def forget_counters(self, lb_id: str, told: list[Counters]) -> None:
        """Do nothing."""


class FakePost:
    """Other people's servers: they answer what `answers` says, then 200."""

    def __init__(self) -> None:
        self.answers: list[int | str] = []
        self.sent: list[tuple[str, dict[str, str], bytes]] = []

    def send(self, url: str, headers: dict[str, str], body: bytes) -> int:
        """Take a request; a text among the answers is why there is none."""
        self.sent.append((url, headers, body))
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, str):
            raise Undelivered(answer)
        return answer


class ApiCloud:
    """Everything of the cloud but sockets and its own threads."""

    def __init__(self, url: str, hosts: int = 1, pool: addresses.Pool = POOL) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._secrets = Path(self._folder.name)
        self.system = FakeClock()
        self.database = Database(url)
        self.database.migrate()
        self.pool = pool
        self.clock = BusinessClock(self.system)
        self.timekeeper = Timekeeper(self.database, self.clock)
        self.quotas = Quotas(STANDARD)
        self.chaos = Chaos(self.database, self.clock, Metrics(), self.quotas)
        self._runner = asyncio.Runner()
        self.hub = Hub(self.database, max_watches=100)
        self.nodes = [Node(self, f"host-{number + 1}") for number in range(hosts)]
        authority = Authority(self.database, self.clock, self.quotas)
        self.token = authority.create("default", "test", scopes.ALL)[1]
        # The hub is another one after each restart.
        self.readiness = Readiness(self.database, lambda: None)
        self.database.on_commit(lambda: self.hub.notify())  # noqa: PLW0108
        self.ledger = Ledger(self.database, self.clock, books.load("aws-nlb-us-east-1"))
        self.ledger.start()
        self.post = FakePost()
        self.spending = Spending(
            self.database,
            Costs(self.database, self.ledger),
            self.clock,
            seal=Seal(self._secrets / "certificate.key"),
            post=self.post,
        )
        self._start_api()

    def _insight(self) -> Insight:
        look = _Inspector(self.nodes[0])
        metering = Metering(self.database, look, self.clock, host="host-1", share=False)
        return Insight(self.database, look, metering, self.clock, "host-1")

    def _start_api(self) -> None:
        self.chaos.refresh()
        self.hub = Hub(self.database, max_watches=100)
        self.replica: dict[str, Any] = {}
        self.watcher = Watcher("default", KINDS, 0)
        self._run(self._watch_from(0))
        self.app = self._application()

    def _application(self) -> FastAPI:
        balancers = LoadBalancers(
            self.database, [self.pool], self.clock, quotas=self.quotas, profile="instant"
        )
        return application.create(
            Cloud(
                database=self.database,
                writer=Writer(self.database, balancers),
                load_balancers=balancers,
                hub=self.hub,
                authority=Authority(self.database, self.clock, self.quotas),
                costs=Costs(self.database, self.ledger),
                invoices=Invoices(self.database, self.ledger, self.clock),
                spending=self.spending,
                metrics=Metrics(),
                clock=self.clock,
                timekeeper=self.timekeeper,
                profile="instant",
                host="host-1",
                chaos=self.chaos,
                actions=Actions(self.database, self.clock),
                reservations=Reservations(self.database, [self.pool], self.clock, self.quotas),
                instances=Instances(self.database, self.clock, self.quotas),
                networks=Networks(self.database, (), self.clock, self.quotas),
                routes=Routes(self.database, self.clock, self.quotas, lambda: None),
                certificates=Certificates(
                    self.database,
                    self.clock,
                    self.quotas,
                    Seal(self._secrets / "certificate.key"),
                ),
                snapshots=Snapshots(self.database, None, self.clock),  # type: ignore[arg-type]
                inspector=_Inspector(self.nodes[0]),
                insight=self._insight(),
                readiness=self.readiness,
                quotas=self.quotas,
                loopback_only=True,
            )
        )

    def restart(self, node: Node, *, disk_lost: bool = False) -> None:
        """Let a server crash, and start again."""
        node.crash(disk_lost=disk_lost)
        node.start()
        if node is self.nodes[0]:
            self._start_api()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        **headers: str,
    ) -> Answer | None:
        """Send a request; None when its answer was lost."""
        sent = b"" if body is None else json.dumps(body).encode()
        lines = {"authorization": f"Bearer {token or self.token}", "host": "cloud"}
        if body is not None:
            lines |= {"content-type": "application/json", "content-length": str(len(sent))}
        lines |= {name.replace("_", "-"): value for name, value in headers.items()}
        route, _, query = path.partition("?")
        connection = _Connection(sent)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "server": ("cloud", 80),
            "client": ("127.0.0.1", 1),
            "root_path": "",
            "method": method,
            "path": route,
            "raw_path": route.encode(),
            "query_string": query.encode(),
            "headers": [(k.encode(), v.encode()) for k, v in lines.items()],
        }
        self._run(self._served(scope, connection))
        if connection.aborted:
            return None
        return Answer(connection.status, connection.headers, b"".join(connection.chunks))

    async def _served(self, scope: dict[str, Any], connection: _Connection) -> None:
        await self.hub.step()  # as its own task does after every commit
        await self.app(scope, connection.receive, connection.send)  # type: ignore[arg-type]

    def list(self) -> dict[str, Any]:
        """Return the load balancers of the API's list: id to document."""
        answer = self.request("GET", "/v1/load-balancers?page_size=1000")
        assert answer is not None
        assert answer.status == 200, answer
        return {one["status"]["id"]: one for one in answer.json()["items"]}

    def follow(self) -> dict[str, Any]:
        """Take what the watch brought; return the load balancers that its reader knows."""
        self._run(self.hub.step())
        frames = list(self.watcher.queue)
        self.watcher.queue.clear()
        assert not self.watcher.overrun
        self._take(frames)
        return {id: one for id, one in self.replica.items() if id.startswith("lb_")}

    def reconnect(self) -> None:
        """Break the watch and go on from where it was."""
        since = self.watcher.seen
        self.hub._watchers.discard(self.watcher)
        self._run(self._watch_from(since))

    async def _watch_from(self, since: int) -> None:
        self.watcher = Watcher("default", KINDS, since)
        self.hub._watchers.add(self.watcher)
        self._take(await self.hub.history(self.watcher, since))

    def _take(self, frames: Any) -> None:
        for frame in frames:
            document = json.loads(frame.text)["object"]
            if frame.type == "ADDED":
                assert frame.object_id not in self.replica, "added twice"
            else:
                assert frame.object_id in self.replica, f"{frame.type} of something unknown"
            self.replica[frame.object_id] = document
            if frame.type == "DELETED":
                del self.replica[frame.object_id]

    def living(self) -> list[LoadBalancer]:
        """Return all load balancers that aren't deleted."""
        with self.database.read() as connection:
            return rows.living(connection)

    def advance(self, seconds: float) -> None:
        """Let time pass, and every host that lives say so."""
        self.system.advance(seconds)
        for node in self.nodes:
            if node.alive:
                node.beat()

    def close(self) -> None:
        """End everything."""
        for node in self.nodes:
            node.crash()
        self._runner.close()
        self.database.close()
        self._folder.cleanup()

    def _run(self, coroutine: Any) -> Any:
        return self._runner.run(coroutine)
