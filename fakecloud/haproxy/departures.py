"""Servers of a running HAProxy that take nothing new while connections still use them."""

from __future__ import annotations

import msgspec

from fakecloud import errors
from fakecloud.haproxy import changes, config, generation, targets
from fakecloud.haproxy.draining import Pace


class _Departure(msgspec.Struct, frozen=True):
    """A server whose connections may live until `deadline` (monotonic seconds)."""

    backend: config.Backend
    server: targets.Server
    deadline: float


class Departures:
    """Servers on their way out of one generation, silent already.

    One that was removed is deleted when nothing uses it; one that fails its probes or drains
    stays. Both lose their connections when the target group's drain timeout is over.
    Not thread-safe: its owner takes turns.
    """

    def __init__(self) -> None:
        self._pace = Pace()
        self._leaving: dict[str, _Departure] = {}
        self._silent: dict[str, _Departure] = {}

    def clear(self) -> None:
        """Know none: another generation runs."""
        self._leaving, self._silent = {}, {}

    def expect(self, running: config.Config, now: float) -> None:
        """Remember the silent servers of a process that another server has watched so far."""
        for backend in running.backends:
            for server in backend.servers:
                if not server.ready:
                    self._silent[changes.server_id(backend, server)] = _departure(
                        backend, server, now
                    )

    def note(self, step: changes.RuntimeChanges, now: float) -> None:
        """Remember whom `step` removed or silenced just now."""
        for backend, server in step.added:
            self._return(backend, server)
        for backend, before, server in step.changed:
            name = changes.server_id(backend, server)
            if server.ready:
                self._return(backend, server)
            elif before.ready or name in self._leaving:
                self._leaving.pop(name, None)
                self._silent[name] = _departure(backend, server, now)
        for backend, server in step.removed:
            name = changes.server_id(backend, server)
            silent = self._silent.pop(name, None)  # its time runs already
            self._leaving[name] = silent or _departure(backend, server, now)
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

    def see(self, seen: config.Config) -> None:
        """Forget those that the process doesn't have any more."""
        if self._leaving:
            left = {changes.server_id(b, s) for b in seen.backends for s in b.servers}
            self._leaving = {name: kept for name, kept in self._leaving.items() if name in left}

    def tend(
        self, active: generation.Generation, assumed: config.Config, now: float
    ) -> float | None:
        """Delete and cut those that are due; return when to look again, if ever.

        assumed: what `active` runs, but for its servers.
        """
        over = {name: one for name, one in self._silent.items() if now >= one.deadline}
        told = [changes.cut(one.backend, one.server) for one in over.values()]
        for one in self._leaving.values():
            if now >= one.deadline:
                told.append(changes.cut(one.backend, one.server))
            told.append(changes.delete(one.backend, one.server))
        try:
            active.runtime.execute(told)
            seen = active.observe(assumed) if self._leaving else assumed
        except errors.Transient:
            return self._pace.next(now)
        self._silent = {name: one for name, one in self._silent.items() if name not in over}
        self.see(seen)
        due = [one.deadline for one in self._silent.values()]
        if self._leaving:
            due.append(self._pace.next(now))
        return min(due, default=None)

    def __bool__(self) -> bool:
        """Return whether any is left."""
        return bool(self._leaving or self._silent)

    def _return(self, backend: config.Backend, server: targets.Server) -> None:
        for known in (self._leaving, self._silent):
            known.pop(changes.server_id(backend, server), None)


def _departure(backend: config.Backend, server: targets.Server, now: float) -> _Departure:
    return _Departure(backend, server, now + backend.drain_timeout_s)
