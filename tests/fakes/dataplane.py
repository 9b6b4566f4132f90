"""A data plane in memory: the same promises as the real one, checked by the same suite."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from threading import RLock

import msgspec

from fakecloud import errors, model
from fakecloud.domain import fields
from fakecloud.haproxy import changes, config
from fakecloud.supervision.processes import Adoption


@dataclass
class FakeHost:
    """What outlives a data plane: the machine with its processes and directories."""

    desired: dict[str, model.Desired] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    running: dict[str, config.Config] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    foreign: set[tuple[str, int]] = field(default_factory=set)
    remembered: dict[tuple[str, str, str], str] = field(default_factory=dict)
    turn: int = 0

    def reach(self, ip: str, port: int, client: str = "127.0.0.1") -> str:
        """Return what a client meets: "ip:port" of the target, "closed" or "refused"."""
        for lb_id, running in self.running.items():
            for frontend in running.frontends:
                if (ip, port) in frontend.binds:
                    return self._choose(lb_id, running, frontend, client)
        return "refused"

    def _choose(
        self, lb_id: str, running: config.Config, frontend: config.Frontend, client: str
    ) -> str:
        networks = [ip_network(network) for network in running.source_ranges]
        backend = next(b for b in running.backends if b.name == frontend.backend)
        serving = [s for s in backend.servers if s.ready and s.weight]
        if not serving or not any(ip_address(client) in network for network in networks):
            return "closed"
        self.turn += 1
        chosen = str(serving[self.turn % len(serving)].address)
        if backend.affinity_s is not None:
            memory = (lb_id, backend.group, client)
            if self.remembered.get(memory) in [str(s.address) for s in serving]:
                chosen = self.remembered[memory]
            self.remembered[memory] = chosen
        return chosen


class FakeDataPlane:
    """`calls`: every call in order; `fail_next`: raised one by one by the next `apply`s."""

    def __init__(
        self, host: FakeHost | None = None, *, on_crash: Callable[[str], None] | None = None
    ) -> None:
        self.host = host or FakeHost()
        self.calls: list[tuple[object, ...]] = []
        self.fail_next: list[Exception] = []
        self._on_crash = on_crash
        self._known: set[str] = set()
        self._removed: dict[str, int] = {}
        self._lock = RLock()

    def apply(self, desired: model.Desired) -> None:
        """Make the load balancer equal to `desired`."""
        with self._lock:
            self.calls.append(("apply", desired))
            self._fence(desired.lb_id, desired.epoch)
            if self.fail_next:
                raise self.fail_next.pop(0)
            wanted = config.build(desired, connections=10_000)
            self._refuse_taken(desired.lb_id, wanted)
            self.host.desired[desired.lb_id] = desired
            self._known.add(desired.lb_id)
            self._run(desired.lb_id, wanted)

    def set_down(
        self,
        lb_id: str,
        down: frozenset[model.ProbeKey],
        weights: frozenset[model.ProbeWeight] = frozenset(),
    ) -> None:
        """Let targets whose probe is in `down` take no new connection."""
        with self._lock:
            self.calls.append(("set_down", lb_id, down))
            if lb_id not in self._known:
                return
            desired = self.host.desired[lb_id]
            keys = fields.probe_keys(desired.spec)
            ours = frozenset(one for one in weights if one.key in keys)
            desired = msgspec.structs.replace(desired, down=down & keys, weights=ours)
            self.host.desired[lb_id] = desired
            self._run(lb_id, config.build(desired, connections=10_000))

    def remove(self, lb_id: str, epoch: int) -> None:
        """End the load balancer and forget it."""
        with self._lock:
            self.calls.append(("remove", lb_id, epoch))
            if lb_id in self.host.epochs:
                self._fence(lb_id, epoch)
            self._forget(lb_id)
            self._removed[lb_id] = max(epoch, self._removed.get(lb_id, 0))

    def adopt(self, known: Collection[str]) -> Adoption:
        """Take back what an earlier data plane left on the host."""
        with self._lock:
            self.calls.append(("adopt", frozenset(known)))
            left = set(self.host.desired)
            self._known = left & set(known)
            serving = {lb_id for lb_id in self._known if self.serving(lb_id)}
            for lb_id in self._known - serving:
                self._run(lb_id, config.build(self.host.desired[lb_id], connections=10_000))
            for lb_id in left - self._known:
                self._forget(lb_id)
            return Adoption(
                adopted=frozenset(serving),
                restarted=frozenset(self._known - serving),
                orphans_removed=frozenset(left - self._known),
            )

    def serving(self, lb_id: str) -> bool:
        """Return whether the load balancer accepts connections now."""
        return lb_id in self.host.running and lb_id in self._known

    def running(self) -> frozenset[str]:
        """Return what this host runs."""
        return frozenset(lb_id for lb_id in self._known if self.serving(lb_id))

    def close(self) -> None:
        """Let go of the load balancers; they go on."""
        self._known = set()

    def stop_all(self) -> None:
        """End every process; what is desired stays."""
        self.host.running.clear()

    def crash(self, lb_id: str) -> None:
        """Let a process die; it is repaired if somebody watches."""
        with self._lock:
            del self.host.running[lb_id]
            if lb_id in self._known:
                self._run(lb_id, config.build(self.host.desired[lb_id], connections=10_000))
                if self._on_crash:
                    self._on_crash(lb_id)

    def _fence(self, lb_id: str, epoch: int) -> None:
        current = max(self.host.epochs.get(lb_id, 0), self._removed.get(lb_id, 0))
        if epoch < current:
            raise errors.StaleEpoch(lb_id, epoch, current)
        self.host.epochs[lb_id] = epoch

    def _refuse_taken(self, lb_id: str, wanted: config.Config) -> None:
        others = [run.binds() for other, run in self.host.running.items() if other != lb_id]
        for ip, port in sorted(wanted.binds() & self.host.foreign.union(*others)):
            raise errors.Transient("bind_failed", f"{ip}:{port}: another process has the port")

    def _run(self, lb_id: str, wanted: config.Config) -> None:
        before = self.host.running.pop(lb_id, None)
        if not wanted.frontends:
            return
        if before is None or isinstance(changes.diff(before, wanted), changes.Swap):
            self.host.starts[lb_id] = self.host.starts.get(lb_id, 0) + 1
        self.host.running[lb_id] = wanted

    def _forget(self, lb_id: str) -> None:
        self._known.discard(lb_id)
        for of_host in (self.host.desired, self.host.epochs, self.host.running, self.host.starts):
            of_host.pop(lb_id, None)
