"""A namespace with Services and pods, and how its Services are looked at from outside."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.error
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.cluster import embedded
from tests.flows.kube.world import World

Json = dict[str, Any]

FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
PORT = 8080
_MERGE = "application/merge-patch+json"
_CLIENTS = 16


class Shop:
    """One namespace of the world's cluster."""

    def __init__(self, world: World, namespace: str) -> None:
        self.world = world
        self.namespace = namespace
        self._path = f"/api/v1/namespaces/{namespace}"

    def pod(self, name: str, node: str) -> None:
        """Create a pod that every Service of the namespace selects."""
        self.world.cluster.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": {"app": "web"}},
                "spec": {
                    "nodeName": node,
                    "containers": [{"name": "web", "image": "nominal"}],
                    "terminationGracePeriodSeconds": 0,
                },
            },
            self.namespace,
        )

    def remove_pod(self, name: str) -> None:
        """Delete a pod."""
        self.world.cluster.request("DELETE", f"{self._path}/pods/{name}")

    def create(self, name: str = "web", *, metadata: Json | None = None, **spec: object) -> Json:
        """Create a Service of type LoadBalancer."""
        [made] = self.world.cluster.create(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, **(metadata or {})},
                "spec": {
                    "type": "LoadBalancer",
                    "selector": {"app": "web"},
                    "ports": [port(PORT)],
                    **spec,
                },
            },
            self.namespace,
        )
        return made

    def create_many(self, names: Iterable[str]) -> None:
        """Create Services at once, from several connections."""
        with ThreadPoolExecutor(_CLIENTS) as clients:
            list(clients.map(self.create, names))

    def get(self, name: str = "web") -> Json:
        """Return a Service as it is now."""
        return self.world.cluster.request("GET", f"{self._path}/services/{name}")

    def all(self) -> list[Json]:
        """Return all Services of the namespace."""
        found: list[Json] = self.world.cluster.request("GET", f"{self._path}/services")["items"]
        return found

    def change(self, name: str = "web", **spec: object) -> Json:
        """Merge `spec` into a Service's."""
        return self.world.cluster.request(
            "PATCH", f"{self._path}/services/{name}", {"spec": spec}, _MERGE
        )

    def patch_status(self, name: str, status: Json) -> Json:
        """Merge into a Service's status, as another controller would."""
        where = f"{self._path}/services/{name}/status"
        return self.world.cluster.request("PATCH", where, {"status": status}, _MERGE)

    def patch_finalizers(self, name: str, finalizers: list[str]) -> Json:
        """Set a Service's finalizers."""
        body = {"metadata": {"finalizers": finalizers}}
        return self.world.cluster.request("PATCH", f"{self._path}/services/{name}", body, _MERGE)

    def delete(self, name: str = "web") -> None:
        """Ask for a Service's deletion."""
        self.world.cluster.request("DELETE", f"{self._path}/services/{name}")

    def is_gone(self, name: str = "web") -> bool:
        """Say whether a Service is gone, finalizer and all."""
        try:
            self.get(name)
        except urllib.error.HTTPError as error:
            return error.code == 404
        return False

    def ip(self, name: str = "web", timeout_s: float = 20.0) -> str:
        """Return a Service's address, once it is there."""
        found = embedded.eventually(lambda: ingress(self.get(name)), timeout_s=timeout_s)
        address: str = found[0]["ip"]
        return address

    def balancer(self, name: str = "web") -> Json | None:
        """Return the load balancer of a Service, None if there is none."""
        return self.world.balancers().get(f"k8s-{self.get(name)['metadata']['uid']}")

    def target_nodes(self, name: str = "web") -> set[str]:
        """Return the nodes that a Service's load balancer sends new connections to."""
        found = self.balancer(name)
        groups = found["spec"]["target_groups"] if found else []
        targets = [target for group in groups for target in group["targets"]]
        return {target["node"] for target in targets if not target["drain"]}

    def annotate(self, name: str = "web", **annotations: str | None) -> Json:
        """Set annotations of fakecloud.dev, or remove them."""
        named = {f"fakecloud.dev/{key.replace('_', '-')}": one for key, one in annotations.items()}
        return self.world.cluster.request(
            "PATCH",
            f"{self._path}/services/{name}",
            {"metadata": {"annotations": named}},
            _MERGE,
        )

    def events(self, name: str = "web") -> Counter[tuple[str, str]]:
        """Return (type, reason) of a Service's events, and how often each was told."""
        told: Counter[tuple[str, str]] = Counter()
        where = f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events"
        for one in self.world.cluster.request("GET", where)["items"]:
            if one["regarding"].get("name") == name and one["regarding"]["kind"] == "Service":
                series = one.get("series") or {}
                told[one["type"], one["reason"]] += series.get("count", 1)
        return told

    def remove_services(self) -> None:
        """Delete every Service of the namespace and wait until they are gone."""
        for one in self.all():
            if one["spec"].get("loadBalancerClass", "fakecloud.dev/haproxy").startswith("other"):
                self.patch_finalizers(one["metadata"]["name"], [])
            if "deletionTimestamp" not in one["metadata"]:
                self.delete(one["metadata"]["name"])
        embedded.eventually(lambda: not self.all(), timeout_s=30)


def port(number: int, name: str = "http", **more: object) -> Json:
    """Return a port of a Service."""
    return {"name": name, "port": number, "protocol": "TCP", "targetPort": 80, **more}


def ingress(service: Json) -> list[Json]:
    """Return status.loadBalancer.ingress."""
    found: list[Json] = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    return found


def condition(service: Json, kind: str) -> Json:
    """Return a condition of a Service, {} if it has none of that type."""
    found: list[Json] = service["status"].get("conditions") or []
    return next((one for one in found if one["type"] == kind), {})


def ask(ip: str, number: int = PORT, source: str = "") -> Json | None:
    """Return what the pod says on a new connection, None if there is no answer."""
    connection = http.client.HTTPConnection(
        ip, number, timeout=5, source_address=(source, 0) if source else None
    )
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        said: Json = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException):
        return None
    else:
        return said
    finally:
        connection.close()


def ask_udp(ip: str, number: int, source_port: int = 0) -> Json | None:
    """Return what the pod says to a datagram, None if there is no answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("", source_port))
        client.settimeout(2)
        try:
            client.connect((ip, number))
            client.send(b"question")
            said: Json = json.loads(client.recv(4096).partition(b"\n")[0])
        except (OSError, ValueError):
            return None
        return said


def answer(ip: str, number: int = PORT, source: str = "") -> Json:
    """Return what the pod says, once it says something."""
    said = embedded.eventually(lambda: ask(ip, number, source))
    assert said is not None
    return said


def nodes_seen(ip: str, count: int = 8) -> set[str]:
    """Return the nodes that answer `count` requests; "" stands for no answer."""
    return {(ask(ip) or {"node": ""})["node"] for _ in range(count)}
