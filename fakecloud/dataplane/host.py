"""Everything that one host runs: HAProxy for connections, relays for datagrams, as one data plane.

A load balancer is put into effect as a whole: the relay prepares, HAProxy changes, and what was
prepared is only then put into effect. HAProxy's part knows every load balancer, also one of UDP
ports alone, and its epochs fence both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from signal import Signals

from fakecloud import clock, model
from fakecloud.domain import tally
from fakecloud.domain.disturbances import Disturbance
from fakecloud.haproxy.dataplane import HaproxyDataPlane
from fakecloud.supervision import processes, pulse
from fakecloud.udp.dataplane import UdpDataPlane


class HostDataPlane:
    """Load balancers as processes on this host, of both kinds. Any thread may call.

    Arguments are as HAProxy's part explains them. Raises: StartError.
    """

    def __init__(
        self,
        state_dir: Path,
        runtime_dir: Path,
        time: clock.Clock,
        *,
        haproxy: str = "haproxy",
        run_as: tuple[int, int] | None = None,
        on_crash: Callable[[str], None] | None = None,
        beat_s: float = pulse.BEAT_S,
        transparent: bool = False,
    ) -> None:
        # It makes the directories and locks them for both.
        self.haproxy = HaproxyDataPlane(
            *(state_dir, runtime_dir, time),
            haproxy=haproxy,
            run_as=run_as,
            on_crash=on_crash,
            beat_s=beat_s,
            transparent=transparent,
        )
        self.udp = UdpDataPlane(
            *(state_dir / "lb", runtime_dir, state_dir / "meters" / "udp", time),
            run_as=run_as,
            on_crash=on_crash,
            beat_s=beat_s,
        )

    def apply(self, desired: model.Desired) -> None:
        """Make the load balancer equal to `desired`; returns when it is. Repeating is harmless.

        Raises: StaleEpoch when a newer epoch was seen; Permanent or Transient when it can't be
        done, and then what served before still serves, over TCP and UDP.
        """
        with self.udp.turn(desired.lb_id) as ports:
            if ports.concerns(desired):
                self.haproxy.fence(desired.lb_id, desired.epoch)
            with ports.change(desired) as commit:
                self.haproxy.apply(desired)
                commit()

    def set_down(
        self,
        lb_id: str,
        down: frozenset[model.ProbeKey],
        weights: frozenset[model.ProbeWeight] = frozenset(),
    ) -> None:
        """Let targets whose probe is in `down` get nothing new, all others something.

        weights: what targets say their own weight is. Raises: Transient; the other part was told.
        """
        try:
            self.udp.set_down(lb_id, down, weights)
        finally:
            self.haproxy.set_down(lb_id, down, weights)

    def disturb(self, lb_id: str, disturbance: Disturbance) -> None:
        """Let new TCP connections meet a fault until it is told an empty one. Raises: Transient."""
        self.haproxy.disturb(lb_id, disturbance)

    def signal(self, lb_id: str, number: Signals) -> None:
        """Send a signal to the HAProxy that serves, if one does: a fault."""
        self.haproxy.signal(lb_id, number)

    def remove(self, lb_id: str, epoch: int) -> None:
        """End the load balancer; an unknown id is no error. Raises: StaleEpoch."""
        with self.udp.turn(lb_id):
            self.haproxy.remove(lb_id, epoch)
            self.udp.remove(lb_id)

    def adopt(self, known: Collection[str]) -> processes.Adoption:
        """Take back what an earlier server left, at start, before any other call.

        known: ids that shall exist. What serves is taken as it is, the dead is started again in
        the background, what is of other ids is ended.
        """
        udp = self.udp.adopt(known)
        haproxy = self.haproxy.adopt(known)
        here = haproxy.adopted | haproxy.restarted | udp.adopted | udp.restarted
        dead = frozenset(lb_id for lb_id in haproxy.restarted if self.haproxy.wanted(lb_id))
        restarted = dead | udp.restarted
        return processes.Adoption(
            adopted=here - restarted,
            restarted=restarted,
            orphans_removed=haproxy.orphans_removed | udp.orphans_removed,
        )

    def serving(self, lb_id: str) -> bool:
        """Return whether the load balancer takes what its listeners should, now."""
        parts = [part for part in (self.haproxy, self.udp) if part.wanted(lb_id)]
        return bool(parts) and all(part.serving(lb_id) for part in parts)

    def running(self) -> frozenset[str]:
        """Return the ids of the load balancers that this host runs now."""
        ids = self.haproxy.running() | self.udp.running()
        return frozenset(lb_id for lb_id in ids if self.serving(lb_id))

    def configuration(self, lb_id: str) -> str | None:
        """Return what HAProxy and the relay were given, without secrets; None if nothing runs.

        Raises: Transient.
        """
        texts = [part.configuration(lb_id) for part in (self.haproxy, self.udp)]
        return "\n".join(text for text in texts if text) or None

    def log_tail(self, lb_id: str, most: int) -> list[str]:
        """Return the last lines that HAProxy and the relay wrote, at most `most`."""
        lines = [*self.haproxy.log_tail(lb_id, most), *self.udp.log_tail(lb_id, most)]
        return lines[-most:]

    def counters(self, lb_id: str) -> list[model.Counters] | None:
        """Return what the load balancer has carried on this host; None if it never was here.

        Also of one that was removed, until `forget_counters`. Raises: Transient.
        """
        return tally.together(part.counters(lb_id) for part in (self.haproxy, self.udp))

    def counted(self) -> list[str]:
        """Return the ids of all that `counters` knows."""
        return sorted({*self.haproxy.counted(), *self.udp.counted()})

    def forget_counters(self, lb_id: str, told: list[model.Counters]) -> None:
        """Forget what a load balancer carried that was removed, unless it is more than `told`."""
        for part in (self.haproxy, self.udp):
            rows = part.counters(lb_id) or []
            if all(row in told for row in rows):
                part.forget_counters(lb_id, rows)

    def close(self) -> None:
        """Stop watching. The load balancers go on; another data plane can adopt them."""
        self.udp.close()
        self.haproxy.close()

    def stop_all(self) -> None:
        """End every process; directories stay, so that the next start returns to them."""
        self.udp.stop_all()
        self.haproxy.stop_all()
