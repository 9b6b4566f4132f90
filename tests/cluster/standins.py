"""Stand-in nodes: Node objects on loopback addresses with all that the cluster's outside sees.

Their pods are names and nominal addresses; what answers on their ports says that it is a stand-in.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import random
import socket
import ssl
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any

from tests.cluster import echo, errors, forwarding, kubeapi, pods, proxying

Json = dict[str, Any]

_log = logging.getLogger("tests.cluster")
HEALTH_PORT = 10256
_MOST_NODES = 250
_CLAIM = 254
# Second octets to choose from: clear of 127.0 (the host and its name) and of low ranges that people
# and load balancer pools pick by hand.
_SECOND_OCTETS = range(100, 200)
_RANGE_TRIES = 50
_START_TIMEOUT_S = 30.0


@dataclass(slots=True)
class StandIn:
    """One node: what its pods and its ports need to know."""

    name: str
    address: str
    pod_prefix: str
    labels: dict[str, str]
    schedulable: bool = True
    eligible: bool = True
    proxy_healthy: bool = True
    updated: str = ""
    health: echo.TcpListener | None = None


class StandIns:
    """The stand-in nodes of one control plane; an async context manager.

    Attributes: `nodes` by name.
    """

    def __init__(
        self, url: str, credentials: ssl.SSLContext, count: int = 3, *, seed: int | None = None
    ) -> None:
        """url, credentials: the API server's, as administrator. count: nodes at the start.

        seed: where the search for a free 127.x.y.0/24 begins; default anywhere.
        """
        self.nodes: dict[str, StandIn] = {}
        self._count = count
        self._random = random.Random(seed)
        self._api = kubeapi.KubeApi(url, credentials)
        self._pods = pods.Pods(self._api, self.nodes)
        self._forwarder = forwarding.Forwarder(self._api, self.nodes)
        self._tasks: set[asyncio.Task[None]] = set()
        self._claim: socket.socket | None = None
        self._prefix = ""
        self._made = 0

    async def __aenter__(self) -> StandIns:
        """Return with the nodes there and Ready.

        Raises: ClusterError if no range is free or the API server does not answer.
        """
        await self._api.__aenter__()
        try:
            self._prefix, self._claim = _free_range(self._random)
            async with asyncio.timeout(_START_TIMEOUT_S):
                for _ in range(self._count):
                    await self.add_node()
        except TimeoutError as error:
            await self._close()
            raise errors.ClusterError("the API server does not take the stand-in nodes") from error
        except BaseException:
            await self._close()
            raise
        follow = self._api.follow("/api/v1/nodes", self)
        for each in (follow, self._pods.run(), self._forwarder.run()):
            self._spawn(each)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def add_node(self, labels: dict[str, str] | None = None) -> StandIn:
        """Return a new node, Ready, with its health port open and every nodePort to follow."""
        if self._made >= _MOST_NODES:
            raise errors.ClusterError(f"{_MOST_NODES} stand-in nodes were made: no address is left")
        self._made += 1
        name = f"standin-{self._made}"
        node = StandIn(
            name=name,
            address=f"{self._prefix}.{self._made}",
            pod_prefix=f"10.64.{self._made}",
            labels={
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                **(labels or {}),
            },
        )
        node.health = await echo.listen_tcp(
            node.address,
            HEALTH_PORT,
            functools.partial(echo.HealthConnection, functools.partial(_node_health, node)),
        )
        self.nodes[name] = node
        try:
            await self._api.request("POST", "/api/v1/nodes", _node_object(node))
        except BaseException:
            self._forget(name)
            raise
        self._nodes_changed()
        return node

    async def remove_node(self, name: str) -> None:
        """Take a node away: its object, its pods, everything that listens on its address."""
        self._forget(name)
        try:
            await self._api.request("DELETE", f"/api/v1/nodes/{name}")
        except kubeapi.ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
        await self._pods.delete_on(name)

    async def set_node_ready(self, name: str, ready: bool) -> None:
        """Turn a node's Ready condition; its ports go on to answer."""
        await self._api.request(
            "PATCH",
            f"/api/v1/nodes/{name}/status",
            {"status": {"conditions": [_ready_condition(ready)]}},
            kubeapi.MERGE_PATCH,
        )

    async def set_ready(self, namespace: str, pod: str, ready: bool) -> None:
        """Turn a running pod Ready or not Ready; it stays so."""
        await self._pods.set_ready(namespace, pod, ready)

    def replaced(self, objects: list[Json]) -> None:
        """All Nodes there are (kubeapi.Follower)."""
        there = {each["metadata"]["name"]: each for each in objects}
        for name in [name for name in self.nodes if name not in there]:
            self._vanished(name)
        for each in there.values():
            self.changed("MODIFIED", each)

    def changed(self, event: str, item: Json) -> None:
        """A Node changed (kubeapi.Follower); one that someone deleted is gone for good."""
        name = item["metadata"]["name"]
        node = self.nodes.get(name)
        if node is None:
            return
        if event == "DELETED":
            self._vanished(name)
            return
        node.updated = _now()
        node.eligible = proxying.eligible(item)
        node.labels = dict(item["metadata"].get("labels") or {})
        schedulable = not item["spec"].get("unschedulable", False)
        if schedulable and not node.schedulable:
            self._pods.nodes_changed()
        node.schedulable = schedulable

    def _vanished(self, name: str) -> None:
        self._forget(name)
        self._spawn(self._pods.delete_on(name))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Tell at once of a task that failed: the cluster is of no use without it."""
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a stand-in task failed", exc_info=task.exception())

    def _forget(self, name: str) -> None:
        node = self.nodes.pop(name, None)
        if node is not None and node.health is not None:
            node.health.close()
        self._nodes_changed()

    def _nodes_changed(self) -> None:
        self._pods.nodes_changed()
        self._forwarder.nodes_changed()

    async def _close(self) -> None:
        ending = tuple(self._tasks)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for node in self.nodes.values():
            if node.health is not None:
                node.health.close()
        if self._claim is not None:
            self._claim.close()
        await self._api.__aexit__(None, None, None)


def _free_range(source: random.Random) -> tuple[str, socket.socket]:
    """Return "127.x.y" of a /24 that no other cluster uses, and the socket that claims it."""
    for _ in range(_RANGE_TRIES):
        prefix = f"127.{source.choice(_SECOND_OCTETS)}.{source.randrange(1, 255)}"
        claim = socket.socket()
        try:
            claim.bind((f"{prefix}.{_CLAIM}", HEALTH_PORT))
            claim.listen(1)
        except OSError as error:
            claim.close()
            last = error
        else:
            return prefix, claim
    raise errors.ClusterError(
        f"no 127.x.y.0/24 with a free port {HEALTH_PORT} found ({last}): "
        f"does another program listen on that port of all addresses?"
    )


def _node_object(node: StandIn) -> Json:
    cidr = f"{node.pod_prefix}.0/24"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": node.labels},
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": node.address},
                {"type": "Hostname", "address": node.name},
            ],
            "capacity": {"cpu": "8", "memory": "16Gi", "pods": "253"},
            "allocatable": {"cpu": "8", "memory": "16Gi", "pods": "253"},
            "conditions": [_ready_condition(ready=True)],
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": "",
                "containerRuntimeVersion": "stand-in://1",
                "kernelVersion": "",
                "kubeProxyVersion": "",
                "kubeletVersion": "stand-in",
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": "stand-in",
                "systemUUID": "",
            },
        },
    }


def _ready_condition(ready: bool) -> Json:
    now = _now()
    return {
        "type": "Ready",
        "status": str(ready),
        "reason": "StandIn",
        "message": "a stand-in node: it runs nothing",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }


def _node_health(node: StandIn, path: str) -> tuple[HTTPStatus, dict[str, str], bytes]:
    """Answer :10256 as kube-proxy's proxy_health.go does: /healthz, and /livez for itself."""
    if path not in ("/healthz", "/livez"):
        return HTTPStatus.NOT_FOUND, {}, b""
    now = _now()
    healthy = node.proxy_healthy
    updated = now if healthy else node.updated
    body: Json = {
        "lastUpdated": updated,
        "currentTime": now,
        "healthy": healthy,
        "status": {"IPv4": {"lastUpdated": updated, "healthy": healthy}},
    }
    if path == "/healthz":
        body["nodeEligible"] = node.eligible
        healthy = healthy and node.eligible
    status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
    return status, {"X-Content-Type-Options": "nosniff"}, json.dumps(body).encode()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
