"""What `make kind` shows: Services from <pending> to an address, and who reaches it."""

from __future__ import annotations

import json
import platform
import queue
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO

from tests.e2e.commands import ROOT, Failure, Kubectl, run

SAMPLES = ROOT / "manifests" / "samples"
ADDRESS_S = 90
ANSWER_S = 180  # the samples' image may have to be pulled first
_EVENTS = (  # no tabs: kubectl would make columns of them
    "{.type};{.object.metadata.namespace}/{.object.metadata.name};"
    '{.object.status.loadBalancer.ingress[*].ip}{"\\n"}'
)


@dataclass
class Balanced:
    """A Service of type LoadBalancer as it came to its address."""

    name: str  # namespace/name
    ports: list[int]
    selector: str
    pending_at: float | None = None
    addressed_at: float | None = None
    addresses: list[str] = field(default_factory=list)


def watch_addresses(kubectl: Kubectl) -> list[Balanced]:
    """Apply the samples; return their load-balanced Services once each has an address."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    command = (*kubectl.base, "get", "services", "--all-namespaces", "--watch",
               "--output-watch-events", "-o", f"jsonpath={_EVENTS}")  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        reader = threading.Thread(target=_forward, args=(watch.stdout, lines), daemon=True)
        reader.start()
        try:
            _await_first(lines)
            wanted = _apply(kubectl)
            _follow(lines, wanted)
        finally:
            watch.terminate()
    return list(wanted.values())


def _forward(stream: IO[str], lines: queue.SimpleQueue[str]) -> None:
    for line in stream:
        lines.put(f"{time.monotonic()};{line.rstrip()}")
    lines.put("")


def _next(lines: queue.SimpleQueue[str], seconds: float) -> str | None:
    """Return the next event, None if none came in time. Raises: Failure when the watch ended."""
    try:
        line = lines.get(timeout=max(0.01, seconds))
    except queue.Empty:
        return None
    if not line:
        raise Failure("`kubectl get services --watch` ended: is the API server up?")
    return line


def _await_first(lines: queue.SimpleQueue[str]) -> None:
    """Wait for the list that precedes the watch: the Service `kubernetes` is in every cluster."""
    first = _next(lines, 20)
    if first is None:
        raise Failure("the cluster shows no Service within 20 s: is its API server up?")
    lines.put(first)  # it may be one of ours, from an earlier run


def _apply(kubectl: Kubectl) -> dict[str, Balanced]:
    applied = json.loads(kubectl("apply", "-k", str(SAMPLES), "-o", "json"))
    return {
        name: Balanced(
            name,
            [port["port"] for port in item["spec"]["ports"]],
            ",".join("=".join(pair) for pair in item["spec"]["selector"].items()),
        )
        for item in applied["items"]
        if item["kind"] == "Service" and item["spec"].get("type") == "LoadBalancer"
        for name in [f"{item['metadata']['namespace']}/{item['metadata']['name']}"]
    }


def _follow(lines: queue.SimpleQueue[str], wanted: dict[str, Balanced]) -> None:
    """Read events until each has an address. Raises: Failure naming those that have none."""
    deadline = time.monotonic() + ADDRESS_S
    while waiting := [one for one in wanted.values() if not one.addresses]:
        line = _next(lines, deadline - time.monotonic())
        if line is None:
            names = ", ".join(one.name for one in waiting)
            raise Failure(
                f"no address after {ADDRESS_S} s: {names}\n"
                "  why: kubectl describe service …; kubectl -n kube-system logs "
                "deployment/fakecloud-ccm; docker logs fakecloud"
            )
        at, _event, name, addresses = line.split(";")
        one = wanted.get(name)
        if one is None or one.addresses:
            continue
        one.pending_at = one.pending_at or float(at)
        if addresses:
            one.addressed_at, one.addresses = float(at), addresses.split()
            took = one.addressed_at - one.pending_at
            before = f"<pending> for {took * 1000:.0f} ms" if took else "was there before"
            print(f"  {name:<24} {', '.join(one.addresses):<18} {before}", flush=True)


def answer_everywhere(kubectl: Kubectl, node: str, services: list[Balanced]) -> None:
    """Ask the first Service from this machine, from a node and from a pod, and say what came.

    Raises: Failure naming who got no answer.
    """
    first = services[0]
    target = f"{first.addresses[0]}:{first.ports[0]}"
    url = f"http://{target}/hostname"
    if platform.system() == "Linux":
        _say_answer("this machine", target, _eventually(lambda: _get(url)))
    else:
        print("  not asked from here: containers' addresses are not reachable on this system")
    curl = ("docker", "exec", node, "curl", "--silent", "--fail", "--max-time", "3", url)
    _say_answer("a node", target, _eventually(lambda: run(*curl)))
    inside = _pod_of(kubectl, first)
    _eventually(lambda: kubectl(*inside, "/agnhost", "connect", target, "--timeout=3s"))
    _say_answer("a pod", target, "connected")


def _pod_of(kubectl: Kubectl, service: Balanced) -> tuple[str, ...]:
    """Return the start of a command that runs inside a pod behind `service`."""
    place = ("-n", service.name.partition("/")[0])
    running = ("--field-selector=status.phase=Running", "-l", service.selector)
    pods = kubectl.get(*place, "pods", *running)["items"]
    if not pods:
        raise Failure(f"no pod runs behind {service.name}")
    return (*place, "exec", pods[0]["metadata"]["name"], "--")


def _get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            return str(answer.read(200).decode(errors="replace"))
    except (OSError, urllib.error.URLError) as error:
        raise Failure(f"{url} does not answer: {error}") from None


def _eventually(once: Callable[[], str]) -> str:
    deadline = time.monotonic() + ANSWER_S
    while True:
        try:
            return once()
        except Failure:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


def _say_answer(who: str, target: str, text: str) -> None:
    print(f"  {who:<12} → {target}: {text.strip()[:80]}", flush=True)
