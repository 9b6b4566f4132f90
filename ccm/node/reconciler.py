"""One look at one Node: its instance is asked for, what differs is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec
import structlog

from ccm import clock as clocks
from ccm import context, errors
from ccm import metrics as metrics_
from ccm.cloud import documents
from ccm.kube import objects, workers
from ccm.kube import transport as transports
from ccm.node import changes

COMPONENT: Final = "cloud-node-controller"
AWAIT_S: Final = 10.0
"""How often a node that nobody has introduced is looked up again while the cloud has no such
instance."""
REFUSED_S: Final = 60.0
STALE_S: Final = 1.0

_decoder = msgspec.json.Decoder(objects.Node)
_log = structlog.get_logger()


class Recorder(Protocol):
    """Writes events."""

    def record(
        self, controller: str, about: objects.Reference, type_: str, reason: str, note: str
    ) -> None:
        """Queue an event."""


class Reconciler:
    """Brings Nodes in line with their instances. nodes: the cache, by name; read at each look."""

    def __init__(
        self,
        nodes: Callable[[], Mapping[str, objects.Node]],
        instances: context.Instances,
        transport: transports.Transport,
        recorder: Recorder,
        clock: clocks.Clock,
        metrics: metrics_.Metrics,
        *,
        may_write: Callable[[], None],
    ) -> None:
        self._nodes = nodes
        self._instances = instances
        self._transport = transport
        self._recorder = recorder
        self._clock = clock
        self._metrics = metrics
        self._may_write = may_write
        self._seen: set[str] = set()
        self._written: dict[str, str] = {}

    async def reconcile(self, key: str) -> workers.Outcome:
        """Look at one node. Raises: CloudError, KubeError, LeaseLost."""
        node = self._nodes().get(key)
        where = changes.instance_key(node) if node else ""
        if node is None or not where or node.metadata.deletion_timestamp is not None:
            return workers.Outcome("not_ours")
        if self._is_stale(node):
            return workers.Outcome("stale", STALE_S)
        is_new = changes.is_uninitialized(node)
        if is_new:
            self._note_first_look(node)
        instance = await self._instances.instance(where)
        if instance is None:
            # That an introduced node has lost its instance is the lifecycle controller's matter.
            return workers.Outcome("no_instance", AWAIT_S if is_new else None)
        if not node.spec.provider_id and not instance.provider_id:
            raise errors.CloudBusy("no_provider_id", f"instance {where} has no provider ID")
        return await self._bring_in_line(node, instance)

    def forget(self, uid: str) -> None:
        """Forget a node that is gone."""
        self._seen.discard(uid)
        self._written.pop(uid, None)

    async def _bring_in_line(
        self, node: objects.Node, instance: documents.Instance
    ) -> workers.Outcome:
        try:
            wanted = changes.changes(node, instance)
        except errors.Rejected as refused:
            self._recorder.record(
                COMPONENT, node.reference, "Warning", refused.reason, str(refused)
            )
            return workers.Outcome("refused", REFUSED_S)
        if not wanted.status and not wanted.node:
            return workers.Outcome("in_sync")
        await self._write(node, wanted)
        if changes.is_uninitialized(node):
            self._introduced(node)
        return workers.Outcome("changed")

    async def _write(self, node: objects.Node, wanted: changes.Changes) -> None:
        path = f"/api/v1/nodes/{node.metadata.name}"
        version = node.metadata.resource_version
        if wanted.status:
            patched = await self._patch(f"{path}/status", version, {"status": wanted.status})
            version = patched.metadata.resource_version
        if wanted.node:
            await self._patch(path, version, wanted.node)

    async def _patch(self, path: str, version: str, body: Mapping[str, Any]) -> objects.Node:
        """Patch that very version: taints and addresses are lists, and are sent whole."""
        self._may_write()
        metadata = {**body.get("metadata", {}), "resourceVersion": version}
        answer = await self._transport.request(
            "PATCH",
            path,
            body={**body, "metadata": metadata},
            content_type=transports.MERGE_PATCH,
        )
        patched = _decoder.decode(answer)
        self._written[patched.metadata.uid] = patched.metadata.resource_version
        return patched

    def _is_stale(self, node: objects.Node) -> bool:
        """Say whether the cache still lacks our own last write; the watch will bring it."""
        written, cached = self._written.get(node.metadata.uid), node.metadata.resource_version
        if written is None or not written.isdigit() or not cached.isdigit():
            return False
        return int(cached) < int(written)

    def _note_first_look(self, node: objects.Node) -> None:
        if node.metadata.uid not in self._seen:
            self._seen.add(node.metadata.uid)
            self._metrics.node_sync_delay.observe(self._age_s(node))

    def _introduced(self, node: objects.Node) -> None:
        self._metrics.node_taint_delay.observe(self._age_s(node))
        self._recorder.record(
            COMPONENT, node.reference, "Normal", "Synced", "Node synced successfully"
        )
        _log.info("node_initialized", node=node.metadata.name)

    def _age_s(self, node: objects.Node) -> float:
        created = node.metadata.creation_timestamp
        if created is None:
            return 0.0
        return max(0.0, (self._clock.now() - datetime.fromisoformat(created)).total_seconds())
