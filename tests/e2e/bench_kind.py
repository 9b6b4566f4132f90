"""`make bench-kind`: how fast, how small and how steady, beside cloud-provider-kind on this cluster.

    python3 -m tests.e2e.bench_kind [--cluster NAME] [--peer FILE] [--count 50] [--image NAME]

After `make kind`. Needs docker, kind and kubectl, and root for memory (PSS). --peer: the binary of
cloud-provider-kind, made by `python3 -m tests.e2e.peer`; without it its columns stay empty. While
it runs, our controller is scaled to zero. A table, and a last line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, Final

from tests.e2e import (
    bench_kind_api,
    bench_kind_memory,
    bench_kind_rolling,
    cases,
    kind_cluster,
    peer,
    scoreboard,
)
from tests.e2e.commands import Failure, Kubectl, run

NAMESPACE: Final = "fakecloud-bench"
BACKEND: Final = "echo"
SINGLES: Final = 5
AT_ONCE: Final = 8
FEW: Final = (1, 10)
ADDRESS_S: Final = 180
GONE_S: Final = 180
CONTROLLER: Final = ("-n", "kube-system", "scale", "deployment", "fakecloud-ccm")
ROWS: Final = {
    "time_to_address_1_p50_s": "Service to address, one at a time, median (s)",
    "time_to_answer_1_p50_s": "Service to first answer, one at a time, median (s)",
    "time_to_address_50_max_s": "{count} at once: all have an address (s)",
    "time_to_delete_50_s": "{count} deleted: all are gone (s)",
    "memory_1_mb": "memory with 1, all processes (MB)",
    "memory_10_mb": "memory with 10 (MB)",
    "memory_50_mb": "memory with {count} (MB)",
    "rolling_failed_requests": "requests that failed while the backend rolled",
}
Figures = dict[str, float]


def main(arguments: list[str]) -> int:
    """Measure and print; 0 done, 1 a step failed."""
    parser = argparse.ArgumentParser(prog="tests.e2e.bench_kind", description=__doc__)
    parser.add_argument("--cluster", help="kind cluster; may be left out if there is one")
    parser.add_argument("--container", default="fakecloud", help="the cloud's container")
    parser.add_argument("--image", help="measured compressed; default: the container's")
    parser.add_argument("--peer", type=Path, help="cloud-provider-kind")
    parser.add_argument("--count", type=int, default=50, help="load balancers at once")
    wish = parser.parse_args(arguments)
    try:
        figures = measure(wish)
    except Failure as failure:
        sys.stderr.write(f"make bench-kind: {failure}\n")
        return 1
    _show(figures, wish.count)
    print(json.dumps(figures))
    return 0


def measure(wish: argparse.Namespace) -> Figures:
    """Return every figure by its key. Raises: Failure."""
    cluster = wish.cluster or kind_cluster.only()
    with tempfile.TemporaryDirectory(prefix="fakecloud-bench-") as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(run("kind", "get", "kubeconfig", "--name", cluster))
        kubectl = Kubectl(kubeconfig)
        with _backend(kubectl), bench_kind_api.Api(kubectl, Path(folder), NAMESPACE) as api:
            ours = _measure_one(api, kubectl, wish.count, lambda: _our_memory(wish, cluster))
            found = dict(ours)
            if wish.peer is not None:
                with _without_us(kubectl), peer.running(wish.peer) as process:
                    theirs = _measure_one(
                        api,
                        kubectl,
                        wish.count,
                        lambda: bench_kind_memory.of_peer(process, cluster),
                    )
                found |= {f"peer_{key}": value for key, value in theirs.items()}
    found["image_mb"] = _image_mb(wish)
    runs = scoreboard.load()
    best = max(runs, key=lambda one: (one.count(scoreboard.PASSED), one.when), default=None)
    for outcome in (scoreboard.PASSED, scoreboard.FAILED, scoreboard.SKIPPED):
        found[f"specs_{outcome}"] = best.count(outcome) if best else 0
    return found


def _measure_one(
    api: bench_kind_api.Api, kubectl: Kubectl, count: int, memory_mb: Callable[[], float]
) -> Figures:
    """Measure whoever serves Services now."""
    addresses, answers = [], []
    for number in range(SINGLES + 1):
        name = f"one-{number}"
        began = api.create(_service(name))
        address, at = api.address_of(name, ADDRESS_S)
        addresses.append(at - began)
        answers.append(bench_kind_rolling.first_answer(address, ADDRESS_S) - began)
        print(f"  one: {addresses[-1]:.3f} s to address, {answers[-1]:.3f} s to answer", flush=True)
        api.delete(name)
        api.gone([name], GONE_S)
    few = {number: _at_once(api, number, memory_mb) for number in FEW}
    took, used, gone = _at_once(api, count, memory_mb)
    api.create(_service("rolling"))
    address, _ = api.address_of("rolling", ADDRESS_S)
    bench_kind_rolling.first_answer(address, ADDRESS_S)
    failed = bench_kind_rolling.failed_while_rolling(kubectl, NAMESPACE, BACKEND, address)
    api.delete("rolling")
    api.gone(["rolling"], GONE_S)
    return {
        # The first one is for warming up.
        "time_to_address_1_p50_s": round(statistics.median(addresses[1:]), 3),
        "time_to_answer_1_p50_s": round(statistics.median(answers[1:]), 3),
        "time_to_address_50_max_s": round(took, 3),
        "time_to_delete_50_s": round(gone, 3),
        **{f"memory_{number}_mb": round(mb, 1) for number, (_, mb, _) in few.items()},
        "memory_50_mb": round(used, 1),
        "rolling_failed_requests": failed,
    }


def _at_once(
    api: bench_kind_api.Api, count: int, memory_mb: Callable[[], float]
) -> tuple[float, float, float]:
    """Return seconds to the last address, MB with all of them, seconds to the last's deletion."""
    names = [f"of-{count}-{number}" for number in range(count)]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        began = min(threads.map(lambda name: api.create(_service(name)), names))
        took = max(api.address_of(name, ADDRESS_S)[1] for name in names) - began
        used = memory_mb()
        leaving = time.monotonic()
        list(threads.map(api.delete, names))
        gone = api.gone(names, GONE_S) - leaving
    print(f"  {count}: {took:.3f} s to the last address, {used:.0f} MB, {gone:.3f} s to be gone",
          flush=True)  # fmt: skip
    return took, used, gone


