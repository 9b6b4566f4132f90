"""Tells the cloud which Services there are, so that it knows what is left when a cluster is gone.

The list is believed for a while only. That it isn't sent any more is the message: nobody else
can tell the cloud that the cluster was thrown away with its load balancers still there.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Protocol

import structlog

from ccm import clock as clocks
from ccm import errors
from ccm.kube import objects
from ccm.service import ownership

PERIOD_S: Final = 60.0
LEASE_S: Final = 180

_log = structlog.get_logger()


class Sources(Protocol):
    """Where all Services are."""

    def services(self) -> tuple[objects.Service, ...]:
        """Return all Services in the cache."""


class Cloud(Protocol):
    """Who is told."""

    async def put_inventory(
        self, cluster_uid: str, services: Collection[str], lease_s: int
    ) -> None:
        """Say which Services there are. Raises: CloudError."""


class Inventory:
    """The Services that have, or should have, a load balancer of ours, sent again and again."""

    def __init__(
        self, sources: Sources, cloud: Cloud, owner: ownership.Ownership, clock: clocks.Clock
    ) -> None:
        self._sources = sources
        self._cloud = cloud
        self._owner = owner
        self._clock = clock
        self._told = ""

    def services(self) -> list[str]:
        """Return their UIDs; one that is being deleted counts until its load balancer is gone."""
        return sorted(
            one.metadata.uid
            for one in self._sources.services()
            if self._owner.wants(one) or objects.CLEANUP_FINALIZER in one.finalizers
        )

    async def run(self) -> None:
        """Send until cancelled; the caches must be filled before. Raises: LeaseLost."""
        while True:
            await self.step()
            await self._clock.sleep(PERIOD_S)

    async def step(self) -> None:
        """Send once. A cloud that can't take it costs its waste report, nothing else."""
        try:
            await self._cloud.put_inventory(self._owner.cluster.uid, self.services(), LEASE_S)
            self._told = ""
        except errors.CloudError as error:
            say = _log.debug if self._told == str(error) else _log.warning
            say("inventory_not_sent", error=str(error))
            self._told = str(error)
