"""The only wiring: settings to database, data plane, loops, HTTP server, and down again."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Final

import structlog
from fastapi import FastAPI

from fakecloud import hosts, housekeeping, rounds
from fakecloud.access import tokens
from fakecloud.access.quotas import STANDARD, Quotas
from fakecloud.access.rate_limits import RateLimiter
from fakecloud.accounting.costs import Costs
from fakecloud.accounting.invoices import Invoices
from fakecloud.accounting.ledger import Ledger
from fakecloud.accounting.post import HttpPost
from fakecloud.accounting.spending import Spending
from fakecloud.api import application
from fakecloud.api.context import Cloud
from fakecloud.api.writer import Writer
from fakecloud.chaos.engine import Chaos
from fakecloud.chaos.flapping import Flapping
from fakecloud.chaos.interference import Interference
from fakecloud.chaos.trouble import Trouble
from fakecloud.clock import Clock, SystemClock
from fakecloud.dataplane import premises
from fakecloud.dataplane.host import HostDataPlane
from fakecloud.dataplane.isolation import IsolatingDataPlane
from fakecloud.domain.addresses import Pool
from fakecloud.domain.business_time import BusinessClock
from fakecloud.domain.sealing import Seal
from fakecloud.health.board import Health, TakesHealth
from fakecloud.health.prober import Prober
from fakecloud.insight import Insight
from fakecloud.loops import Loops, Nudge
from fakecloud.metering import Metering
from fakecloud.metrics import Metrics
from fakecloud.network.allocation import Allocator
from fakecloud.network.pools import PooledAddresses
from fakecloud.network.router import Router
from fakecloud.provisioning import placement
from fakecloud.provisioning.provisioner import Provisioner
from fakecloud.provisioning.sweeper import Sweeper
from fakecloud.requests.actions import Actions
from fakecloud.requests.certificates import Certificates
from fakecloud.requests.instances import Instances
from fakecloud.requests.load_balancers import LoadBalancers
from fakecloud.requests.networks import Networks, Routes
from fakecloud.requests.reservations import Reservations
from fakecloud.requests.snapshots import Snapshots
from fakecloud.settings import Settings
from fakecloud.store import load_balancers
from fakecloud.store.database import Database
from fakecloud.store.notifications import Notifications
from fakecloud.store.readiness import Readiness
from fakecloud.timekeeper import Timekeeper
from fakecloud.watch.hub import Hub

log = structlog.get_logger()

AGAIN_S: Final = 1.0
TELLERS: Final = 4
"""So many load balancers are told of health at a time: each waits for its HAProxy's answer."""


