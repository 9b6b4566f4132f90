"""How long a change of the nodes takes to reach every load balancer."""

from __future__ import annotations

from collections.abc import Iterable

from ccm import clock as clocks
from ccm import metrics as metrics_


class NodeSyncs:
    """Times the looks that one change of nodes leads to; changes on top of each other are one."""

    def __init__(self, clock: clocks.Clock, metrics: metrics_.Metrics) -> None:
        self._clock = clock
        self._latency = metrics.node_sync_latency
        self._began_at = 0.0
        self._awaited: set[str] = set()

    def begin(self, keys: Iterable[str]) -> None:
        """Note that all of `keys` are to be looked at."""
        if not self._awaited:
            self._began_at = self._clock.monotonic()
        self._awaited.update(keys)

    def done(self, key: str) -> None:
        """Note that `key` was looked at, however that ended."""
        if key in self._awaited:
            self._awaited.discard(key)
            if not self._awaited:
                self._latency.observe(self._clock.monotonic() - self._began_at)
