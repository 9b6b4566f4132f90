"""Everything of the cloud but HTTP and threads: a real database, everything else on strings."""

from __future__ import annotations

import random
from collections.abc import Collection

import msgspec

from fakecloud import model
from fakecloud.billing.events import BillingEvent, Kind
from fakecloud.chaos.engine import Chaos
from fakecloud.chaos.interference import Interference
from fakecloud.domain import addresses, documents
from fakecloud.domain.checks import ProbeResult
from fakecloud.errors import AddressElsewhere
from fakecloud.health.board import Health
from fakecloud.metrics import Metrics
from fakecloud.model import Address, LoadBalancer, ProbeKey, Spec, Target, TargetGroup
from fakecloud.network.allocation import Allocator
from fakecloud.provisioning.provisioner import Provisioner
from fakecloud.requests.load_balancers import LoadBalancers
from fakecloud.requests.wishes import Outcome, Wish
from fakecloud.store import billing_events, events, load_balancers, operations
from fakecloud.store.database import Database
from tests.fakes.clock import FakeClock
from tests.fakes.dataplane import FakeDataPlane, FakeHost

PROJECT = "default"
LEASE_S = 30.0
POOL = addresses.parse_pool("default=loopback:127.77.0.0/29")


class Crashed(BaseException):
    """The process has ended at this point; nothing after it was done."""


def _crash(code: int) -> None:
    raise Crashed(code)


class FakeLink:
    """Addresses of this host; `foreign` ones are another machine's."""

    def __init__(self) -> None:
        self.foreign: set[str] = set()
        self.held: dict[str, tuple[Address, ...]] = {}

    def ensure(self, lb_id: str, addresses: tuple[Address, ...]) -> None:
        """Answer for the addresses."""
        for address in addresses:
            if address.ip in self.foreign:
                raise AddressElsewhere(address.ip)
        self.held[lb_id] = addresses

    def prune(self, lb_id: str, addresses: tuple[Address, ...]) -> None:
        """Answer for no others."""
        self.held[lb_id] = addresses


class FakeProbes:
    """`healthy`: what a probe finds, by port; True where nothing is said."""

    def __init__(self, clock: FakeClock) -> None:
        self.watched: frozenset[ProbeKey] = frozenset()
        self.healthy: dict[int, bool | None] = {}
        self.weights: dict[int, int] = {}
        self._clock = clock

    def watch(self, keys: Collection[ProbeKey]) -> None:
        """Replace the set of what is probed."""
        self.watched = frozenset(keys)

    def result(self, key: ProbeKey) -> ProbeResult:
        """Return the answer of a watched key."""
        found = self.healthy.get(key.port, True) if key in self.watched else None
        reason = "tcp_connected" if found else "timeout"
        return ProbeResult(found, reason, self._clock.now(), self.weights.get(key.port))


def spec(port: int = 8080, *target_ports: int, **other: object) -> Spec:
    """Return a spec with one listener and a target for each port (default: one)."""
    targets = tuple(Target(ip="127.0.9.1", port=p) for p in target_ports or (9000,))
    return Spec(
        listeners=(model.Listener(name="web", protocol="tcp", port=port, target_group="web"),),
        target_groups=(TargetGroup(name="web", targets=targets),),
        **other,  # type: ignore[arg-type]
    )


def wish(of: Spec | None = None, **labels: str) -> Wish:
    """Return a wish for `of` (default: `spec()`) with these labels."""
    return Wish(labels=labels, annotations={}, spec=of or spec())