@contextmanager
def running(settings: Settings, system: Clock | None = None) -> Iterator[FastAPI]:
    """Run the whole cloud but the HTTP server; give the application to serve.

    Load balancers go on running afterwards. Raises: StartError.
    """
    with ExitStack() as stack:
        settings = premises.settle(settings, system or SystemClock())
        pools = premises.parse_pools(settings)
        database = Database(settings.database_url)
        stack.callback(database.close)
        database.migrate()
        clock = BusinessClock(system or SystemClock())
        timekeeper = _timekeeper(database, clock)
        ledger, costs, spending = _ledger(
            settings, database, clock, seal := Seal(settings.seal_file)
        )
        placing = placement.Placement(database, clock, dead_after_s=settings.dead_after_s)
        me = _this_host(settings, database, clock, placing)
        quotas = Quotas({} if settings.profile == "dev" else STANDARD)
        authority = tokens.Authority(database, clock, quotas)
        nudge, ticks, detours = Nudge(), Nudge(), Nudge()
        crashes: SimpleQueue[str] = SimpleQueue()
        metrics = Metrics()
        chaos = Chaos(database, clock, metrics, quotas)
        chaos.refresh()
        dataplane = premises.data_plane(settings, pools, clock, crashes.put, stack)
        stack.callback(dataplane.close)
        # Not before the data plane has locked the state directory: a server that is refused
        # there must not have touched another's token.
        tokens.ensure_admin(authority, database, settings.admin_token_file)
        health, prober = _probing(database, dataplane, clock)
        addresses = premises.addresses(pools, clock)
        certificates = Certificates(database, clock, quotas, seal)
        provisioner = Provisioner(
            database,
            dataplane,
            addresses,
            health,
            clock,
            host=me.name,
            owner=me.name,
            lease_s=settings.lease_s,
            rng=random.Random(),
            allocator=Allocator(pools),
            hook=Interference(database, chaos, clock),
            keys=certificates,
            pools=placement.served(settings.pool),
            published=premises.published_ports(settings),
        )
        hub = Hub(database, max_watches=settings.max_watches)
        trouble = Trouble(database, chaos, dataplane, health, clock, me.name)
        metering = Metering(database, dataplane, clock, host=me.name, share=not database.is_sqlite)

        _take_back(database, me, addresses, health, dataplane, provisioner, placing)

        database.on_commit(nudge.give)
        database.on_commit(hub.notify)
        loops = Loops(clock, metrics)
        stack.callback(loops.join, 5.0)
        desk, writer = _desk(database, pools, clock, quotas, settings, placing)
        worker = partial(rounds.provision, provisioner, nudge, metrics, writer.idle)
        turns: dict[str, Callable[[], None]] = {
            **{f"provisioner-{number}": worker for number in range(settings.workers)},
            **{
                f"health-{number}": partial(rounds.tell_health, health) for number in range(TELLERS)
            },
            "health-store": partial(rounds.save_health, health, clock, loops.stop),
            "recovery": partial(rounds.see_crash, provisioner, crashes),
            "clock": partial(rounds.keep_time, timekeeper, ticks, loops.stop),
            "heartbeat": partial(
                rounds.beat,
                me,
                trouble,
                provisioner,
                placing,
                addresses,
                settings.beat_s,
                clock,
                loops.stop,
            ),
            "leases": partial(
                rounds.renew_leases, provisioner, settings.lease_s, clock, loops.stop
            ),
            "metering": partial(housekeeping.meter, metering, clock, loops.stop),
            "ledger": partial(housekeeping.close_days, ledger, clock, loops.stop),
            "budgets": partial(housekeeping.watch_budgets, spending, clock, loops.stop),
            "webhooks": partial(housekeeping.deliver, spending, clock, loops.stop),
            "sweep": partial(
                rounds.sweep,
                Sweeper(database, dataplane, addresses, clock),
                settings.beat_s,
                clock,
                loops.stop,
            ),
            "routes": partial(
                rounds.keep_routes,
                Router(database, premises.route_table(pools, stack), clock, me.name),
                detours,
            ),
            "trouble": partial(rounds.disturb, trouble, clock, loops.stop),
            "faults": partial(
                rounds.renew_faults,
                chaos,
                Flapping(database, chaos, clock, me.name),
                clock,
                loops.stop,
            ),
            "housekeeping": partial(
                housekeeping.keep_house,
                database,
                settings,
                authority,
                certificates,
                clock,
                metrics,
                loops.stop,
            ),
        }
        for name, turn in turns.items():
            loops.start(name, turn)
        if not database.is_sqlite:
            _tell_others(
                database,
                Notifications(database.url, me.name, clock, loops.stop),
                timekeeper,
                ticks,
                loops,
                stack,
                heard=(nudge.give, hub.notify),
            )

        cloud = Cloud(
            database=database,
            load_balancers=desk,
            writer=writer,
            hub=hub,
            authority=authority,
            costs=costs,
            invoices=Invoices(database, ledger, clock),
            spending=spending,
            metrics=metrics.show_traffic(
                metering.carried, settings.metrics_load_balancers
            ).show_costs(spending.opencost.series, settings.metrics_load_balancers),
            clock=clock,
            timekeeper=timekeeper,
            profile=settings.profile,
            host=me.name,
            chaos=chaos,
            actions=Actions(database, clock, placing),
            reservations=Reservations(database, pools, clock, quotas),
            instances=Instances(database, clock, quotas),
            networks=Networks(database, pools, clock, quotas),
            routes=Routes(database, clock, quotas, detours.give),
            certificates=certificates,
            snapshots=Snapshots(database, settings.state_dir / "snapshots", clock),
            inspector=dataplane,
            insight=Insight(database, dataplane, metering, clock, me.name),
            readiness=Readiness(database, me.beat),
            stopped_loops=loops.stopped,
            loopback_only=not (settings.insecure_listen or settings.tls_cert),
            quotas=quotas,
            rate_limiter=RateLimiter(settings.rate_limit, clock) if settings.rate_limit else None,
        )

        @asynccontextmanager
        async def beside(_app: FastAPI) -> AsyncIterator[None]:
            tasks = [
                asyncio.create_task(_kept_up("watch", hub.run, metrics)),
                asyncio.create_task(_kept_up("prober", prober.run, metrics)),
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        yield application.create(cloud, beside)


def _timekeeper(database: Database, clock: BusinessClock) -> Timekeeper:
    timekeeper = Timekeeper(database, clock)
    timekeeper.refresh()
    timekeeper.synchronize()
    return timekeeper


def _probing(database: Database, dataplane: TakesHealth, clock: Clock) -> tuple[Health, Prober]:
    health = Health(database, dataplane, clock)
    prober = Prober(clock, health.on_change, rng=random.Random())
    health.connect(prober)
    return health, prober


def _take_back(
    database: Database,
    me: hosts.Hosts,
    addresses: PooledAddresses,
    health: Health,
    dataplane: HostDataPlane | IsolatingDataPlane,
    provisioner: Provisioner,
    placing: placement.Placement,
) -> None:
    """Go on with the load balancers that this host ran in its last life. Raises: StartError."""
    me.register()
    me.beat()
    addresses.keep(me.may_answer_s())
    placing.refresh()
    with database.read() as connection:
        living = [lb for lb in load_balancers.living(connection) if lb.host == me.name]
    unreachable = addresses.restore({lb.id: lb.addresses for lb in living})
    health.register(lb for lb in living if lb.was_active)
    adoption = dataplane.adopt({lb.id for lb in living})
    log.info(
        "data_plane_adopted",
        adopted=len(adoption.adopted),
        restarted=len(adoption.restarted),
        orphans_removed=len(adoption.orphans_removed),
    )
    here = (adoption.adopted | adoption.restarted) - unreachable
    provisioner.hold(adoption.adopted | adoption.restarted)
    provisioner.recover(
        lb for lb in living if lb.was_active and not (lb.id in here and provisioner.fits(lb))
    )


def _ledger(
    settings: Settings, database: Database, clock: Clock, seal: Seal
) -> tuple[Ledger, Costs, Spending]:
    """Return the ledger with the chosen prices in force, what reads it and what watches it."""
    ledger = Ledger(database, clock, premises.price_book(settings))
    ledger.start()
    costs = Costs(database, ledger)
    return ledger, costs, Spending(database, costs, clock, seal=seal, post=HttpPost())


async def _kept_up(
    name: str, run: Callable[[], Coroutine[None, None, None]], metrics: Metrics
) -> None:
    """Run `run` until cancelled, again after any failure: watches and probes live by it."""
    while True:
        try:
            await run()
        except Exception:
            log.exception("loop_failed", loop=name)
            metrics.loop_failures.labels(name).inc()
            await asyncio.sleep(AGAIN_S)


def _desk(
    database: Database,
    pools: list[Pool],
    clock: BusinessClock,
    quotas: Quotas,
    settings: Settings,
    placing: placement.Placement,
) -> tuple[LoadBalancers, Writer]:
    desk = LoadBalancers(
        database,
        pools,
        clock,
        quotas=quotas,
        profile=settings.profile,
        rate=clock.rate,
        placement=placing,
        transparent=settings.transparent,
    )
    return desk, Writer(database, desk)


def _this_host(
    settings: Settings, database: Database, clock: Clock, placing: placement.Placement
) -> hosts.Hosts:
    return hosts.Hosts(
        database,
        clock,
        settings.host_name or os.uname().nodename,
        hosts.identity(settings.state_dir),
        settings.pool,
        dead_after_s=settings.dead_after_s,
        placement=placing,
    )


def _tell_others(
    database: Database,
    notifications: Notifications,
    timekeeper: Timekeeper,
    ticks: Nudge,
    loops: Loops,
    stack: ExitStack,
    *,
    heard: tuple[Callable[[], None], ...],
) -> None:
    """Tell the other servers of our commits, and hear of theirs."""
    stack.callback(notifications.close)
    database.on_commit(notifications.committed)
    timekeeper.on_change(notifications.clock_changed)

    def wake() -> None:
        for one in heard:
            one()

    loops.start("notify", notifications.speak)
    loops.start("listen", lambda: notifications.listen(wake, ticks.give))
