"""One round of each loop that runs load balancers, tells of them and keeps them known.

What has to be done only every now and then is in `housekeeping`.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Event
from typing import Final

from fakecloud import hosts
from fakecloud.chaos.engine import Chaos
from fakecloud.chaos.flapping import Flapping
from fakecloud.chaos.trouble import Trouble
from fakecloud.clock import Clock
from fakecloud.errors import Unavailable
from fakecloud.health.board import Health
from fakecloud.loops import Nudge
from fakecloud.metrics import Metrics
from fakecloud.network.pools import PooledAddresses
from fakecloud.network.router import Router
from fakecloud.provisioning import placement
from fakecloud.provisioning.provisioner import Provisioner
from fakecloud.provisioning.sweeper import Sweeper
from fakecloud.timekeeper import Timekeeper

POLL_S: Final = 1.0
BURST_S: Final = 0.5
"""While requests keep coming a worker takes a step so often, and otherwise as fast as it can."""
HEALTH_SAVE_S: Final = 0.5
CLOCK_S: Final = 0.5
FAULTS_S: Final = 0.5
TROUBLE_S: Final = 0.25
ROUTES_S: Final = 1.0
"""How soon a route is back that somebody removed, or there that another server was told of."""


def provision(
    provisioner: Provisioner, nudge: Nudge, metrics: Metrics, idle: Callable[[float], bool]
) -> None:
    """Bring a load balancer a step further, or wait for one that is due.

    idle: waits until no request wants an answer, at most so many seconds.
    """
    seen = nudge.count
    idle(BURST_S)
    with metrics.step_seconds.time():
        worked = provisioner.step()
    if worked:
        metrics.steps.inc()
    else:
        nudge.wait(seen, POLL_S)


def see_crash(provisioner: Provisioner, crashes: SimpleQueue[str]) -> None:
    """Put a load balancer whose process died into effect again."""
    try:
        lb_id = crashes.get(timeout=POLL_S)
    except Empty:
        return
    try:
        provisioner.crashed(lb_id)
    except Unavailable:
        crashes.put(lb_id)
        raise


def renew_leases(provisioner: Provisioner, lease_s: float, clock: Clock, stop: Event) -> None:
    """Keep the leases of long work."""
    clock.wait(stop, lease_s / 3)
    provisioner.renew()


def tell_health(health: Health) -> None:
    """Tell the data plane of targets that fail, or wait for one."""
    health.tell_dataplane(POLL_S)


def save_health(health: Health, clock: Clock, stop: Event) -> None:
    """Write what is known of targets."""
    health.save()
    clock.wait(stop, HEALTH_SAVE_S)


def sweep(sweeper: Sweeper, pause_s: float, clock: Clock, stop: Event) -> None:
    """Remove what deleted load balancers have left behind."""
    clock.wait(stop, max(pause_s, 1.0))
    sweeper.step()


def beat(
    me: hosts.Hosts,
    trouble: Trouble,
    provisioner: Provisioner,
    placing: placement.Placement,
    addresses: PooledAddresses,
    pause_s: float,
    clock: Clock,
    stop: Event,
) -> None:
    """Be alive, let go of what is run elsewhere, and look whether all others are alive."""
    if not trouble.host_is_down:
        me.beat()
        provisioner.drop_moved()  # before the rest goes on to be answered for
        addresses.keep(me.may_answer_s())
        me.sweep()
    placing.refresh()
    clock.wait(stop, pause_s)


def keep_time(timekeeper: Timekeeper, ticks: Nudge, stop: Event) -> None:
    """Hear what business time is, and move it on if it is to advance."""
    seen = ticks.count
    timekeeper.refresh()
    timekeeper.synchronize()
    while timekeeper.step():
        if stop.is_set():
            return
    ticks.wait(seen, CLOCK_S)


def keep_routes(router: Router, changed: Nudge) -> None:
    """Keep this host's routes; at once when one was changed here."""
    seen = changed.count
    router.step()
    changed.wait(seen, ROUTES_S)


def disturb(trouble: Trouble, clock: Clock, stop: Event) -> None:
    """Impose faults on traffic, and lift those that are over."""
    trouble.step()
    clock.wait(stop, TROUBLE_S)


def renew_faults(chaos: Chaos, flapping: Flapping, clock: Clock, stop: Event) -> None:
    """Hear of faults that other replicas were told of; remove expired ones; let states flap."""
    chaos.refresh()
    flapping.step()
    clock.wait(stop, FAULTS_S)
