"""A whole controller manager in this process, on an API server and a cloud that a test gives it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from ccm import app, metrics, selection, settings
from ccm import clock as clocks
from ccm.cloud import client as clients
from ccm.cloud import connection as connections
from ccm.kube import transport as transports
from tests.fakes.ccm_clock import SwiftClock, until
from tests.fakes.cloud import TOKEN, FakeCloud
from tests.fakes.kubeapi import FakeApiServer

SERVICES = "/api/v1/services"
PLACE = "/api/v1/namespaces/shop/services"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
CLUSTER_UID = "11111111-2222-3333-4444-555555555555"
NO_LEASE = settings.LeaseSettings(enabled=False)
_ENDS_WITHIN_S = 10.0


class Manager:
    """An instance that runs. `running` ends with its exit code."""

    def __init__(
        self, instance: app.Instance, stop: asyncio.Event, numbers: metrics.Metrics
    ) -> None:
        self.instance = instance
        self.stop = stop
        self._numbers = numbers
        self.running = asyncio.create_task(instance.run(stop))

    def cloud_requests(self) -> Counter[str]:
        """Return how many requests of each verb it has sent to the cloud."""
        found: Counter[str] = Counter()
        for metric in self._numbers.cloud_requests.collect():
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    found[sample.labels["verb"]] += int(sample.value)
        return found

    async def ended(self) -> int:
        """Return the exit code, once it has ended. Raises: TimeoutError."""
        return await asyncio.wait_for(asyncio.shield(self.running), _ENDS_WITHIN_S)


@asynccontextmanager
async def managing(
    transport: transports.Transport,
    cloud_url: str,
    *,
    clock: clocks.Clock,
    token: str = TOKEN,
    **changes: Any,
) -> AsyncIterator[Manager]:
    """Run an instance without health port inside the `async with`; `changes`: its settings.

    The transport is closed at the end.
    """
    numbers = metrics.Metrics()
    values: dict[str, Any] = {
        "cloud_url": cloud_url,
        "cloud_token_file": Path("token"),
        "controllers": (selection.SERVICE,),
        "secure_port": 0,
        "reachability_check": False,
        "orphan_grace_s": 1.0,
        "shutdown_grace_s": 2.0,
        "lease": NO_LEASE,
    }
    wanted = settings.Settings(**{**values, **changes})
    client = clients.Client(connections.Connection(cloud_url, lambda: token, numbers))
    instance = app.Instance(wanted, transport, client, clock, numbers)
    manager = Manager(instance, asyncio.Event(), numbers)
    try:
        yield manager
    finally:
        manager.stop.set()
        try:
            await manager.ended()
        finally:
            manager.running.cancel()
            await asyncio.gather(manager.running, return_exceptions=True)
            await client.aclose()
            await transport.close()


class Cloud(Protocol):
    """Where load balancers are, fake or real."""

    url: str

    @property
    def load_balancers(self) -> dict[str, dict[str, Any]]:
        """The documents by name."""


C = TypeVar("C", bound=Cloud)


class Scene(Generic[C]):
    """A cluster's Services on a fake API server and their load balancers in a cloud."""

    def __init__(self, server: FakeApiServer, cloud: C, clock: clocks.Clock) -> None:
        self.server = server
        self.cloud = cloud
        self.clock = clock
        self._made = 0
        server.put("/api/v1/namespaces", "kube-system", {"metadata": {"uid": CLUSTER_UID}})
        address = {"type": "InternalIP", "address": "127.0.0.1"}
        server.put("/api/v1/nodes", "node-1", {"status": {"addresses": [address]}})

    def create(self, name: str) -> None:
        """Create a Service; one of the same name has another UID."""
        self._made += 1
        port = {"name": "http", "port": 8080, "protocol": "TCP", "nodePort": 30000 + self._made}
        meta = {"namespace": "shop", "uid": f"uid-{name}-{self._made}"}
        spec = {"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [port]}
        self.server.put(PLACE, name, {"metadata": meta, "spec": spec})

    def edit(self, name: str, port: int) -> None:
        """Change a Service's port."""
        one = self.server.objects[f"{PLACE}/{name}"]
        ports = [{**one["spec"]["ports"][0], "port": port}]
        self.server.put(PLACE, name, {**one, "spec": {**one["spec"], "ports": ports}})

    def delete(self, name: str) -> None:
        """Delete a Service, which waits for its finalizer."""
        self.server.delete(PLACE, name)

    def lose(self, name: str) -> None:
        """Let a Service vanish, finalizer and all, without an event."""
        self.server.forget_silently(PLACE, name)

    def ports(self) -> dict[str, list[int]]:
        """Return the open ports of each Service that has a load balancer, by its name."""
        return {
            one["labels"]["service"]: [each["port"] for each in one["spec"]["listeners"]]
            for one in self.cloud.load_balancers.values()
        }

    def is_in_step(self, names: set[str]) -> bool:
        """Say whether these Services, and no others, have an address and one load balancer each."""
        found = {
            path.removeprefix(f"{PLACE}/"): one
            for path, one in self.server.objects.items()
            if path.startswith(PLACE)
        }
        wanted = {f"k8s-{one['metadata']['uid']}" for one in found.values()}
        return (
            set(found) == names
            and all(_ingress(one) for one in found.values())
            and set(self.cloud.load_balancers) == wanted
        )

    async def in_step(self, *names: str, seconds: float = 20.0) -> None:
        """Return when it is so. Raises: TimeoutError."""
        await until(lambda: self.is_in_step(set(names)), seconds=seconds)


@asynccontextmanager
async def scene(clock: clocks.Clock | None = None) -> AsyncIterator[Scene[FakeCloud]]:
    """Give a cluster with a node and an empty cloud."""
    async with FakeApiServer().serving() as server, FakeCloud().serving() as cloud:
        yield Scene(server, cloud, clock or SwiftClock())


def _ingress(service: dict[str, Any]) -> list[Any]:
    found: list[Any] = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    return found
