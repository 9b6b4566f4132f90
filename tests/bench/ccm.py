"""`python -m tests.bench.ccm [PART…] [--idle-s=600] [--services=1000]`: the controller's numbers.

Real kube-apiserver, etcd and HAProxy on one machine. What the API server alone needs for the same
writes is measured in the same run, by a client that does nothing else. A table for people, and as
the last line one JSON object for machines.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvloop

from tests.bench import ccm_client, ccm_memory, ccm_thousand, latency
from tests.cluster import binaries, embedded
from tests.cluster.errors import ClusterError
from tests.demo import programs
from tests.demo.screen import Screen
from tests.fakes import ccm_trouble
from tests.flows.kube.world import World

NODES: Final = 2
OVERHEAD_COUNT: Final = 100
OVERHEAD_PAUSE_S: Final = 0.1
WITH_A_THOUSAND: Final = ("thousand", "nodes", "restart", "idle")
PARTS: Final = ("overhead", *WITH_A_THOUSAND, "memory", "faults")
_AIMS: Final = {
    "overhead_p50_ms": "< 50",
    "overhead_p99_ms": "< 250",
    "create_1000_vs_limit": "<= 2",
    "delete_1000_vs_limit": "<= 2",
    "node_add_1000_s": "< 3",
    "node_add_requests_per_lb": "<= 1",
    "idle_writes": "0",
    "restart_changes": "0",
    "restart_ready_s": "< 5",
    "rss_10k_mb": "<= 150",
    "lease_faults_held": f"{len(ccm_trouble.LEASE_FAULTS)}",
    "watch_faults_held": f"{len(ccm_trouble.WATCH)}",
}
Figures = dict[str, float]


def main() -> int:
    """Measure what is asked for; print a table and one line of JSON."""
    asked = _parse()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # installed programs are compiled once
    parts = frozenset(asked.parts or PARTS)
    screen = Screen()
    directory = Path(tempfile.mkdtemp(prefix="fc-bench-"))
    try:
        figures = _measure(screen, directory, parts, asked)
    except (ccm_client.Slow, programs.ProgramError, ClusterError) as error:
        screen.failure(f"{error}; logs: {directory}")
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    screen.act("All figures")
    rows = [[key, f"{value:.3f}", _AIMS.get(key, "")] for key, value in sorted(figures.items())]
    screen.table(["figure", "value", "aim"], rows, {1})
    print(json.dumps({key: round(value, 3) for key, value in sorted(figures.items())}))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ccm")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART",
                        help=f"of {', '.join(PARTS)}; default: all")  # fmt: skip
    parser.add_argument("--idle-s", type=float, default=600.0, help="how long idle_writes counts")
    parser.add_argument("--services", type=int, default=ccm_thousand.COUNT,
                        help="instead of 1000, for trying")  # fmt: skip
    parser.add_argument("--many", type=int, default=ccm_memory.SERVICES,
                        help="Services of the part memory, for trying")  # fmt: skip
    return parser.parse_args()


def _measure(
    screen: Screen, directory: Path, parts: frozenset[str], asked: argparse.Namespace
) -> Figures:
    figures: Figures = {}
    if "overhead" in parts:
        screen.act(f"{OVERHEAD_COUNT} Services, one every {OVERHEAD_PAUSE_S:g} s")
        with _world(directory / "overhead") as world:
            figures |= _overhead(world)
    if among := parts.intersection(WITH_A_THOUSAND):
        screen.act(f"{asked.services} Services at once, {', '.join(sorted(among))}")
        with _world(directory / "thousand", start=False) as world:
            figures |= ccm_thousand.Thousand(world, asked.services).run(among, asked.idle_s)
    if "memory" in parts:
        screen.act(f"{asked.many} Services, no data plane")
        with _cluster() as cluster:
            place = directory / "memory"
            place.mkdir()
            figures |= ccm_memory.measure(cluster, place, asked.many)
    if "faults" in parts:
        screen.act("Faults of the API server")
        figures["lease_faults_held"] = uvloop.run(ccm_trouble.held(ccm_trouble.LEASE_FAULTS))
        figures["watch_faults_held"] = uvloop.run(ccm_trouble.held(ccm_trouble.WATCH))
    return figures


def _overhead(world: World) -> Figures:
    uvloop.run(ccm_thousand.overheads(world, 10, OVERHEAD_PAUSE_S))  # every path once
    found = uvloop.run(ccm_thousand.overheads(world, OVERHEAD_COUNT, OVERHEAD_PAUSE_S))
    return {
        "overhead_p50_ms": latency.percentile(found, 0.5) * 1000,
        "overhead_p99_ms": latency.percentile(found, 0.99) * 1000,
    }


@contextlib.contextmanager
def _cluster() -> Iterator[embedded.EmbeddedCluster]:
    with embedded.EmbeddedCluster(binaries.find().directory, nodes=NODES) as cluster:
        yield cluster


@contextlib.contextmanager
def _world(directory: Path, *, start: bool = True) -> Iterator[World]:
    """Give both programs on a cluster of their own; the controller elects itself as in a pod."""
    directory.mkdir(parents=True)
    with _cluster() as cluster:
        world = World(cluster, directory)
        world.ccm = world.controller("ccm.log")
        try:
            if start:
                world.start()
            yield world
        finally:
            world.end()


if __name__ == "__main__":
    sys.exit(main())
