"""`python -m tests.bench`: latency, memory and failed requests on the embedded cluster."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import latency, memory, updates
from tests.cluster import binaries, embedded
from tests.cluster.errors import ClusterError
from tests.demo import programs
from tests.demo.screen import Screen
from tests.demo.story import CloudActs, ClusterActs, StoryError, ask, until

NODES = 2
ROUNDS = {1: 20, 10: 5, 100: 1}
UPDATES = 20

_ECHO = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  replicas: 4
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      containers: [{name: echo, image: echo}]
"""


def main() -> int:
    """Measure everything; print a table and one line of JSON."""
    screen = Screen()
    directory = Path(tempfile.mkdtemp(prefix="fakecloud-bench-"))
    (directory / "cloud").mkdir(mode=0o700)
    try:
        with contextlib.ExitStack() as stack:
            figures = _measure(screen, directory, stack)
    except (StoryError, latency.Slow, programs.ProgramError, ClusterError) as error:
        screen.failure(f"{error}; logs: {directory}")
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps(figures))
    return 0


def _measure(screen: Screen, directory: Path, stack: contextlib.ExitStack) -> dict[str, float]:
    screen.act(f"Benchmark on the embedded cluster, {NODES} stand-in nodes")
    found = binaries.find(
        lambda progress: screen.line(f"{progress.fraction:4.0%} {progress.label}")
    )
    cloud = CloudActs(screen, directory / "cloud")
    stack.callback(cloud.end)
    cluster = stack.enter_context(embedded.EmbeddedCluster(found.directory, nodes=NODES))
    cloud.start()
    acts = ClusterActs(screen, cloud, cluster, directory)
    stack.callback(acts.end)
    acts.start()
    cluster.create(_ECHO)
    time.sleep(2)  # both programs come to rest
    figures = {
        "serve_rss_mb": memory.rss_mb(cloud.server.pid),
        "ccm_rss_mb": memory.rss_mb(acts.controller.pid),
    }
    watched = latency.Watched(cluster)
    stack.callback(watched.stop)
    samples: dict[int, latency.Sample] = {}
    for count, rounds in ROUNDS.items():
        addresses: list[float] = []
        answers: list[float] = []
        for number in range(rounds):
            prefix = f"bench-{count}-{number}"
            sample = latency.measure(cluster, watched, prefix, count)
            addresses += sample.addresses
            answers += sample.answers
            if count == 100:
                pids = programs.haproxies(directory / "cloud").values()
                figures["pss_per_lb_mb"] = memory.pss_mb(pids) / len(pids)
            latency.remove(cluster, prefix, count)
        samples[count] = latency.Sample(addresses, answers)
    figures |= _latencies(screen, samples)
    failed, done = _updates(cluster, cloud)
    figures["failed_requests"] = failed
    _table(screen, figures, done)
    return {key: round(value, 3) for key, value in sorted(figures.items())}


def _latencies(screen: Screen, samples: dict[int, latency.Sample]) -> dict[str, float]:
    rows = []
    for count, sample in samples.items():
        row = [f"{count} at once, {len(sample.addresses)} in all"]
        for values in (sample.addresses, sample.answers):
            row += [f"{latency.percentile(values, share) * 1000:.0f}" for share in (0.5, 0.95, 1.0)]
        rows.append(row)
    screen.act("Service created, then (ms)")
    screen.table(
        ["Services", "address p50", "p95", "max", "answer p50", "p95", "max"],
        rows,
        {1, 2, 3, 4, 5, 6},
    )
    return {
        "time_to_address_1_p50_ms": latency.percentile(samples[1].addresses, 0.5) * 1000,
        "time_to_address_10_p95_ms": latency.percentile(samples[10].addresses, 0.95) * 1000,
        "time_to_address_100_max_s": samples[100].addresses[-1],
        "time_to_answer_1_p50_ms": latency.percentile(samples[1].answers, 0.5) * 1000,
        "time_to_answer_100_max_s": samples[100].answers[-1],
    }


def _updates(cluster: embedded.EmbeddedCluster, cloud: CloudActs) -> tuple[int, int]:
    """Change targets under load: the nodes' ports of a Service that no controller touches."""
    made = cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "bench-node-port"},
            "spec": {
                "type": "NodePort",
                "selector": {"app": "echo"},
                "ports": [{"port": 80, "targetPort": 8080}],
            },
        }
    )
    port = made[0]["spec"]["ports"][0]["nodePort"]
    targets = [(ip, port) for ip in cluster.nodes.values()]
    for ip, _ in targets:
        until("the node port answers", lambda ip=ip: ask(ip, port))  # type: ignore[misc]
    return updates.failed_requests(cloud.cloud, targets, UPDATES)


def _table(screen: Screen, figures: dict[str, float], done: int) -> None:
    aims = {
        "time_to_address_1_p50_ms": "< 100",
        "time_to_address_100_max_s": "< 5",
        "pss_per_lb_mb": "<= 3",
        "serve_rss_mb": "<= 110",
        "ccm_rss_mb": "<= 90",
        "failed_requests": f"0 of {done}, {UPDATES} target updates",
    }
    screen.act("All figures")
    screen.table(
        ["figure", "value", "aim"],
        [[key, f"{value:.2f}", aims.get(key, "")] for key, value in sorted(figures.items())],
        {1},
    )


if __name__ == "__main__":
    sys.exit(main())
