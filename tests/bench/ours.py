"""Our data plane for its benchmark: the driver itself, without API and database."""

from __future__ import annotations

import contextlib
import os
import pwd
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, Final

import msgspec

from fakecloud import clock, model
from fakecloud.dataplane import host as dataplane
from tests.bench.peers import Place, Running
from tests.demo import programs

WORKERS: Final = 8
_epochs = count(1)


@contextlib.contextmanager
def plane(directory: Path) -> Iterator[dataplane.HostDataPlane]:
    """Run a data plane of which nothing is left behind."""
    directory.mkdir(parents=True)
    user = None
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        user = (nobody.pw_uid, nobody.pw_gid)
    made = dataplane.HostDataPlane(directory, directory / "run", clock.SystemClock(), run_as=user)
    try:
        made.adopt(())
        yield made
    finally:
        made.stop_all()


@contextlib.contextmanager
def running(
    directory: Path, bind: Place, targets: Sequence[Place], *, udp: bool = False
) -> Iterator[Running]:
    """Run one load balancer."""
    with plane(directory) as made:
        began = time.perf_counter()
        made.apply(document(bind, targets, protocol="udp" if udp else "tcp"))
        yield Running(0, time.perf_counter() - began)


def pids(directory: Path) -> list[int]:
    """Return the processes of a data plane."""
    return list(programs.haproxies(directory).values())


def document(
    bind: Place,
    targets: Sequence[Place],
    *,
    lb_id: str = "lb-1",
    protocol: model.Protocol = "tcp",
    weight: int = 100,
    idle_timeout_s: int = 350,
    source_ranges: tuple[str, ...] = ("0.0.0.0/0",),
    more_ports: Sequence[int] = (),
    **group: Any,
) -> model.Desired:
    """Return a load balancer at `bind` in front of `targets`; each call is a newer wish."""
    ports = [bind[1], *more_ports]
    listeners = tuple(
        model.Listener(
            name=f"p{port}",
            protocol=protocol,
            port=port,
            target_group="all",
            idle_timeout_s=idle_timeout_s,
        )
        for port in ports
    )
    check = model.HealthCheck(protocol="none")
    made = tuple(model.Target(ip=ip, port=port, weight=weight) for ip, port in targets)
    of_group = model.TargetGroup(name="all", targets=made, health_check=check)
    epoch = next(_epochs)
    return model.Desired(
        lb_id=lb_id,
        epoch=epoch,
        generation=epoch,
        spec=model.Spec(
            listeners=listeners,
            target_groups=(msgspec.structs.replace(of_group, **group),),
            source_ranges=source_ranges,
        ),
        addresses=(model.Address(family="ipv4", ip=bind[0], pool="default"),),
    )


def mixed_updates(bind: Place, targets: Sequence[Place], number: int) -> Iterator[model.Desired]:
    """Yield the load balancer as it begins, then `number` changes of every kind there is."""
    yield document(bind, targets)
    changes: list[dict[str, Any]] = [
        {"targets": targets[:1]},
        {"weight": 50},
        {"source_ranges": ("127.0.0.0/8", "10.0.0.0/8")},
        {"idle_timeout_s": 300},  # a swap
        {"more_ports": [8099]},  # a swap
        {"algorithm": "least_connections"},  # a swap
    ]
    for turn in range(number):
        change = dict(changes[turn // 2 % len(changes)]) if turn % 2 == 0 else {}
        yield document(bind, change.pop("targets", targets), **change)


def fan_out(
    made: dataplane.HostDataPlane, targets: Sequence[Place], number: int
) -> tuple[float, float]:
    """Return the seconds in which a target joined, and left, `number` load balancers."""
    binds = [(f"127.96.{10 + one // 200}.{1 + one % 200}", 8000) for one in range(number)]

    def all_with(wanted: Sequence[Place]) -> float:
        wishes = [document(bind, wanted, lb_id=f"fan-{i}") for i, bind in enumerate(binds)]
        began = time.perf_counter()
        list(pool.map(made.apply, wishes))
        return time.perf_counter() - began

    with ThreadPoolExecutor(WORKERS) as pool:
        all_with(targets[:1])
        return all_with(targets), all_with(targets[:1])
