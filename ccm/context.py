"""What every controller is given, and what app.py asks of one.

A controller reads from caches that all share, takes its keys from a queue of its own, and writes
only while `may_write` lets it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
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


@dataclass(frozen=True, slots=True)
class Context:
    """The parts that controllers share. may_write: raises LeaseLost when another one leads."""

    settings: settings_.Settings
    cluster: identity.Identity
    transport: transports.Transport
    services: informer.Informer[objects.Service]
    nodes: informer.Informer[objects.Node]
    mirror: mirror.Mirror
    instances: Instances
    recorder: events.Recorder
    clock: clocks.Clock
    rng: random.Random
    metrics: metrics_.Metrics
    may_write: Callable[[], None]


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