def _service(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": BACKEND},
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    }


@contextmanager
def _backend(kubectl: Kubectl) -> Iterator[None]:
    """Run three pods that answer HTTP and take their time to leave."""
    backend = cases.deployment(3, {})
    backend["metadata"]["namespace"] = NAMESPACE
    kubectl.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, backend
    )
    try:
        kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{BACKEND}", "--timeout=180s",
                timeout_s=200)  # fmt: skip
        yield
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@contextmanager
def _without_us(kubectl: Kubectl) -> Iterator[None]:
    """Let our controller rest: two providers for one Service would fight."""
    before = kubectl("-n", "kube-system", "get", "deployment", "fakecloud-ccm", "-o",
                     "jsonpath={.spec.replicas}").strip()  # fmt: skip
    kubectl(*CONTROLLER, "--replicas=0")
    kubectl("-n", "kube-system", "wait", "--for=delete", "pod", "-l",
            "app.kubernetes.io/name=fakecloud-ccm", "--timeout=60s", timeout_s=80)  # fmt: skip
    try:
        yield
    finally:
        kubectl(*CONTROLLER, f"--replicas={before or 1}")


def _our_memory(wish: argparse.Namespace, cluster: str) -> float:
    return bench_kind_memory.of_us(wish.container, cluster)


def _image_mb(wish: argparse.Namespace) -> float:
    """Return the image's size as a registry would keep it: layers compressed."""
    name = wish.image or run("docker", "inspect", "--format", "{{.Config.Image}}", wish.container)
    packed, size = zlib.compressobj(6, wbits=31), 0
    with Popen(["docker", "save", name.strip()], stdout=PIPE) as saving:
        assert saving.stdout is not None
        while part := saving.stdout.read(1 << 20):
            size += len(packed.compress(part))
    return round((size + len(packed.flush())) / 1e6, 1)


def _show(figures: Figures, count: int) -> None:
    print(f"\n| what | fakecloud | cloud-provider-kind |\n|{'---|' * 3}")
    for key, text in ROWS.items():
        other = figures.get(f"peer_{key}", "")
        print(f"| {text.format(count=count)} | {figures[key]} | {other} |")
    print(f"| image, compressed (MB) | {figures['image_mb']} | |\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
