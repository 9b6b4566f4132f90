"""The loop runner: takes keys from the queue, has them reconciled, decides when they come back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from ccm import errors
from ccm import metrics as metrics_
from ccm.kube import workqueue

CONFLICT_PAUSE_S: Final = 0.05
"""After a 409 the cache needs a moment to catch up with whoever wrote first."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a look at a key came to.

    verdict: a word for the metric; recheck_s: when to look again without a trigger, None = never.
    """

    verdict: str
    recheck_s: float | None = None


class Reconciles(Protocol):
    """Whatever can look at one key."""

    async def reconcile(self, key: str) -> Outcome:
        """Do what can be done for `key` now."""


class Workers:
    """`count` workers on one queue."""

    def __init__(
        self,
        queue: workqueue.WorkQueue,
        target: Reconciles,
        metrics: metrics_.Metrics,
        count: int,
        kind: str = "service",
    ) -> None:
        """kind: what the keys name, for the log and the metric."""
        self._queue = queue
        self._target = target
        self._metrics = metrics
        self._count = count
        self._kind = kind

    async def run(self) -> None:
        """Work until the queue is shut down. Raises: LeaseLost when another one leads."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._count):
                    group.create_task(self._work())
        except ExceptionGroup as errors_:
            if errors_.subgroup(errors.LeaseLost) is None:
                raise
            raise errors.LeaseLost("another instance may lead by now") from errors_

    async def _work(self) -> None:
        while True:
            try:
                key = await self._queue.get()
            except workqueue.ShutDown:
                return
            try:
                await self._turn(key)
            finally:
                self._queue.done(key)

    async def _turn(self, key: str) -> None:
        try:
            result = await self._target.reconcile(key)
        except errors.RetryAfter as wait:
            self._count_as("waiting")
            self._queue.add_after(key, wait.seconds)
        except errors.KubeConflict:
            self._count_as("conflict")
            self._queue.add_after(key, CONFLICT_PAUSE_S)
        except errors.LeaseLost:
            raise  # the end of this instance, not of one key
        except errors.KubeNotFound:
            self._count_as("gone")  # deleted while we looked; the watch tells the rest
            self._queue.forget(key)
        except (errors.CloudError, errors.KubeError) as error:
            self._failed(key, error)
        except Exception:  # noqa: BLE001 - the loop runner: one key's bug must not stop the others
            self._count_as("bug")
            _log.exception("reconcile_crashed", **{self._kind: key})
            self._queue.add_failed(key)
        else:
            self._ended(key, result)

    def _ended(self, key: str, result: Outcome) -> None:
        self._count_as(result.verdict)
        self._queue.forget(key)
        if result.recheck_s is not None:
            self._queue.add_after(key, result.recheck_s)

    def _failed(self, key: str, error: errors.CloudError | errors.KubeError) -> None:
        if error.retry_after_s is not None:
            self._count_as("waiting")
            self._queue.add_after(key, error.retry_after_s)
            return
        self._count_as("failed")
        wait_s = self._queue.add_failed(key)
        _log.warning(
            "reconcile_failed", error=str(error), retry_s=round(wait_s, 1), **{self._kind: key}
        )

    def _count_as(self, outcome: str) -> None:
        self._metrics.reconciles.labels(self._kind, outcome).inc()
