"""One look at all Nodes and all routes of this cluster: what is stale goes, what lacks comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import structlog

from ccm import clock as clocks
from ccm import context, errors, identity
from ccm import metrics as metrics_
from ccm.cloud import documents
from ccm.kube import objects, workers
from ccm.kube import transport as transports
from ccm.route import decisions

COMPONENT: Final = "route_controller"
AT_ONCE: Final = 32
"""Requests under way; upstream's bound is 200, and one cloud on one machine gains nothing by it."""
PENDING_S: Final = 5.0
"""Safety net while hosts of the cloud take a route; the stream tells sooner."""
REFUSED_S: Final = 60.0

_log = structlog.get_logger()


class Recorder(Protocol):
    """Writes events."""

    def record(
        self, controller: str, about: objects.Reference, type_: str, reason: str, note: str
    ) -> None:
        """Queue an event."""


class Reconciler:
    """Brings routes and the Nodes' conditions in line. nodes: the cache, read at each look."""

    def __init__(
        self,
        nodes: Callable[[], Mapping[str, objects.Node]],
        cloud: context.Routes,
        transport: transports.Transport,
        recorder: Recorder,
        clock: clocks.Clock,
        metrics: metrics_.Metrics,
        *,
        cluster: identity.Identity,
        ranges: Sequence[str],
        may_write: Callable[[], None],
        fence: Callable[[], str],
    ) -> None:
        """ranges: the CIDRs of all pods of the cluster."""
        self._fence = fence
        self._nodes = nodes
        self._cloud = cloud
        self._transport = transport
        self._recorder = recorder
        self._clock = clock
        self._syncs = metrics.route_syncs
        self._cluster = cluster
        self._ranges = tuple(ranges)
        self._may_write = may_write
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._told: dict[str, str] = {}

    async def reconcile(self, key: str) -> workers.Outcome:
        """Look at all of them; `key` says nothing. Raises: CloudError, KubeError, LeaseLost."""
        self._syncs.inc()
        found = (decisions.plan(one, self._cluster, self._ranges) for one in self._nodes().values())
        plans = [one for one in found if one is not None]
        wanted = {name: route for one in plans for name, route in one.routes.items()}
        present = {
            one.name: one
            for one in await self._cloud.routes()
            if decisions.is_ours(one, self._cluster, self._ranges)
        }
        # First: the range of a node that is gone may be another's by now.
        await self._each(self._delete(name) for name in present.keys() - wanted.keys())
        lacking = {n: r for n, r in wanted.items() if decisions.differs(present.get(n), r)}
        failed = await self._create(lacking, present)
        states = {name: _problem(present.get(name), failed.get(name)) for name in wanted}
        await self._each(self._say(plan, states) for plan in plans)
        self._forget(plans)
        for error in failed.values():
            if not isinstance(error, errors.CloudRefused):
                raise error
        return _outcome(plans, states, is_changed=bool(lacking))

    async def _create(
        self, lacking: Mapping[str, documents.RouteDocument], present: dict[str, documents.Route]
    ) -> dict[str, errors.CloudError]:
        """Ask for what lacks; take the answers into `present`. Return what failed, and why."""
        failed: dict[str, errors.CloudError] = {}
        if not lacking:
            return failed

        async def put(name: str, document: documents.RouteDocument) -> None:
            self._may_write()
            try:
                present[name] = await self._cloud.put_route(name, document, self._fence())
            except errors.CloudError as error:
                failed[name] = error
            else:
                _log.info("route_asked_for", route=name, to=document.destination)

        self._may_write()
        network = decisions.network_name(self._cluster)
        try:
            await self._cloud.put_network(
                network, self._ranges, self._cluster.labels, self._fence()
            )
        except errors.CloudError as error:
            return dict.fromkeys(lacking, error)
        await self._each(put(name, document) for name, document in lacking.items())
        return failed

    async def _delete(self, name: str) -> None:
        self._may_write()
        await self._cloud.delete_route(name, self._fence())
        _log.info("route_deleted", route=name)

    async def _say(self, plan: decisions.Plan, states: Mapping[str, str | None]) -> None:
        """Write the Node's condition where it differs, and an event about a new trouble."""
        problems = [states[name] for name in plan.routes]
        if None in problems:
            return  # under way: neither reachable nor not
        trouble = plan.problem or "; ".join(filter(None, problems))
        uid = plan.node.metadata.uid
        if trouble and self._told.get(uid) != trouble:
            name = plan.node.metadata.name
            _log.warning("node_not_routed", node=name, error=trouble)
            note = f"Could not create route for node {name}: {trouble}"
            self._recorder.record(
                COMPONENT, plan.node.reference, "Warning", "FailedToCreateRoute", note
            )
        self._told[uid] = trouble
        wanted = decisions.condition(plan.node, is_reachable=not trouble)
        if wanted is not None:
            await self._patch(plan.node, wanted)

    async def _patch(self, node: objects.Node, condition: dict[str, str]) -> None:
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {**condition, "lastHeartbeatTime": now, "lastTransitionTime": now}
        self._may_write()
        try:
            # Merged by type: the other conditions are the kubelet's, and change all the time.
            await self._transport.request(
                "PATCH",
                f"/api/v1/nodes/{node.metadata.name}/status",
                body={"status": {"conditions": [body]}},
                content_type=transports.STRATEGIC_MERGE_PATCH,
            )
        except errors.KubeNotFound:
            return

    async def _each(self, work: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Do all of it, at most AT_ONCE at a time. Raises: the first error, when all have ended."""

        async def one(piece: Coroutine[Any, Any, None]) -> None:
            async with self._slots:
                await piece

        results = await asyncio.gather(*(one(piece) for piece in work), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _forget(self, plans: Iterable[decisions.Plan]) -> None:
        there = {one.node.metadata.uid for one in plans}
        self._told = {uid: said for uid, said in self._told.items() if uid in there}


def _problem(route: documents.Route | None, error: errors.CloudError | None) -> str | None:
    """Return why a route doesn't lead, "" if it does, None while the cloud is at it."""
    if error is not None:
        return str(error)
    if route is None or route.state == "PENDING":
        return None
    if route.state == "ACTIVE":
        return ""
    return route.last_error.message if route.last_error else f"its state is {route.state}"


def _outcome(
    plans: Iterable[decisions.Plan], states: Mapping[str, str | None], *, is_changed: bool
) -> workers.Outcome:
    if None in states.values():
        return workers.Outcome("waiting", PENDING_S)
    if any(states.values()) or any(one.problem for one in plans):
        return workers.Outcome("refused", REFUSED_S)
    return workers.Outcome("changed" if is_changed else "in_sync")
