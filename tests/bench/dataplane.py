"""`python -m tests.bench.dataplane [PART…]`: our load balancers beside Envoy, nginx and a bare connection.

Everything runs in turns on one machine, one thread each, so that the ratios mean something.
A table for people, and as the last line one JSON object for machines.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import structlog

from tests.bench import memory, metering, ours, peers, traffic
from tests.bench.peers import Place, Running
from tests.demo.screen import Screen

NET: Final = "127.96.0"
TARGETS: Final = [(f"{NET}.10", 8001), (f"{NET}.11", 8001)]
ROUNDS: Final = 5
SECONDS: Final = 3.0
CONNECTIONS: Final = 50
SHORT_CONNECTIONS: Final = 100
SOCKETS: Final = 50
STORM_CONNECTIONS: Final = 200
UPDATES: Final = 60
PAUSE_S: Final = 0.15
BALANCERS: Final = 100
ENVOYS: Final = 10
FAN_OUT: Final = 500
_AIMS: Final = {
    "failed_connections": f"0 over {UPDATES} updates",
    "pss_per_lb_mb": "<= 3 (HAProxy 2.6), <= 4.5 (3.0)",
    "envoy_pss_mb": ">= 4 x ours",
    "ready_ms": "<= 50",
    "keepalive_vs_envoy": ">= 1.2",
    "keepalive_vs_nginx": ">= 0.95",
    "short_vs_envoy": ">= 1.2",
    "short_vs_nginx": ">= 0.95",
    "keepalive_vs_direct": "the limit is 1",
    "metering_error_bytes": "0",
    "fanout_500_s": "<= 0.5",
}
Peer = Callable[[Path, Place], AbstractContextManager[Running]]


def main() -> int:
    """Measure everything; print a table and one line of JSON."""
    screen = Screen()
    directory = Path(tempfile.mkdtemp(prefix="fc-bench-"))
    directory.chmod(0o711)
    try:
        with (directory / "log").open("w") as log:
            structlog.configure(logger_factory=structlog.WriteLoggerFactory(log))
            figures = _measure(screen, directory, sys.argv[1:])
    except (peers.Missing, RuntimeError) as error:
        screen.failure(f"{error}; logs: {directory}")
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    screen.act("All figures")
    rows = [[key, f"{value:.3f}", _AIMS.get(key, "")] for key, value in sorted(figures.items())]
    screen.table(["figure", "value", "aim"], rows, {1})
    print(json.dumps({key: round(value, 3) for key, value in sorted(figures.items())}))
    return 0


def _measure(screen: Screen, directory: Path, asked: list[str]) -> dict[str, float]:
    """Run the asked parts, all if none is asked. Raises: RuntimeError for one there isn't."""
    parts: dict[str, Callable[[Screen, Path], dict[str, float]]] = {
        "throughput": _throughput,
        "storm": _storm,
        "sizes": _sizes,
        "fan-out": _fan_out,
        "udp": _udp,
        "metering": _metering,
    }
    if unknown := set(asked) - set(parts):
        raise RuntimeError(f"{', '.join(unknown)}: the parts are {', '.join(parts)}")
    figures: dict[str, float] = {}
    with peers.web(directory / "web", TARGETS):
        for name, part in parts.items():
            if not asked or name in asked:
                figures |= part(screen, directory)
    return figures


def _throughput(screen: Screen, directory: Path) -> dict[str, float]:
    """Give the same requests to everybody in turns; ratios are medians over the rounds."""
    screen.act(f"Requests a second, {ROUNDS} rounds of {SECONDS:.0f} s each in turns")
    rates: dict[str, dict[str, list[float]]] = {"keepalive": {}, "short": {}}
    with contextlib.ExitStack() as stack:
        places: dict[str, Place] = {"direct": TARGETS[0]}
        for number, (name, peer) in enumerate(_tcp_peers().items(), start=20):
            places[name] = (f"{NET}.{number}", 8000)
            stack.enter_context(peer(directory / name, places[name]))
        for _ in range(ROUNDS):
            for name, place in places.items():
                for kind, connections in (
                    ("keepalive", CONNECTIONS),
                    ("short", SHORT_CONNECTIONS),
                ):
                    load = traffic.http(
                        place, seconds=SECONDS, connections=connections, short=kind == "short"
                    )
                    if load.failed:
                        raise RuntimeError(f"{name}: {load.failed} of {load.done} requests failed")
                    rates[kind].setdefault(name, []).append(load.per_second)
    _rates_table(screen, rates)
    keep, short = rates["keepalive"], rates["short"]
    return {
        "keepalive_vs_direct": _ratio(keep["ours"], keep["direct"]),
        "keepalive_vs_envoy": _ratio(keep["ours"], keep["envoy"]),
        "keepalive_vs_nginx": _ratio(keep["ours"], keep["nginx"]),
        "short_vs_envoy": _ratio(short["ours"], short["envoy"]),
        "short_vs_nginx": _ratio(short["ours"], short["nginx"]),
    }


def _tcp_peers() -> dict[str, Peer]:
    return {
        "ours": lambda directory, place: ours.running(directory, place, TARGETS),
        "envoy": lambda directory, place: peers.envoy(directory, place, TARGETS),
        "nginx": lambda directory, place: peers.nginx(directory, place, TARGETS),
    }


