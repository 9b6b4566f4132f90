"""The periodic look at all Nodes, and what follows from it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final

import structlog

from ccm import context, errors, identity, selection
from ccm.kube import objects
from ccm.kube import transport as transports
from ccm.lifecycle import decisions

COMPONENT: Final = "cloud-node-lifecycle-controller"
WINDOW_S: Final = 600.0
"""Over which removals are counted for their bound."""

_log = structlog.get_logger()


class LifecycleController:
    """Taints Nodes whose instance is stopped, removes those whose instance is gone."""

    name = selection.LIFECYCLE

    def __init__(self, given: context.Context) -> None:
        self._given = given
        self._stopped = asyncio.Event()
        self._missing: frozenset[str] = frozenset()
        self._removed: deque[float] = deque()
        self._is_braked = False

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return nothing: all is done by work()."""
        return []

    async def work(self) -> None:
        """Look until shut_down(). Raises: LeaseLost."""
        while not self._stopped.is_set():
            await self.step()
            await self._pause()

    def shut_down(self) -> None:
        """Take no further look."""
        self._stopped.set()

    def waiting(self) -> str:
        """Return "": the nodes are a cache that all share."""
        return ""

    def problem(self) -> str:
        """Return "": each request is bounded, and the next look starts afresh."""
        return ""

    async def step(self) -> None:
        """Look once at each node. A removal takes two looks that both find the instance gone."""
        watched = [one for one in self._given.nodes.store.values() if decisions.is_watched(one)]
        missing = []
        for node in watched:
            try:
                if await self._is_missing(node):
                    missing.append(node)
            except errors.CloudUnreachable as error:
                _log.warning("nodes_not_checked", error=str(error))
                return
            except (errors.CloudError, errors.KubeError) as error:
                _log.warning("node_not_checked", node=node.metadata.name, error=str(error))
        gone = [one for one in missing if one.metadata.uid in self._missing]
        self._missing = frozenset(one.metadata.uid for one in missing)
        await self._remove(gone, len(watched))

    async def _is_missing(self, node: objects.Node) -> bool:
        """Taint as the instance is; return whether the cloud says that there is none."""
        if decisions.is_ready(node):
            if decisions.is_shut_down(node):
                await self._taint(node, shut_down=False)
            return False
        found = await self._given.instances.instance(identity.instance_id(node.spec.provider_id))
        if found is None:
            return True
        if found.power_state == "stopped" and not decisions.is_shut_down(node):
            await self._taint(node, shut_down=True)
        return False

    async def _taint(self, node: objects.Node, *, shut_down: bool) -> None:
        body = {
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": decisions.taints(node, shut_down=shut_down)},
        }
        await self._write("PATCH", node, body, transports.MERGE_PATCH)
        _log.info("node_tainted", node=node.metadata.name, shut_down=shut_down)

    async def _remove(self, gone: Sequence[objects.Node], watched: int) -> None:
        now = self._given.clock.monotonic()
        while self._removed and now - self._removed[0] > WINDOW_S:
            self._removed.popleft()
        if len(gone) > decisions.allowance(watched, len(self._removed)):
            self._brake(gone, watched)
            return
        self._is_braked = False
        for node in gone:
            await self._delete(node)

    def _brake(self, gone: Sequence[objects.Node], watched: int) -> None:
        if self._is_braked:
            return
        self._is_braked = True
        note = (
            f"Not deleting node: the cloud has no instance for {len(gone)} of {watched} nodes, "
            "which is too many at once; if they are really gone, delete the nodes with kubectl"
        )
        _log.error("too_many_nodes_gone", nodes=[one.metadata.name for one in gone], of=watched)
        for node in gone:
            self._tell(node, "Warning", "DeletingNodePaused", note)

    async def _delete(self, node: objects.Node) -> None:
        name = node.metadata.name
        why = f"Deleting node {name} because it does not exist in the cloud provider"
        self._tell(node, "Normal", "DeletingNode", why)
        meta = node.metadata
        # This very version: a node that has come back to life meanwhile stays.
        conditions = {"uid": meta.uid, "resourceVersion": meta.resource_version}
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": conditions}
        try:
            await self._write("DELETE", node, body, transports.JSON)
        except errors.KubeNotFound:
            return
        except errors.KubeError as error:
            _log.warning("node_not_deleted", node=name, error=str(error))
            self._tell(
                node, "Warning", "DeletingNodeFailed", f"Error deleting node {name}: {error}"
            )
            return
        self._removed.append(self._given.clock.monotonic())
        _log.info("node_deleted", node=name)

    async def _write(
        self, method: str, node: objects.Node, body: Mapping[str, Any], content_type: str
    ) -> None:
        self._given.may_write()
        await self._given.transport.request(
            method, f"/api/v1/nodes/{node.metadata.name}", body=body, content_type=content_type
        )

    def _tell(self, node: objects.Node, kind: str, reason: str, note: str) -> None:
        self._given.recorder.record(COMPONENT, node.reference, kind, reason, note)

    async def _pause(self) -> None:
        period_s = self._given.settings.node_monitor_period_s
        waits = [
            asyncio.ensure_future(self._given.clock.sleep(period_s)),
            asyncio.ensure_future(self._stopped.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
