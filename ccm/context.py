"""What every controller is given, and what app.py asks of one.

A controller reads from caches that all share, takes its keys from a queue of its own, and writes
only while `may_write` lets it.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ccm import clock as clocks
from ccm import identity
from ccm import metrics as metrics_
from ccm import settings as settings_
from ccm.cloud import documents, mirror
from ccm.kube import events, informer, objects
from ccm.kube import transport as transports


class Instances(Protocol):
    """The cloud's machines."""

    async def instance(self, name: str) -> documents.Instance | None:
        """Return the instance of that name or id, None if there is none. Raises: CloudError."""


class Prices(Protocol):
    """The cloud's price list."""

    async def rates(self) -> documents.Rates:
        """Return what load balancers cost in an hour. Raises: CloudError."""


class Routes(Protocol):
    """The cloud's networks and routes. Raises: CloudError."""

    async def routes(self) -> tuple[documents.Route, ...]:
        """Return all routes of the project."""

    async def put_network(
        self, name: str, ranges: Sequence[str], labels: dict[str, str], fence: str
    ) -> None:
        """Create the network, or change its ranges."""

    async def put_route(
        self, name: str, document: documents.RouteDocument, fence: str
    ) -> documents.Route:
        """Create the route or lead it elsewhere; return it as it is now."""

    async def delete_route(self, name: str, fence: str) -> None:
        """Delete the route; none is fine."""

    def watch(self, since: str | None, kinds: str) -> AsyncIterator[mirror.FrameLike]:
        """Yield OPEN, then frames of `kinds`; None: what there is first."""


@dataclass(frozen=True, slots=True)
class Context:
    """The parts that controllers share.

    may_write: raises LeaseLost when another one leads; fence: goes with every write to the cloud.
    """

    settings: settings_.Settings
    cluster: identity.Identity
    transport: transports.Transport
    services: informer.Informer[objects.Service]
    nodes: informer.Informer[objects.Node]
    mirror: mirror.Mirror
    instances: Instances
    routes: Routes
    prices: Prices
    recorder: events.Recorder
    clock: clocks.Clock
    rng: random.Random
    metrics: metrics_.Metrics
    may_write: Callable[[], None]
    fence: Callable[[], str]


class Controller(Protocol):
    """One controller while this instance leads; made anew for each term."""

    @property
    def name(self) -> str:
        """Return upstream's name of it, e.g. service-lb-controller."""

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return what runs from the start, before the caches are filled, until cancelled."""

    async def work(self) -> None:
        """Work until shut_down(); Services and Nodes are known. Raises: LeaseLost."""

    def shut_down(self) -> None:
        """Take nothing new; work() returns when what is in hand is finished."""

    def waiting(self) -> str:
        """Return what is still to come before it can work, "" if nothing is."""

    def problem(self) -> str:
        """Return why a restart would help, "" if nothing is stuck."""
