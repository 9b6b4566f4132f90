"""The controller's memory with ten thousand Services, as many load balancers and a thousand Nodes.

The cloud has no data plane here, and the load balancers send to the Services' pods: with a target
for each of a thousand nodes, ten million of them would measure the test.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Final

import uvloop

from tests.bench import ccm_client, memory
from tests.bench.ccm_client import Slow
from tests.cluster import embedded
from tests.demo import programs
from tests.flows.kube.world import RBAC, World

SERVICES: Final = 10_000
NODES: Final = 1_000
PODS: Final = 4
_FLAGS: Final = ("--pod-networks=10.64.0.0/16", "--no-reachability-check")
_PODS_RBAC: Final = RBAC.parents[1] / "components" / "pod-networks" / "rbac.yaml"
_TIMEOUT_S: Final = 900.0
_ANNOTATIONS: Final = {"fakecloud.dev/health-check-protocol": "none"}


def measure(cluster: embedded.EmbeddedCluster, directory: Path, count: int) -> dict[str, float]:
    """Return the resident memory once all Services have addresses. Raises: Slow."""
    world = World(cluster, directory)
    state = directory / "cloud"
    arguments = ["-m", "tests.bench.api_server", str(state), f"sqlite:///{directory}/cloud.db", "1"]
    world.serve = programs.Program("python", arguments, directory / "serve.log", {})
    try:
        world.url = world.serve.start("ready at").split()[-1]
        shutil.copy(state / "admin.token", world.token_file)
        cluster.kubectl("apply", "--namespace=kube-system", "-f", str(RBAC), "-f", str(_PODS_RBAC))
        world.ccm = world.controller("ccm.log", *_FLAGS)
        uvloop.run(_fill(cluster, count))
        world.ccm.start()
        world.ccm.wait_for("caches_synced", timeout_s=_TIMEOUT_S)
        uvloop.run(_settle(world, count))
        return {"rss_10k_mb": memory.rss_mb(world.ccm.pid)}
    finally:
        world.end()


async def _fill(cluster: embedded.EmbeddedCluster, count: int) -> None:
    """Create nodes, pods and Services."""
    async with ccm_client.connected(cluster) as api:

        async def create_node(number: int) -> None:
            await api.request("POST", "/api/v1/nodes", _node(number))

        async def create_pod(number: int) -> None:
            await api.request("POST", "/api/v1/namespaces/default/pods", _pod(number))

        async def create(number: int) -> None:
            wanted = ccm_client.service(f"wide-{number}", allocateLoadBalancerNodePorts=False)
            wanted["metadata"]["annotations"] = _ANNOTATIONS
            await api.request("POST", ccm_client.SERVICES, wanted)

        await ccm_client.each(range(PODS), create_pod)
        await ccm_client.each(range(NODES * count // SERVICES), create_node)
        await ccm_client.each(range(count), create)


async def _settle(world: World, count: int) -> None:
    """Return when all Services have addresses and nothing moves any more."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            while world.ccm.metric("ccm_time_to_address_seconds_count") < count:
                await asyncio.sleep(1.0)
            before = None
            while before != (before := world.ccm.work_done()):
                await asyncio.sleep(5.0)
    except TimeoutError:
        served = world.ccm.metric("ccm_time_to_address_seconds_count")
        raise Slow(f"{served:g} of {count} Services are served after {_TIMEOUT_S:g} s") from None


def _pod(number: int) -> ccm_client.Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"echo-{number}", "labels": {"app": "echo"}},
        "spec": {"containers": [{"name": "echo", "image": "echo"}]},
    }


def _node(number: int) -> ccm_client.Json:
    """Return a Node as large as a kubelet's: the list of its images is the bulk of it."""
    digest = "0123456789abcdef" * 4
    names = [
        [f"registry.example/team/app-{one}@sha256:{digest}", f"registry.example/team/app-{one}:1"]
        for one in range(50)
    ]
    address = f"10.{200 + number // 250}.{number % 250}.1"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"wide-{number}", "labels": {"kubernetes.io/os": "linux"}},
        "spec": {"unschedulable": True},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "images": [{"names": one, "sizeBytes": 1} for one in names],
        },
    }
