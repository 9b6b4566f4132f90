"""Pods on stand-in nodes: bound, Running and Ready at once, gone as soon as they may be."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from tests.cluster import errors, kubeapi, work

Json = dict[str, Any]

_log = logging.getLogger("tests.cluster")
_WORKERS = 16
_LONGEST_PRE_STOP_S = 3600


class Host(Protocol):
    """What pods need to know of their node."""

    pod_prefix: str
    labels: dict[str, str]
    schedulable: bool


class Pods:
    """Does for every pod what scheduler and kubelet would, without running anything.

    A terminating pod goes at once, or after its `preStop.sleep`. Pods whose nodeName is not one of
    `hosts` are left alone.
    """

    def __init__(self, api: kubeapi.KubeApi, hosts: Mapping[str, Host]) -> None:
        self._api = api
        self._hosts = hosts
        self._pods: dict[str, Json] = {}
        self._addresses: dict[str, str] = {}
        self._placed: dict[str, str] = {}
        self._stopping: dict[str, float] = {}
        self._work = work.Work(self._step)

    def replaced(self, objects: list[Json]) -> None:
        known = set(self._pods)
        self._pods = {_key(pod): pod for pod in objects}
        for key in known | set(self._pods):
            self._work.add(key)

    def changed(self, event: str, item: Json) -> None:
        key = _key(item)
        if event == "DELETED":
            self._pods.pop(key, None)
        else:
            self._pods[key] = item
        self._work.add(key)

    def nodes_changed(self) -> None:
        """Try again to place the pods that have no node."""
        for key, pod in self._pods.items():
            if not pod["spec"].get("nodeName"):
                self._work.add(key)

    async def run(self) -> None:
        """Work for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._api.follow("/api/v1/pods", self))
            for _ in range(_WORKERS):
                group.create_task(self._work.run())

    async def set_ready(self, namespace: str, name: str, ready: bool) -> None:
        """Turn a running pod Ready or not Ready; it stays so."""
        await self._write_status(
            f"/api/v1/namespaces/{namespace}/pods/{name}", {"conditions": _conditions(ready)}
        )

    async def delete_on(self, node: str) -> None:
        """Delete the pods of a node that is gone."""
        gone = [key for key, pod in self._pods.items() if pod["spec"].get("nodeName") == node]
        await asyncio.gather(*(self._delete(key) for key in gone))

    async def _step(self, key: str) -> None:
        pod = self._pods.get(key)
        if pod is None:
            self._addresses.pop(key, None)
            self._placed.pop(key, None)
            self._stopping.pop(key, None)
            return
        node = pod["spec"].get("nodeName", "")
        if not node:
            await self._place(key, pod)
        elif node not in self._hosts:
            return
        elif "deletionTimestamp" in pod["metadata"]:
            await self._end(key, pod)
        elif pod.get("status", {}).get("phase", "Pending") == "Pending":
            await self._begin(key, pod, self._hosts[node])

    async def _place(self, key: str, pod: Json) -> None:
        node = self._choose(pod)
        if node is None:
            return
        self._placed[key] = node
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/binding"
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        await self._api.request(
            "POST",
            path,
            {"metadata": {"name": metadata["name"], "uid": metadata["uid"]}, "target": target},
        )

    def _choose(self, pod: Json) -> str | None:
        """Return the node with the fewest pods of the same owner, then the fewest pods."""
        wanted = pod["spec"].get("nodeSelector") or {}
        fit = [
            name
            for name, host in self._hosts.items()
            if host.schedulable and wanted.items() <= host.labels.items()
        ]
        if not fit:
            return None
        siblings: Counter[str] = Counter()
        total: Counter[str] = Counter()
        owner = _owner(pod)
        for key, other in self._pods.items():
            node = other["spec"].get("nodeName") or self._placed.get(key, "")
            total[node] += 1
            siblings[node] += _owner(other) == owner
        return min(fit, key=lambda name: (siblings[name], total[name], fit.index(name)))

    async def _begin(self, key: str, pod: Json, host: Host) -> None:
        address = self._addresses.get(key) or self._free_address(host)
        self._addresses[key] = address
        now = _now()
        containers = [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "stand-in",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            for container in pod["spec"]["containers"]
        ]
        await self._write_status(
            _path(pod),
            {
                "phase": "Running",
                "podIP": address,
                "podIPs": [{"ip": address}],
                "startTime": now,
                "conditions": _conditions(ready=True),
                "containerStatuses": containers,
            },
        )

    def _free_address(self, host: Host) -> str:
        taken = set(self._addresses.values())
        for last in range(2, 255):
            address = f"{host.pod_prefix}.{last}"
            if address not in taken:
                return address
        raise errors.ClusterError(f"all 253 pod addresses of {host.pod_prefix}.0/24 are taken")

    async def _end(self, key: str, pod: Json) -> None:
        if pod["metadata"].get("deletionGracePeriodSeconds") == 0:
            return  # only its finalizers hold it
        loop = asyncio.get_running_loop()
        due = self._stopping.setdefault(key, loop.time() + _pre_stop_s(pod))
        if due > loop.time():
            self._work.add_later(key, due - loop.time())
        else:
            await self._delete(key)

    async def _delete(self, key: str) -> None:
        pod = self._pods.get(key)
        if pod is None:
            return
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        try:
            await self._api.request("DELETE", _path(pod), options)
        except kubeapi.ApiError as error:
            if error.status not in (404, 409):
                raise

    async def _write_status(self, path: str, status: Json) -> None:
        await self._api.request("PATCH", f"{path}/status", {"status": status}, kubeapi.MERGE_PATCH)


def _conditions(ready: bool) -> list[Json]:
    now = _now()
    state = str(ready)
    return [
        {"type": kind, "status": value, "lastTransitionTime": now}
        for kind, value in (
            ("PodScheduled", "True"),
            ("Initialized", "True"),
            ("ContainersReady", state),
            ("Ready", state),
        )
    ]


def _pre_stop_s(pod: Json) -> float:
    """Return how long the pod stays while it terminates: its longest preStop sleep."""
    grace = pod["metadata"].get("deletionGracePeriodSeconds", 0)
    sleeps = [
        ((container.get("lifecycle") or {}).get("preStop") or {}).get("sleep") or {}
        for container in pod["spec"]["containers"]
    ]
    longest = max((sleep.get("seconds", 0) for sleep in sleeps), default=0)
    return float(min(longest, grace, _LONGEST_PRE_STOP_S))


def _owner(pod: Json) -> str:
    owners = pod["metadata"].get("ownerReferences") or ({"uid": ""},)
    return str(owners[0]["uid"])


def _key(pod: Json) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _path(pod: Json) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
