"""Time from the creation of Services to their addresses, and to the first answer through them."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.cluster import embedded
from tests.demo import traffic

PORT = 8080
_PATH = "/api/v1/namespaces/default/services"
_TIMEOUT_S = 120.0
_CLIENTS = 16


class Slow(Exception):
    """Services without an address, or without an answer, after the timeout."""


class Sample:
    """Seconds for each Service of one round: to its address, and to its first HTTP 200."""

    def __init__(self, addresses: Sequence[float], answers: Sequence[float]) -> None:
        self.addresses = sorted(addresses)
        self.answers = sorted(answers)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of the values don't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


class Watched:
    """Notes when each Service's address appears, from one watch of the API server."""

    def __init__(self, cluster: embedded.EmbeddedCluster) -> None:
        self._cluster = cluster
        self._seen: dict[str, tuple[float, str]] = {}
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._response: http.client.HTTPResponse | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def address(self, name: str, timeout_s: float) -> tuple[float, str]:
        """Return when the Service had an address (monotonic seconds), and which."""
        with self._changed:
            if not self._changed.wait_for(lambda: name in self._seen, timeout_s):
                raise Slow(f"Service {name} has no address after {timeout_s:g} s")
            return self._seen[name]

    def stop(self) -> None:
        """End the watch."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._follow()

    def _follow(self) -> None:
        control_plane = self._cluster.control_plane
        host = control_plane.url.removeprefix("https://")
        connection = http.client.HTTPSConnection(
            host, context=control_plane.credentials, timeout=10
        )
        try:
            connection.request("GET", f"{_PATH}?watch=true&timeoutSeconds=300")
            for line in connection.getresponse():
                self._note(json.loads(line)["object"], time.monotonic())
                if self._stop.is_set():
                    return
        except (OSError, http.client.HTTPException, KeyError, ValueError):
            return
        finally:
            connection.close()

    def _note(self, service: dict[str, Any], now: float) -> None:
        name = service["metadata"]["name"]
        ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress")
        if ingress and name not in self._seen:
            with self._changed:
                self._seen[name] = (now, ingress[0]["ip"])
                self._changed.notify_all()


def measure(cluster: embedded.EmbeddedCluster, watched: Watched, prefix: str, count: int) -> Sample:
    """Create `count` Services at once; return their times, counted from each one's creation."""
    names = [f"{prefix}-{number}" for number in range(count)]
    with ThreadPoolExecutor(min(count, _CLIENTS)) as clients:
        began = dict(
            zip(names, clients.map(lambda name: _create(cluster, name), names), strict=True)
        )
    with ThreadPoolExecutor(min(count, 2 * _CLIENTS)) as askers:
        times = list(askers.map(lambda name: _times(watched, name, began[name]), names))
    return Sample([address for address, _ in times], [answer for _, answer in times])


def remove(cluster: embedded.EmbeddedCluster, prefix: str, count: int) -> None:
    """Delete the Services of a round and wait until they are gone."""
    names = [f"{prefix}-{number}" for number in range(count)]
    with ThreadPoolExecutor(min(count, _CLIENTS)) as clients:
        list(clients.map(lambda name: cluster.request("DELETE", f"{_PATH}/{name}"), names))
    for name in names:
        deadline = time.monotonic() + _TIMEOUT_S
        while _exists(cluster, name):
            if time.monotonic() > deadline:
                raise Slow(f"Service {name} is still there after {_TIMEOUT_S:g} s")
            time.sleep(0.02)


def _create(cluster: embedded.EmbeddedCluster, name: str) -> float:
    cluster.request(
        "POST",
        _PATH,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {
                "type": "LoadBalancer",
                "selector": {"app": "echo"},
                "ports": [{"port": PORT, "targetPort": 8080}],
            },
        },
    )
    return time.monotonic()


def _times(watched: Watched, name: str, began: float) -> tuple[float, float]:
    seen, ip = watched.address(name, _TIMEOUT_S)
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            traffic.get(ip, PORT, 2.0)
        except (OSError, http.client.HTTPException):
            if time.monotonic() > deadline:
                raise Slow(f"{name} at {ip} does not answer after {_TIMEOUT_S:g} s") from None
            time.sleep(0.002)
        else:
            return seen - began, time.monotonic() - began


def _exists(cluster: embedded.EmbeddedCluster, name: str) -> bool:
    try:
        cluster.request("GET", f"{_PATH}/{name}")
    except urllib.error.HTTPError as error:
        return error.code != 404
    return True
