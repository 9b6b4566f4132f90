"""A thousand Services at once, on real HAProxy: created, given a node, left alone, restarted, deleted."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Final

import uvloop

from tests.bench import ccm_client
from tests.bench.ccm_client import Balancers, Services, Slow
from tests.flows.kube.world import World

COUNT: Final = 1000
READY_S: Final = 60.0
_POLL_S: Final = 0.02
_WRITTEN: Final = frozenset({"services", "nodes", "endpoints", "configmaps"})
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"})
_EVENTS: Final = "/apis/events.k8s.io/v1/events"
_REPAIR: Final = "ipallocator-repair-controller"
"""Part of the API server: it reports what deleted Services leave behind, for minutes."""
_REQUEST: Final = re.compile(r"apiserver_request_total\{(?P<labels>.*)\} (?P<count>\S+)")

Figures = dict[str, float]


class Thousand:
    """One world whose Services are all created and deleted at once."""

    def __init__(self, world: World, count: int = COUNT) -> None:
        self._world = world
        self._names = [f"many-{number}" for number in range(count)]

    def run(self, parts: frozenset[str], idle_s: float) -> Figures:
        """Measure creation and deletion, and what `parts` asks for in between.

        parts: of nodes, restart, idle; what nobody asks for is not done.
        """
        create_limit_s, delete_limit_s = uvloop.run(
            ccm_client.limit(self._world.cluster, len(self._names))
        )
        self._world.start()
        figures = {"create_1000_limit_s": create_limit_s, "delete_1000_limit_s": delete_limit_s}
        figures["create_1000_s"] = uvloop.run(self._create())
        uvloop.run(self._rest())
        if "nodes" in parts:
            figures |= uvloop.run(self._add_node())
        if "restart" in parts:
            uvloop.run(self._rest())
            figures |= uvloop.run(self._restart())
        if "idle" in parts:
            uvloop.run(self._rest())
            figures |= self._idle(idle_s)
        figures["delete_1000_s"] = uvloop.run(self._delete())
        for what in ("create", "delete"):
            ours, bare = figures[f"{what}_1000_s"], figures[f"{what}_1000_limit_s"]
            figures[f"{what}_1000_vs_limit"] = ours / bare
        return figures

    async def _create(self) -> float:
        async with (
            ccm_client.followed(self._world.cluster) as seen,
            ccm_client.connected(self._world.cluster) as api,
        ):
            began = time.monotonic()

            async def create(name: str) -> None:
                await api.request("POST", ccm_client.SERVICES, ccm_client.service(name))

            await ccm_client.each(self._names, create)
            await seen.until_addressed(self._names)
            return max(seen.addressed.values()) - began

    async def _delete(self) -> float:
        async with (
            ccm_client.followed(self._world.cluster) as seen,
            ccm_client.connected(self._world.cluster) as api,
        ):
            began = time.monotonic()

            async def delete(name: str) -> None:
                await api.request("DELETE", f"{ccm_client.SERVICES}/{name}")

            await ccm_client.each(self._names, delete)
            await seen.until_gone(self._names)
            took_s = time.monotonic() - began
        if left := self._world.balancers():
            raise Slow(f"{len(left)} load balancers are left")
        return took_s

    async def _rest(self) -> None:
        """Return when the controller has written its last event and looks at nothing."""
        quiet_since, before = time.monotonic(), self._done()
        deadline = time.monotonic() + ccm_client.TIMEOUT_S
        while time.monotonic() - quiet_since < 3.0:
            await asyncio.sleep(0.5)
            now = self._done()
            if now != before:
                quiet_since, before = time.monotonic(), now
            if time.monotonic() > deadline:
                raise Slow("the controller doesn't come to rest")

    def _done(self) -> tuple[object, float]:
        """Return what was done so far, and how many events are still to be written."""
        ccm = self._world.ccm
        return ccm.work_done(), ccm.metric("ccm_events_waiting")

    async def _add_node(self) -> Figures:
        """Add a node; the clock runs from before its creation to the last load balancer."""
        before = self._puts()
        async with ccm_client.watched(self._world) as seen:
            began = time.monotonic()
            node = await asyncio.to_thread(self._world.cluster.add_node)

            def everywhere() -> bool:
                found = [one for one in seen.now.values() if one.is_applied]
                return sum(node in one.nodes() for one in found) == len(self._names)

            await seen.until(everywhere, "the node is a target everywhere")
            took_s = time.monotonic() - began
        await self._rest()
        asked = (self._puts() - before) / len(self._names)
        return {"node_add_1000_s": took_s, "node_add_requests_per_lb": asked}

    def _puts(self) -> float:
        """Return how many load balancers the controller has asked the cloud for so far."""
        return self._world.ccm.metric("service_controller_loadbalancer_sync_total")

    async def _restart(self) -> Figures:
        """Stop the controller and start it again; count what that changed."""
        before, processes = self._generations(), self._world.haproxies()
        versions = self._versions()
        self._world.ccm.stop()
        began = time.monotonic()
        self._world.ccm.start()
        while not self._is_ready():
            if time.monotonic() - began > READY_S:
                raise Slow(f"not ready {READY_S:g} s after the start")
            await asyncio.sleep(_POLL_S)
        ready_s = time.monotonic() - began
        await self._rest()
        changes = len(set(before.items()) ^ set(self._generations().items()))
        changes += len(set(processes) ^ set(self._world.haproxies()))
        changes += len(set(versions.items()) ^ set(self._versions().items()))
        return {"restart_changes": changes + self._puts(), "restart_ready_s": ready_s}

    def _is_ready(self) -> bool:
        try:
            return self._world.ccm.readiness()[0] == 200
        except OSError:
            return False

    def _generations(self) -> dict[str, int]:
        return {name: one["status"]["generation"] for name, one in self._world.balancers().items()}

    def _versions(self) -> dict[str, str]:
        listed = self._world.cluster.request("GET", ccm_client.SERVICES)["items"]
        return {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in listed}

    def _idle(self, seconds: float) -> Figures:
        """Do nothing; count what is written to the API server but leases, and to the cloud."""
        before, cloud = self._kube_writes(), self._cloud_writes()
        time.sleep(seconds)
        after = self._kube_writes()
        changes = sum(after[one] - before.get(one, 0.0) for one in after)
        return {"idle_writes": changes + self._cloud_writes() - cloud, "idle_s": seconds}

    def _kube_writes(self) -> dict[str, float]:
        """Return the writes to what a controller may write, and the Events of controllers."""
        events = self._world.cluster.request("GET", _EVENTS)["items"]
        ours = [one for one in events if one["reportingController"] != _REPAIR]
        counts = [(one.get("series") or {"count": 1})["count"] for one in ours]
        found: dict[str, float] = {"events": sum(counts)}
        text = self._world.cluster.control_plane.metrics()
        for line in text.splitlines():
            match = _REQUEST.match(line)
            if match is None:
                continue
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match["labels"]))
            if labels["verb"] in _WRITES and labels["resource"] in _WRITTEN:
                found[match["labels"]] = float(match["count"])
        return found

    def _cloud_writes(self) -> float:
        """Return the load balancers written or deleted; the inventory is a lease, renewed."""
        deleted = sum(
            count for what, count in self._world.ccm.work_done().items() if 'verb="DELETE"' in what
        )
        return self._puts() + deleted


async def overheads(world: World, count: int, pause_s: float) -> list[float]:
    """Return the seconds to each address that the cloud didn't need itself.

    That is from the answer to a Service's creation to the sight of its address, without the time
    from the load balancer's creation to its activation by the cloud's own clock.
    """
    names = [f"paced-{number}" for number in range(count)]
    created: dict[str, float] = {}
    async with (
        ccm_client.followed(world.cluster) as seen,
        ccm_client.watched(world) as balancers,
        ccm_client.connected(world.cluster) as api,
    ):
        for name in names:
            await api.request("POST", ccm_client.SERVICES, ccm_client.service(name))
            created[name] = time.monotonic()
            await asyncio.sleep(pause_s)
        await seen.until_addressed(names)
        found = [
            seen.addressed[name] - created[name] - own
            for name, own in _own_times(balancers).items()
            if name in created
        ]
        await _remove(world, seen, names)
    if len(found) != count:
        raise Slow(f"the cloud told of {len(found)} load balancers, not of {count}")
    return found


def _own_times(balancers: Balancers) -> dict[str, float]:
    """Return the seconds from the first sight of each load balancer to when it served."""
    return {
        one.labels.get("service", ""): balancers.served[name] - balancers.first[name]
        for name, one in balancers.now.items()
        if name in balancers.served
    }


async def _remove(world: World, seen: Services, names: list[str]) -> None:
    async with ccm_client.connected(world.cluster) as api:

        async def delete(name: str) -> None:
            await api.request("DELETE", f"{ccm_client.SERVICES}/{name}")

        await ccm_client.each(names, delete)
        await seen.until_gone(names)
