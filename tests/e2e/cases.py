"""What the e2e cases share: a namespace each, a backend, Services, clients, and steady traffic."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.e2e import kind_cloud
from tests.e2e.commands import Failure, Kubectl, run

AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"
ADDRESS_S = 60
POD_S = 120
PAUSE_S = 0.02
ANSWER_S = 3.0

T = TypeVar("T")


def eventually(once: Callable[[], T], seconds: float = 60) -> T:
    """Return the first true result. Raises: AssertionError with the last failure."""
    deadline, last = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        try:
            if found := once():
                return found
        except (Failure, OSError, http.client.HTTPException, KeyError, IndexError) as error:
            last = str(error)
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:.0f} s: {last or 'it stays false'}")


def get(ip: str, port: int, path: str = "/hostname", timeout_s: float = ANSWER_S) -> str:
    """Return the body of a GET on a connection of its own. Raises: OSError, HTTPException."""
    door = http.client.HTTPConnection(ip, port, timeout=timeout_s)
    try:
        door.request("GET", path)
        answer = door.getresponse()
        if answer.status != 200:
            raise OSError(f"HTTP {answer.status}")
        return answer.read().decode()
    finally:
        door.close()


def datagram(ip: str, port: int, text: str = "hostname") -> str:
    """Return the answer to one datagram. Raises: OSError."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as door:
        door.settimeout(1)
        door.connect((ip, port))
        door.send(f"{text}\n".encode())
        return door.recv(1000).decode()


@dataclass
class Traffic:
    """What steady requests met: when each began, and what went wrong with it."""

    began: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    failed: list[tuple[float, str]] = field(default_factory=list)

    @property
    def gap_s(self) -> float:
        """Return the longest time without an answer: requests may hang instead of failing."""
        return max((b - a for a, b in itertools.pairwise(self.answered)), default=0.0)

    def whole(self) -> None:
        """Raises: AssertionError when a request failed."""
        assert self.began, "no request was made"
        shown = "; ".join(why for _, why in self.failed[:3])
        assert not self.failed, f"{len(self.failed)} of {len(self.began)} requests failed: {shown}"


@contextlib.contextmanager
def steady(ip: str, port: int) -> Iterator[Traffic]:
    """Make requests one after the other, each on its own connection, in the background."""
    seen, ends = Traffic(), threading.Event()

    def go() -> None:
        while not ends.is_set():
            now = time.monotonic()
            seen.began.append(now)
            try:
                get(ip, port, timeout_s=2.0)
                seen.answered.append(time.monotonic())
            except (OSError, http.client.HTTPException) as error:
                seen.failed.append((now, f"{type(error).__name__} {error}"))
            ends.wait(PAUSE_S)

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ends.set()
        thread.join(10)


class Case:
    """One case's own namespace in the cluster."""

    def __init__(self, kubectl: Kubectl, cluster: str, namespace: str) -> None:
        self.kubectl = kubectl
        self.cluster = cluster
        self.namespace = namespace

    def make(self) -> None:
        self.kubectl("create", "namespace", self.namespace)

    def remove(self, *, wait: bool = True) -> None:
        self.kubectl("delete", "namespace", self.namespace, "--ignore-not-found",
                     f"--wait={wait}".lower(), "--timeout=120s", timeout_s=140)  # fmt: skip

    def nodes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.kubectl.get("nodes")["items"]
        return found

    def workers(self) -> list[str]:
        """Return the nodes without a role: those that load balancers send to."""
        label = "node-role.kubernetes.io/control-plane"
        nodes = self.nodes()
        names = [one["metadata"]["name"] for one in nodes if label not in one["metadata"]["labels"]]
        return names or [nodes[0]["metadata"]["name"]]

    def apply(self, *objects: dict[str, Any]) -> None:
        for one in objects:
            one["metadata"]["namespace"] = self.namespace
        self.kubectl.apply(*objects)

    def backend(self, replicas: int = 2, **pod: Any) -> None:
        """Run `echo`: TCP 8080 and UDP 8081 say who answers; wait until all pods are ready."""
        self.apply(deployment(replicas, pod))
        self.kubectl("-n", self.namespace, "rollout", "status", "deployment/echo",
                     f"--timeout={POD_S}s", timeout_s=POD_S + 20)  # fmt: skip

    def service(self, name: str = "web", **spec: Any) -> str:
        """Make a Service of type LoadBalancer; return its first address."""
        annotations = spec.pop("annotations", {})
        self.apply(service(name, annotations, spec))
        return self.addresses(name)[0]

    def read(self, name: str = "web") -> dict[str, Any]:
        return self.kubectl.get("-n", self.namespace, "service", name)

    def addresses(self, name: str = "web", seconds: float = ADDRESS_S) -> list[str]:
        def published() -> list[str]:
            found = self.read(name)["status"]["loadBalancer"].get("ingress", [])
            return [one["ip"] for one in found]

        return eventually(published, seconds)

    def pods(self) -> list[dict[str, Any]]:
        place = ("-n", self.namespace, "pods", "-l", "app=echo")
        found = self.kubectl.get(*place, "--field-selector=status.phase=Running")["items"]
        return [one for one in found if "deletionTimestamp" not in one["metadata"]]

    def in_pod(self, *command: str, pod: str = "") -> str:
        name = pod or self.pods()[0]["metadata"]["name"]
        return self.kubectl("-n", self.namespace, "exec", name, "--", *command)

    def from_pod(self, ip: str, port: int, path: str = "/hostname", pod: str = "") -> str:
        return self.in_pod(*curl(ip, port, path), pod=pod)


def curl(ip: str, port: int, path: str = "/hostname") -> tuple[str, ...]:
    host = f"[{ip}]" if ":" in ip else ip
    return ("curl", "--silent", "--fail", "--max-time", "3", f"http://{host}:{port}{path}")


def from_node(node: str, ip: str, port: int, path: str = "/hostname") -> str:
    return run("docker", "exec", node, *curl(ip, port, path))


def refuses(once: Callable[[], Any]) -> bool:
    """Return whether there is no answer at all."""
    try:
        once()
    except (Failure, OSError, http.client.HTTPException):
        return True
    return False


def deployment(replicas: int, pod: dict[str, Any]) -> dict[str, Any]:
    container = {
        "name": "echo",
        "image": AGNHOST,
        "args": ["netexec", "--http-port=8080", "--udp-port=8081", "--delay-shutdown=5"],
        "ports": [{"containerPort": 8080}, {"containerPort": 8081, "protocol": "UDP"}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1},
    }
    container |= pod.pop("container", {})
    labels = {"app": "echo"}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 10, **pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "echo"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def service(name: str, annotations: dict[str, str], spec: dict[str, Any]) -> dict[str, Any]:
    web = {"name": "web", "port": 80, "targetPort": 8080}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"type": "LoadBalancer", "selector": {"app": "echo"}, "ports": [web], **spec},
    }


def cloud(cluster: str, *command: str, timeout_s: float = 60) -> str:
    """Return what a command of the cloud's client says, in the cluster's project."""
    project = f"FAKECLOUD_PROJECT={kind_cloud.project_of(cluster)}"
    return run("docker", "exec", "--env", project, kind_cloud.CONTAINER, "fakecloud", *command,
               timeout_s=timeout_s)  # fmt: skip


def balancers(cluster: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cloud(cluster, "lb", "list", "-o", "json"))
    return found
