"""A look into a running load balancer, whichever host runs it.

Its own host is asked when that is this one; else the store has what that host saw last.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

import msgspec

from fakecloud import errors
from fakecloud.clock import Clock, rfc3339
from fakecloud.metering import Metering, Meters
from fakecloud.model import Counters, LoadBalancer
from fakecloud.store import traffic as rows
from fakecloud.store.database import Database


class Source(Meters, Protocol):
    """A look at the data plane of this host. Raises: Transient when it doesn't answer."""

    def running(self) -> frozenset[str]:
        """Return the ids of the load balancers that this host runs now."""


class Insight:
    """Statistics, configuration and log of load balancers."""

    def __init__(
        self, database: Database, source: Source, metering: Metering, clock: Clock, host: str
    ) -> None:
        """Ask `source` for what runs on `host`, the store for all others."""
        self._database = database
        self._source = source
        self._metering = metering
        self._clock = clock
        self._host = host

    def stats(self, lb: LoadBalancer) -> dict[str, Any]:
        """Return the counters of listeners, target groups and targets, with shares and health.

        Raises: Unavailable when HAProxy doesn't answer.
        """
        if self._is_here(lb):
            try:
                counters = self._source.counters(lb.id) or []
            except errors.Transient as error:
                raise errors.Unavailable(
                    f"the data plane does not answer: {error.message}"
                ) from None
            reading = self._metering.latest().get(lb.id)
            recent = {} if reading is None else reading.recent
            return self._document(lb, self._clock.wall(), counters, recent)
        view = self._view(lb)
        return self._document(lb, view.at if view else None, list(view.counters) if view else [])

    def configuration(self, lb: LoadBalancer) -> str:
        """Return what HAProxy was given, without secrets. Raises: NotFound."""
        if self._is_here(lb):
            text = self._source.configuration(lb.id)
        else:
            view = self._view(lb)
            text = view.configuration if view else None
        if not text:
            raise errors.NotFound(f"{lb.name} does not run now; it is {lb.state.value}")
        return text

    def log(self, lb: LoadBalancer, most: int) -> dict[str, Any]:
        """Return the last lines of the log."""
        if self._is_here(lb):
            lines, at = self._source.log_tail(lb.id, most), self._clock.wall()
            return {"name": lb.name, "host": lb.host, "at": rfc3339(at), "lines": lines}
        view = self._view(lb)
        lines = list(view.log[-most:]) if view else []
        moment = rfc3339(view.at) if view else None
        return {"name": lb.name, "host": lb.host, "at": moment, "lines": lines}

    def _is_here(self, lb: LoadBalancer) -> bool:
        return lb.host in (None, self._host)

    def _view(self, lb: LoadBalancer) -> rows.View | None:
        with self._database.read() as connection:
            view = rows.view(connection, lb.id)
        return view if view is not None and view.host == lb.host else None

    def _document(
        self,
        lb: LoadBalancer,
        at: datetime | None,
        counters: list[Counters],
        recent: dict[str, int] | None = None,
    ) -> dict[str, Any]:
        here = self._is_here(lb)
        given = sum(one.connections_total for one in counters if one.kind == "target")
        lately = sum(recent.values()) if recent else 0
        health = {f"{t.ip} port {t.port}": t.health for t in lb.targets}

        def shown(one: Counters) -> dict[str, Any]:
            document: dict[str, Any] = msgspec.to_builtins(one)
            if one.kind == "target":
                document["health"] = health.get(one.name, "unknown")
                document["share"] = _share(one.connections_total, given)
                document["recent_share"] = _share((recent or {}).get(one.name, 0), lately)
            return document

        return {
            "name": lb.name,
            "host": lb.host,
            "at": None if at is None else rfc3339(at),
            "running": lb.id in self._source.running() if here else bool(counters),
            "counters": [shown(one) for one in counters],
        }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
