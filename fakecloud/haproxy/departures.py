"""Servers that left a running HAProxy's configuration while connections still use them."""

from __future__ import annotations

import msgspec

from fakecloud import errors
from fakecloud.haproxy import changes, config, generation
from fakecloud.haproxy.draining import Pace


class Departures:
    """Servers on their way out of one generation: silent already, deleted when nothing uses them.

    Not thread-safe: its owner takes turns.
    """

    def __init__(self) -> None:
        self._pace = Pace()
        self._leaving: dict[str, tuple[config.Backend, config.Server, float]] = {}

    def clear(self) -> None:
        """Know none: another generation runs."""
        self._leaving = {}

    def note(self, step: changes.RuntimeChanges, deadline: float) -> None:
        """Remember what `step` removed; connections may use it until `deadline`."""
        back = [*step.added, *((backend, server) for backend, server, _ in step.changed)]
        for backend, server in back:
            self._leaving.pop(changes.server_id(backend, server), None)
        for backend, server in step.removed:
            self._leaving[changes.server_id(backend, server)] = (backend, server, deadline)
        if step.removed:
            self._pace.again()

    def besides(self, step: changes.RuntimeChanges) -> changes.RuntimeChanges:
        """Return `step` without what is under way: a server that leaves, and is silent already."""
        removed = tuple(
            (backend, server)
            for backend, server in step.removed
            if server.ready or changes.server_id(backend, server) not in self._leaving
        )
        return msgspec.structs.replace(step, removed=removed)

    def tend(self, active: generation.Generation, assumed: config.Config, now: float) -> float:
        """Delete those that no connection uses, or have had their time; return when to look again.

        assumed: what `active` runs, but for its servers.
        """
        told = []
        for backend, server, deadline in self._leaving.values():
            if now >= deadline:
                told.append(changes.cut(backend, server))
            told.append(changes.delete(backend, server))
        try:
            active.runtime.execute(told)
            seen = active.observe(assumed)
        except errors.Transient:
            return self._pace.next(now)
        left = {changes.server_id(b, s) for b in seen.backends for s in b.servers}
        self._leaving = {name: kept for name, kept in self._leaving.items() if name in left}
        return self._pace.next(now)

    def __bool__(self) -> bool:
        """Return whether any is left."""
        return bool(self._leaving)
