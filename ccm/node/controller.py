"""The node controller put together: queue, triggers, workers."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

import structlog

from ccm import context, selection
from ccm.kube import objects, workers, workqueue
from ccm.node import changes, reconciler

STUCK_AFTER_S: Final = 120.0

_log = structlog.get_logger()


class NodeController:
    """Addresses, provider ID and labels of the Nodes on the cloud's instances."""

    name = selection.NODE

    def __init__(self, given: context.Context) -> None:
        settings = given.settings
        self._given = given
        self._queue = workqueue.WorkQueue(
            given.clock,
            given.metrics,
            base_s=settings.retry_base_s,
            max_s=settings.retry_max_s,
            name="Nodes",
        )
        self._reconciler = reconciler.Reconciler(
            lambda: given.nodes.store,
            given.instances,
            given.transport,
            given.recorder,
            given.clock,
            given.metrics,
            may_write=given.may_write,
        )
        self._workers = workers.Workers(
            self._queue, self._reconciler, given.metrics, settings.node_workers, "node"
        )
        given.nodes.handlers.append(self.node_changed)
        given.mirror.on_return.append(self._queue.retry_failed)

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return the queue's timers and the periodic comparison."""
        return [self._queue.run_timers(), self._compare()]

    async def work(self) -> None:
        """Reconcile until shut_down(). Raises: LeaseLost."""
        _log.info("node_controller_started", nodes=len(self._given.nodes.store))
        await self._workers.run()

    def shut_down(self) -> None:
        """Hand out no more keys."""
        self._queue.shut_down()

    def waiting(self) -> str:
        """Return "": the nodes are a cache that all share."""
        return ""

    def problem(self) -> str:
        """Return which wait has become too long, "" if none has."""
        age_s = self._queue.oldest_work_s()
        return f"a Node has been in work for {age_s:.0f} s" if age_s > STUCK_AFTER_S else ""

    def node_changed(self, key: str, old: objects.Node | None, new: objects.Node | None) -> None:
        """Look at a node that is ours, unless it was only the kubelet's heartbeat."""
        if new is None:
            self._queue.forget(key)
            if old is not None:
                self._reconciler.forget(old.metadata.uid)
        elif changes.instance_key(new) and (old is None or _matters(old) != _matters(new)):
            self._queue.add(key)

    async def _compare(self) -> None:
        while True:
            await self._given.clock.sleep(self._given.settings.node_status_period_s)
            for key, node in self._given.nodes.store.items():
                if changes.instance_key(node):
                    self._queue.add(key)


def _matters(node: objects.Node) -> tuple[object, ...]:
    provided = (node.metadata.annotations or {}).get(changes.PROVIDED_IP)
    meta = node.metadata
    return (meta.uid, meta.labels, provided, node.spec, node.status.addresses)
