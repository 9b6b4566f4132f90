"""Faults of the data plane: what disturbs the traffic of load balancers, and its end.

A turn compares what rules and annotations ask for now with what is imposed, and makes it so.
What is imposed is known only here: after a crash of the server everything begins without faults,
and what still lasts is imposed again by its first hit in the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from signal import Signals
from threading import Lock
from typing import Final, Protocol

import msgspec
import structlog

from fakecloud.chaos.engine import Chaos
from fakecloud.clock import Clock
from fakecloud.domain import chaos_labels, faults
from fakecloud.domain.disturbances import Disturbance, Toxic, ToxicKind
from fakecloud.domain.faults import Action, Facts, Layer
from fakecloud.errors import DataPlaneError
from fakecloud.health.board import Health
from fakecloud.model import LoadBalancer
from fakecloud.store import faults as rows
from fakecloud.store import load_balancers
from fakecloud.store.database import Database

log = structlog.get_logger()

BY_LABEL: Final = "label"
BLACKHOLE_MS: Final = 86_400_000
FLAP_S: Final = 10.0


class Disturbed(Protocol):
    """The part of the data plane that faults need."""

    def disturb(self, lb_id: str, disturbance: Disturbance) -> None:
        """Let new connections meet a fault until it is told an empty one. Raises: Transient."""

    def signal(self, lb_id: str, number: Signals) -> None:
        """Send a signal to the process that serves."""


class Effect(msgspec.Struct, frozen=True):
    """An action at work on a load balancer, since its first hit (wall time)."""

    fault_id: str
    action: Action
    since: datetime


class Trouble:
    """Imposes faults on the load balancers of one host, turn by turn."""

    def __init__(
        self,
        database: Database,
        chaos: Chaos,
        dataplane: Disturbed,
        health: Health,
        clock: Clock,
        host: str,
    ) -> None:
        """Ask `chaos` for rules; disturb what `host` runs."""
        self._database = database
        self._chaos = chaos
        self._dataplane = dataplane
        self._health = health
        self._clock = clock
        self._host = host
        self._hits: dict[tuple[str, str, Action], datetime | None] = {}  # None: no hit
        self._imposed: dict[str, Disturbance] = {}
        self._stopped: set[str] = set()
        self._killed: dict[tuple[str, str], datetime] = {}
        self._failing: set[str] = set()
        self._down = False
        self._lock = Lock()

    @property
    def host_is_down(self) -> bool:
        """Say whether this host has to be silent."""
        with self._lock:
            return self._down

    def step(self) -> int:
        """Make what is imposed equal to what is asked for; return how many are disturbed."""
        effects = {lb.id: tuple(self._effects(lb)) for lb in self._ours()}
        effects = {lb_id: found for lb_id, found in effects.items() if found}
        down = any(one.action.type == "host_down" for of in effects.values() for one in of)
        with self._lock:
            self._down = down
        if down:
            everybody = self._everybody()
            effects = {lb_id: effects.get(lb_id, ()) for lb_id in everybody}
        for lb_id in effects.keys() | self._imposed.keys():
            self._impose(lb_id, _disturbance(effects.get(lb_id, ()), down=down))
        self._stop_and_go({i for i, of in effects.items() if _has(of, "stop")})
        for lb_id, of in effects.items():
            self._kill(lb_id, of)
        self._flap(effects)
        self._forget(effects.keys())
        return len(effects)

    def _ours(self) -> list[LoadBalancer]:
        """Return who may be disturbed: all of this host if a rule lives, else those that ask."""
        with self._database.read() as connection:
            if self._chaos.quiet(Layer.DATAPLANE) and not self._hits:
                found = load_balancers.mentioning(connection, chaos_labels.DATAPLANE)
            else:
                found = load_balancers.living(connection)
        return [lb for lb in found if lb.host == self._host and lb.was_active]

    def _everybody(self) -> list[str]:
        with self._database.read() as connection:
            return [lb.id for lb in load_balancers.living(connection) if lb.host == self._host]

    def _effects(self, lb: LoadBalancer) -> Iterator[Effect]:
        wall = self._clock.wall()
        facts = Facts(
            layer=Layer.DATAPLANE,
            project=lb.project,
            resource=lb.name,
            labels=lb.labels,
            listeners=tuple(one.name for one in lb.spec.listeners),
        )
        for rule in self._chaos.candidates(facts):
            since = self._first_hit(lb, rule.id, rule.action, rule)
            if since is not None and _lasts(rule.action, since, wall, None):
                yield Effect(rule.id, rule.action, since)
        for action in chaos_labels.parse(lb.labels, lb.annotations).dataplane:
            since = self._first_hit(lb, BY_LABEL, action, None)
            if since is not None and _lasts(action, since, wall, faults.DEFAULT_EXPIRES_S):
                yield Effect(BY_LABEL, action, since)

    def _first_hit(
        self, lb: LoadBalancer, fault_id: str, action: Action, rule: faults.Rule | None
    ) -> datetime | None:
        """Return when a fault first hit; a rule looks at each load balancer once."""
        key = (fault_id, lb.id, action)
        if key in self._hits:
            return self._hits[key]
        subject = f"{lb.id}/dataplane/{action.seconds or ''}/{action.lasts_s or ''}"
        with self._database.read() as connection:
            _, since = rows.hits_on(connection, fault_id, subject, action.type)
        if since is None:
            if rule is None:
                self._chaos.log_again(fault_id, lb.project, Layer.DATAPLANE, action, subject)
                since = self._clock.wall()
            elif self._chaos.try_rule(rule, subject) is not None:
                since = self._clock.wall()
        elif action.type == "kill":
            self._killed[fault_id, lb.id] = self._clock.wall()  # in an earlier life
        self._hits[key] = since
        return since

    def _impose(self, lb_id: str, wanted: Disturbance) -> None:
        if self._imposed.get(lb_id, Disturbance()) == wanted:
            if not wanted:
                self._imposed.pop(lb_id, None)
            return
        log.warning("traffic_disturbed", lb_id=lb_id, by=msgspec.to_builtins(wanted))
        self._imposed[lb_id] = wanted  # the data plane itself repeats what could not be told
        try:
            self._dataplane.disturb(lb_id, wanted)
        except DataPlaneError as error:
            log.warning("disturbance_not_told", lb_id=lb_id, reason=error.message)

    def _stop_and_go(self, wanted: set[str]) -> None:
        for lb_id in wanted - self._stopped:
            self._dataplane.signal(lb_id, Signals.SIGSTOP)
        for lb_id in self._stopped - wanted:
            self._dataplane.signal(lb_id, Signals.SIGCONT)
        self._stopped = wanted

    def _kill(self, lb_id: str, effects: tuple[Effect, ...]) -> None:
        wall = self._clock.wall()
        for one in effects:
            if one.action.type != "kill":
                continue
            last = self._killed.get((one.fault_id, lb_id))
            period_s = one.action.seconds
            again = period_s is not None and last is not None
            if last is None or (again and wall - last >= timedelta(seconds=period_s or 0)):
                self._killed[one.fault_id, lb_id] = wall
                self._dataplane.signal(lb_id, Signals.SIGKILL)

    def _flap(self, effects: dict[str, tuple[Effect, ...]]) -> None:
        wall = self._clock.wall()
        failing = set()
        for lb_id, of in effects.items():
            for one in of:
                if one.action.type == "health_flap":
                    period_s = one.action.seconds or FLAP_S
                    if not int((wall - one.since).total_seconds() / period_s) % 2:
                        failing.add(lb_id)
        for lb_id in failing ^ self._failing:
            self._health.pretend(lb_id, failing=lb_id in failing)
        self._failing = failing

    def _forget(self, disturbed: object) -> None:
        """Let go of what is over, so that an idle turn costs nothing."""
        if not disturbed and self._chaos.quiet(Layer.DATAPLANE):
            self._hits = {key: at for key, at in self._hits.items() if key[0] == BY_LABEL}
            self._killed.clear()


def _has(effects: tuple[Effect, ...], type: str) -> bool:
    return any(one.action.type == type for one in effects)


def _lasts(action: Action, since: datetime, wall: datetime, default_s: float | None) -> bool:
    lasts_s = action.lasts_s or default_s
    return lasts_s is None or wall < since + timedelta(seconds=lasts_s)


def _disturbance(effects: tuple[Effect, ...], *, down: bool) -> Disturbance:
    """Return what all effects together do to new connections."""
    delays, shares, toxics = [0], [0.0], []
    for one in effects:
        match one.action.type:
            case "latency" | "timeout":
                delays.append(round((one.action.seconds or 0) * 1000))
            case "blackhole":
                delays.append(BLACKHOLE_MS)
            case "resets":
                probability = one.action.probability
                shares.append(1.0 if probability is None else probability)
            case "bandwidth" | "jitter" | "limit_data" | "slicer" | "slow_close" as kind:
                toxics.append(_toxic(kind, one.action))
    return Disturbance(
        refuse=down or _has(effects, "refuse"),
        delay_ms=max(delays),
        hang_up=_has(effects, "timeout"),
        reset_share=max(shares),
        toxics=tuple(toxics),
        expired=_has(effects, "cert_expire"),
        deaf=_has(effects, "stats_socket_hang"),
        no_reload=_has(effects, "reload_fail"),
    )


def _toxic(kind: ToxicKind, action: Action) -> Toxic:
    probability = action.probability
    return Toxic(
        kind=kind,
        direction=action.direction or "downstream",
        bytes=action.bytes or action.bytes_per_s or 1,
        seconds=action.seconds or 0.0,
        share=1.0 if probability is None else probability,
    )