def _storm(screen: Screen, directory: Path) -> dict[str, float]:
    """Change a load balancer under as much load as it takes, by commands and by swaps."""
    screen.act(f"{UPDATES} mixed updates under saturating load")
    place = (f"{NET}.30", 8000)
    with ours.plane(directory / "storm") as plane:
        documents = ours.mixed_updates(place, TARGETS, UPDATES)
        plane.apply(next(documents))
        loads = [
            traffic.Http(place, seconds=60, connections=STORM_CONNECTIONS, short=True),
            traffic.Http(place, seconds=60, connections=STORM_CONNECTIONS // 4, short=False),
        ]
        time.sleep(1)
        seconds = []
        for document in documents:
            began = time.perf_counter()
            plane.apply(document)
            seconds.append(time.perf_counter() - began)
            time.sleep(PAUSE_S)
        if not all(load.running() for load in loads):
            raise RuntimeError("the load ended before the updates")
        done = [load.result() for load in loads]
    failed, total = sum(load.failed for load in done), sum(load.done for load in done)
    update_ms = statistics.median(seconds) * 1000
    for load in done:
        if load.failed:
            screen.line(f"failed: {load.kinds}")
    screen.line(f"{failed} of {total} failed; an update took {update_ms:.0f} ms (median)")
    return {"failed_connections": failed, "update_p50_ms": update_ms}


def _sizes(screen: Screen, directory: Path) -> dict[str, float]:
    """Start many of each: memory of one, and time until its first connection."""
    screen.act(f"Memory and start: {BALANCERS} of ours, {ENVOYS} Envoys")
    with ours.plane(directory / "many") as plane:
        ready = []
        for number in range(BALANCERS):
            place = (f"127.96.{1 + number // 200}.{1 + number % 200}", 8000)
            began = time.perf_counter()
            plane.apply(ours.document(place, TARGETS, lb_id=f"lb-{number}"))
            ready.append(time.perf_counter() - began)
        pids = ours.pids(directory / "many")
        pss_mb = memory.pss_mb(pids) / len(pids)
    with contextlib.ExitStack() as stack:
        envoys = [
            stack.enter_context(
                peers.envoy(directory / f"envoy-{number}", (f"{NET}.{40 + number}", 8000), TARGETS)
            )
            for number in range(ENVOYS)
        ]
        time.sleep(2)
        envoy_mb = memory.pss_mb(one.pid for one in envoys) / ENVOYS
        envoy_ready = statistics.median(one.ready_s for one in envoys)
    ready_ms = statistics.median(ready) * 1000
    screen.line(f"ours {pss_mb:.2f} MB, ready in {ready_ms:.0f} ms (median)")
    screen.line(f"Envoy {envoy_mb:.2f} MB, ready in {envoy_ready * 1000:.0f} ms (median)")
    return {"pss_per_lb_mb": pss_mb, "envoy_pss_mb": envoy_mb, "ready_ms": ready_ms}


def _fan_out(screen: Screen, directory: Path) -> dict[str, float]:
    """Bring a node into, and out of, many load balancers at once."""
    screen.act(f"A node joins and leaves {FAN_OUT} load balancers")
    with ours.plane(directory / "fan") as plane:
        seconds = ours.fan_out(plane, TARGETS, FAN_OUT)
    screen.line(", ".join(f"{one:.2f} s" for one in seconds))
    return {"fanout_500_s": max(seconds)}


def _udp(screen: Screen, directory: Path) -> dict[str, float]:
    screen.act(f"UDP round trips a second, {SOCKETS} sockets, {ROUNDS} rounds")
    udp = traffic.udp_program(directory)
    targets = [(f"{NET}.12", 8001), (f"{NET}.13", 8001)]
    kinds: dict[str, Peer] = {
        "ours": lambda place, bind: ours.running(place, bind, targets, udp=True),
        "envoy": lambda place, bind: peers.envoy(place, bind, targets, udp=True),
        "nginx": lambda place, bind: peers.nginx(place, bind, targets, udp=True),
    }
    rates: dict[str, list[float]] = {}
    with traffic.udp_echo(udp, targets), contextlib.ExitStack() as stack:
        places = {"direct": targets[0]}
        for number, (name, peer) in enumerate(kinds.items(), start=60):
            places[name] = (f"{NET}.{number}", 8000)
            stack.enter_context(peer(directory / f"udp-{name}", places[name]))
        for _ in range(ROUNDS):
            for name, place in places.items():
                load = traffic.udp_ping(udp, place, sockets=SOCKETS, seconds=SECONDS)
                rates.setdefault(name, []).append(load.per_second)
    _rates_table(screen, {"udp": rates})
    return {
        "udp_vs_envoy": _ratio(rates["ours"], rates["envoy"]),
        "udp_vs_nginx": _ratio(rates["ours"], rates["nginx"]),
    }


def _metering(screen: Screen, directory: Path) -> dict[str, float]:
    screen.act("Bytes metered, over updates of every kind")
    error = metering.error_bytes(directory / "metering", NET)
    screen.line(f"{error:.0f} bytes too many or too few")
    return {"metering_error_bytes": error}


def _ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(mine / theirs for mine, theirs in zip(one, other, strict=True))


def _rates_table(screen: Screen, rates: dict[str, dict[str, list[float]]]) -> None:
    rows = [
        [kind, name, f"{statistics.median(values):.0f}", f"{min(values):.0f}", f"{max(values):.0f}"]
        for kind, names in rates.items()
        for name, values in names.items()
    ]
    screen.table(["load", "through", "median", "min", "max"], rows, {2, 3, 4})


if __name__ == "__main__":
    sys.exit(main())