class SmallCloud:
    """The desk, the provisioner and what they work with. `worker()` makes one more provisioner."""

    published: range = range(0)  # ports of the machine around it

    def __init__(self, url: str, pool: addresses.Pool = POOL) -> None:
        self.clock = FakeClock()
        self.database = Database(url)
        self.database.migrate()
        self.host = FakeHost()
        self.link = FakeLink()
        self.pool = pool
        self.desk = LoadBalancers(self.database, [pool], self.clock)
        self.start()

    def start(self) -> None:
        """Begin a life of the server's process: what was only in memory is gone."""
        self.dataplane = FakeDataPlane(self.host)
        self.health = Health(self.database, self.dataplane, self.clock)
        self.probes = FakeProbes(self.clock)
        self.chaos = Chaos(self.database, self.clock, Metrics())
        self.chaos.refresh()
        self.health.connect(self.probes)
        self.provisioner = self.worker("host-1")

    def restart(self) -> None:
        """Start again on the same database and host, as app.py does."""
        self.dataplane.close()
        self.start()
        living = self.living()
        self.health.register(lb for lb in living if lb.was_active)
        adoption = self.dataplane.adopt({lb.id for lb in living})
        here = adoption.adopted | adoption.restarted
        self.provisioner.recover(
            lb
            for lb in living
            if lb.was_active and not (lb.id in here and self.provisioner.fits(lb))
        )

    def worker(
        self,
        owner: str,
        host: str = "host-1",
        pools: Collection[model.PoolKey] | None = None,
    ) -> Provisioner:
        """Return a provisioner that shares this cloud's database and data plane."""
        return Provisioner(
            self.database,
            self.dataplane,
            self.link,
            self.health,
            self.clock,
            host=host,
            owner=owner,
            lease_s=LEASE_S,
            pools=pools,
            allocator=Allocator([self.pool]),
            rng=random.Random(1),
            hook=Interference(self.database, self.chaos, self.clock, end=_crash),
            published=self.published,
        )

    def put(self, name: str, of: Spec | None = None, **labels: str) -> Outcome:
        """Ask for a load balancer; return what that did."""
        return self.desk.put(PROJECT, name, wish(of, **labels))[1]

    def delete(self, name: str) -> None:
        """Ask for a load balancer to be deleted."""
        self.desk.delete(PROJECT, name)

    def get(self, name: str) -> LoadBalancer:
        """Return a living load balancer."""
        return self.desk.find(PROJECT, name)

    def living(self) -> list[LoadBalancer]:
        """Return all load balancers that aren't deleted."""
        with self.database.read() as connection:
            return load_balancers.living(connection)

    def settle(self, most: int = 50) -> int:
        """Step until nothing is due now; return how many steps worked."""
        for done in range(most):
            if not self.provisioner.step():
                return done
        raise AssertionError(f"still due after {most} steps")

    def active(self, name: str, of: Spec | None = None, **labels: str) -> LoadBalancer:
        """Create a load balancer, let it become active and return it."""
        self.put(name, of, **labels)
        self.settle()
        return self.get(name)

    def events(self) -> list[events.Event]:
        """Return the whole event history."""
        with self.database.read() as connection:
            return events.since(connection, 0, 1_000_000)

    def billed(self) -> list[BillingEvent]:
        """Return the newest billing event of everything that was activated and hasn't ended."""
        with self.database.read() as connection:
            found = billing_events.open(connection).values()
        active = [all for all in found if any(one.kind is Kind.ACTIVATED for one in all)]
        assert all(sum(one.kind is Kind.ACTIVATED for one in all) == 1 for all in active)
        return [all[-1] for all in active]

    def operations(self) -> list[model.Operation]:
        """Return every operation, oldest first."""
        with self.database.read() as connection:
            return operations.page(connection, PROJECT, after="", limit=10_000)

    def history(self, name: str) -> list[str]:
        """Return the states that the event history shows of a load balancer, changes only."""
        states: list[str] = []
        for event in self.events():
            document = msgspec.json.decode(event.object)
            if event.kind == "load_balancer" and document["name"] == name:
                state = document["status"]["state"]
                if states[-1:] != [state]:
                    states.append(state)
        return states

    def replayed(self) -> dict[str, object]:
        """Return the load balancers that a reader of all events knows: id to document."""
        known: dict[str, object] = {}
        for event in self.events():
            if event.kind != "load_balancer":
                continue
            known[event.object_id] = msgspec.json.decode(event.object)
            if event.type == "DELETED":
                del known[event.object_id]
        return known

    def present(self) -> dict[str, object]:
        """Return the living load balancers as documents: id to document."""
        return {
            lb.id: msgspec.json.decode(msgspec.json.encode(documents.load_balancer(lb)))
            for lb in self.living()
        }

    def close(self) -> None:
        """Close the database."""
        self.database.close()
