"""Load balancers of docker pools run in containers, all others as processes of this host."""

from __future__ import annotations

from collections.abc import Collection
from signal import Signals

from fakecloud import model
from fakecloud.dataplane.host import HostDataPlane
from fakecloud.domain import tally
from fakecloud.domain.addresses import Pool
from fakecloud.domain.disturbances import Disturbance
from fakecloud.errors import Permanent
from fakecloud.haproxy.dataplane import HaproxyDataPlane
from fakecloud.supervision import processes


class IsolatingDataPlane:
    """Both as one data plane; arguments and errors are those of its parts. Any thread may call."""

    def __init__(
        self, host: HostDataPlane, contained: HaproxyDataPlane, pools: Collection[Pool]
    ) -> None:
        """Use `contained` for load balancers with addresses of `pools`."""
        self._host = host
        self._contained = contained
        self._pools = {(pool.name, pool.family) for pool in pools}

    def apply(self, desired: model.Desired) -> None:
        """Make the load balancer equal to `desired`, where its addresses are."""
        if self._is_contained(desired):
            self._contained.apply(desired)
            self._host.remove(desired.lb_id, desired.epoch)
        else:
            self._host.apply(desired)
            self._contained.remove(desired.lb_id, desired.epoch)

    def set_down(
        self,
        lb_id: str,
        down: frozenset[model.ProbeKey],
        weights: frozenset[model.ProbeWeight] = frozenset(),
    ) -> None:
        """Let targets whose probe is in `down` get nothing new, all others something."""
        for part in (self._host, self._contained):
            part.set_down(lb_id, down, weights)

    def disturb(self, lb_id: str, disturbance: Disturbance) -> None:
        """Let new TCP connections meet a fault until it is told an empty one."""
        for part in (self._host, self._contained):
            part.disturb(lb_id, disturbance)

    def signal(self, lb_id: str, number: Signals) -> None:
        """Send a signal to the HAProxy that serves, if one does: a fault."""
        for part in (self._host, self._contained):
            part.signal(lb_id, number)

    def remove(self, lb_id: str, epoch: int) -> None:
        """End the load balancer; an unknown id is no error."""
        for part in (self._host, self._contained):
            part.remove(lb_id, epoch)

    def adopt(self, known: Collection[str]) -> processes.Adoption:
        """Take back what an earlier server left, at start, before any other call."""
        host, contained = self._host.adopt(known), self._contained.adopt(known)
        return processes.Adoption(
            adopted=host.adopted | contained.adopted,
            restarted=host.restarted | contained.restarted,
            orphans_removed=host.orphans_removed | contained.orphans_removed,
        )

    def serving(self, lb_id: str) -> bool:
        """Return whether the load balancer takes what its listeners should, now."""
        return self._host.serving(lb_id) or self._contained.serving(lb_id)

    def running(self) -> frozenset[str]:
        """Return the ids of the load balancers that run now."""
        return self._host.running() | self._contained.running()

    def configuration(self, lb_id: str) -> str | None:
        """Return what was told, without secrets; None if nothing runs."""
        return self._contained.configuration(lb_id) or self._host.configuration(lb_id)

    def log_tail(self, lb_id: str, most: int) -> list[str]:
        """Return the last lines of the processes' logs, at most `most`."""
        return self._contained.log_tail(lb_id, most) or self._host.log_tail(lb_id, most)

    def counters(self, lb_id: str) -> list[model.Counters] | None:
        """Return what the load balancer has carried here; None if it never was here."""
        return tally.together(part.counters(lb_id) for part in (self._host, self._contained))

    def counted(self) -> list[str]:
        """Return the ids of all that `counters` knows."""
        return sorted({*self._host.counted(), *self._contained.counted()})

    def forget_counters(self, lb_id: str, told: list[model.Counters]) -> None:
        """Forget what a load balancer carried that was removed, unless it is more than `told`."""
        for part in (self._host, self._contained):
            part.forget_counters(lb_id, told)

    def close(self) -> None:
        """Stop watching. The load balancers go on; another data plane can adopt them."""
        self._contained.close()
        self._host.close()

    def stop_all(self) -> None:
        """End every process and container; directories stay."""
        self._contained.stop_all()
        self._host.stop_all()

    def _is_contained(self, desired: model.Desired) -> bool:
        """Say where a load balancer runs. Raises: Permanent when that is neither here nor there."""
        inside = [(one.pool, one.family) in self._pools for one in desired.addresses]
        if any(inside) and not all(inside):
            raise Permanent(
                "unsupported",
                "addresses of a docker pool don't go with those of other pools; ask for one kind",
            )
        contained = any(inside)
        if contained and any(one.protocol == "udp" for one in desired.spec.listeners):
            raise Permanent("unsupported", "a docker pool has no UDP; use another pool")
        return contained
