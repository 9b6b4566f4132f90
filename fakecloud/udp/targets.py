"""Targets of a group: who is chosen for a new session, and who keeps a client. Pure."""

from __future__ import annotations

import math
from zlib import crc32

from fakecloud.udp import wire

MOST_PINS = 50_000
"""So many clients are remembered per group; more are told apart by a hash of their address."""
NEVER = math.inf
_64_BITS = 2**64 - 1


class Traffic:
    """What was counted, and `sessions`: how many there are now."""

    __slots__ = (*wire.TRAFFIC, "sessions")

    def __init__(self) -> None:
        self.sessions = self.sessions_total = 0
        self.datagrams_in = self.datagrams_out = self.bytes_in = self.bytes_out = 0
        self.denied = self.refused = self.unserved = self.failed = 0

    def figures(self) -> list[int]:
        """Return what was counted, in the order of `wire.TRAFFIC`."""
        return [getattr(self, name) for name in wire.TRAFFIC]

    def count_from(self, figures: list[int]) -> None:
        """Go on from what another relay had counted."""
        for name, figure in zip(wire.TRAFFIC, figures, strict=True):
            setattr(self, name, figure)


class Target(Traffic):
    """A target in service, or on its way out: `leave_at` is when its sessions must go."""

    __slots__ = ("address", "due", "leave_at", "name", "ready", "seed", "weight")

    def __init__(self, told: wire.Target) -> None:
        super().__init__()
        self.name = told.name
        self.address = (told.ip, told.port)
        self.weight = told.weight
        self.ready = told.ready
        self.leave_at = NEVER
        self.seed = _mix(crc32(told.name.encode()))
        self.due = 0.0


class Pin:
    """Which target a client keeps: while it has sessions, and for the group's time after."""

    __slots__ = ("seen_at", "sessions", "target")

    def __init__(self, target: Target, now: float) -> None:
        self.target = target
        self.sessions = 0
        self.seen_at = now


class Group:
    """Targets that share a way to be chosen."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.targets: dict[str, Target] = {}
        self.pins: dict[str, Pin] = {}
        self.drain_s = 0
        self.affinity_s = 0
        self._balance = "round_robin"
        self._eligible: list[Target] = []
        self._turn = 0.0

    def configure(self, told: wire.Group | None, now: float) -> None:
        """Become what was told; None: all targets leave.

        Targets that leave stay known, for their sessions, until `forget`.
        """
        wanted = {target.name: target for target in told.targets} if told else {}
        if told is not None:
            self._balance = told.balance
            self.affinity_s = told.affinity_s
            self.drain_s = told.drain_s
        for name in wanted.keys() - self.targets.keys():
            self.targets[name] = Target(wanted[name])
            self.targets[name].due = self._turn
        for name, target in self.targets.items():
            one = wanted.get(name)
            target.weight = one.weight if one else 0
            target.ready = one is not None and one.ready
            if target.ready:
                target.leave_at = NEVER
            else:
                target.leave_at = min(target.leave_at, now + self.drain_s)
        # In the order that was told, so that equal wishes give equal choices.
        self.targets = {name: self.targets[name] for name in [*wanted, *self.targets]}
        self._eligible = [t for t in self.targets.values() if t.ready and t.weight]
        if not self.affinity_s:
            self.pins.clear()

    def forget(self, wanted: set[str]) -> None:
        """Forget targets without sessions that are not in `wanted`."""
        left = {n: t for n, t in self.targets.items() if n in wanted or t.sessions}
        if len(left) < len(self.targets):
            self.targets = left

    def choose(self, ip: str, avoid: Target | None, now: float) -> Target | None:
        """Return who takes a new session of the client `ip`; `avoid` only if nobody else can."""
        pin = self.pins.get(ip)
        if pin is not None and self._holds(pin, now) and pin.target is not avoid:
            return pin.target
        among = self._eligible
        if avoid is not None:
            among = [target for target in among if target is not avoid] or among
        if not among:
            return None
        crowded = pin is None and self.affinity_s and len(self.pins) >= MOST_PINS
        if self._balance == "source_hash" or crowded:
            client = crc32(ip.encode())
            return max(among, key=lambda target: _score(client, target))
        if self._balance == "least_connections":
            chosen = min(among, key=lambda target: (target.sessions / target.weight, target.due))
        else:
            chosen = min(among, key=lambda target: target.due)
        self._turn = max(self._turn, chosen.due)
        chosen.due = self._turn + 1 / chosen.weight
        return chosen

    def others(self, target: Target) -> bool:
        """Return whether anybody but `target` takes new sessions."""
        return any(one is not target for one in self._eligible)

    def pin(self, ip: str, target: Target, now: float) -> Pin | None:
        """Let the client `ip` keep `target`, counting one session; None: it isn't remembered."""
        if not self.affinity_s:
            return None
        pin = self.pins.get(ip)
        if pin is None or pin.target is not target:
            if pin is None and len(self.pins) >= MOST_PINS:
                return None
            pin = self.pins[ip] = Pin(target, now)
        pin.sessions += 1
        return pin

    def restore_pin(self, ip: str, name: str, seen_at: float) -> None:
        """Remember a client as another relay did."""
        if name in self.targets:
            self.pins[ip] = Pin(self.targets[name], seen_at)

    def restored_pin(self, ip: str, target: Target, now: float) -> Pin:
        """Return the pin of a session of another relay; the client may have a newer one."""
        pin = self.pins.get(ip)
        if pin is None or pin.target is not target:
            pin = Pin(target, now)
        pin.sessions += 1
        return pin

    def unpin(self, ip: str, target: Target) -> None:
        """Let the client `ip` go elsewhere, if `target` is what it kept."""
        pin = self.pins.get(ip)
        if pin is not None and pin.target is target:
            del self.pins[ip]

    def forget_pins(self, now: float) -> None:
        """Forget the clients that have been away for long."""
        self.pins = {ip: pin for ip, pin in self.pins.items() if self._holds(pin, now)}

    def _holds(self, pin: Pin, now: float) -> bool:
        return pin.target.ready and (pin.sessions > 0 or now - pin.seen_at < self.affinity_s)


def _score(client: int, target: Target) -> float:
    """Return the target's score in weighted rendezvous hashing: the highest one is chosen.

    When a target comes or goes, only clients that it wins or had move.
    """
    share = (_mix(client ^ target.seed) + 1) / (_64_BITS + 2)
    return -target.weight / math.log(share)


def _mix(value: int) -> int:
    """Return 64 well mixed bits: the finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _64_BITS
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return value ^ (value >> 31)
