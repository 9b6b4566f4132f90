"""Asking the cloud: the whole document, only if it differs, and not again what was refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from ccm import clock as clocks
from ccm import errors
from ccm import metrics as metrics_
from ccm import settings as settings_
from ccm.cloud import documents
from ccm.service import desired, ownership, ports

WAITS_FOR_OTHERS: Final = frozenset({"address_in_use", "quota_exceeded", "no_capacity"})
"""Refusals that end when another load balancer goes."""

_encoder = msgspec.json.Encoder()
_log = structlog.get_logger()


class Asking:
    """Brings load balancers in the cloud in line with documents.

    wake: called with a key whose refusal may be over.
    """

    def __init__(
        self,
        cloud: ports.Cloud,
        owner: ownership.Ownership,
        settings: settings_.Settings,
        clock: clocks.Clock,
        metrics: metrics_.Metrics,
        wake: Callable[[str], None],
    ) -> None:
        self._cloud = cloud
        self._owner = owner
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._wake = wake
        self._waiting: dict[str, tuple[ports.Memory, frozenset[str]]] = {}

    def was_refused(self, memory: ports.Memory, document: documents.Document) -> bool:
        """Return whether the cloud refused exactly this not long ago."""
        if memory.refused != document:
            memory.refused = None
            return False
        return self._clock.monotonic() - memory.refused_at < self._settings.reprobe_s

    async def bring(
        self,
        key: str,
        name: str,
        document: documents.Document,
        memory: ports.Memory,
        before_put: Callable[[documents.LoadBalancer | None], None],
    ) -> documents.LoadBalancer:
        """Return the load balancer `name` with `document` asked for, usually not in effect yet.

        before_put: called with what is there, if the cloud has to be asked at all.
        Raises: Rejected if another cluster has the name; RetryAfter while the former one goes;
        CloudError.
        """
        observed = await self._observed(name, memory)
        if observed is not None and self._is_asked_for(observed, document, memory):
            return observed
        self._check_may_take(observed)
        before_put(observed)
        answer = await self._put(key, name, document, memory, observed)
        self._waiting.pop(key, None)
        self._note(name, document, memory)
        # Kept only where the cloud writes it in another way: a document names every node.
        memory.applied = None if _document_of(answer) == document else document
        memory.applied_generation = answer.status.generation
        _log.info(
            "load_balancer_requested",
            key=key,
            name=name,
            generation=answer.status.generation,
            targets=max((len(one.targets) for one in document.spec.target_groups), default=0),
        )
        return answer

    async def _put(
        self,
        key: str,
        name: str,
        document: documents.Document,
        memory: ports.Memory,
        observed: documents.LoadBalancer | None,
    ) -> documents.LoadBalancer:
        moves_nodes_only = observed is not None and desired.only_targets_differ(
            observed.spec, document.spec
        )
        began = self._clock.monotonic()
        try:
            answer = await self._cloud.put(name, document)
        except errors.CloudError as error:
            if moves_nodes_only:
                self._metrics.node_sync_errors.inc()
            self._remember_refusal(key, memory, document, error)
            raise
        if moves_nodes_only:
            self._metrics.host_update_latency.observe(self._clock.monotonic() - began)
        return answer

    def _note(self, name: str, document: documents.Document, memory: ports.Memory) -> None:
        """Count the write, and what it repaired: nothing but drift leads to the same wish again."""
        self._metrics.syncs.inc()
        asked = hash(_encoder.encode(document))
        if asked == memory.asked:
            self._metrics.drift_repairs.inc()
            _log.warning("drift_repaired", name=name)
        memory.asked = asked

    async def _observed(self, name: str, memory: ports.Memory) -> documents.LoadBalancer | None:
        """Return what is known of it; if that says "at work" for too long, ask the cloud.

        A stream may lose an event and never say so.
        """
        observed = self._cloud.observed(name)
        now = self._clock.monotonic()
        if observed is None or observed.is_applied:
            memory.awaited_since = None
        elif memory.awaited_since is None:
            memory.awaited_since = now
        elif now - memory.awaited_since >= self._settings.recheck_s:
            memory.awaited_since = now
            return await self._cloud.look_up(name)
        return observed

    def forget(self, key: str) -> None:
        """Wake `key` no more."""
        self._waiting.pop(key, None)

    def load_balancer_changed(
        self, old: documents.LoadBalancer | None, new: documents.LoadBalancer | None
    ) -> None:
        """Try again who waits for what has got free: each for an address, one for anything.

        Without this a taken address would be asked for again only after the long pause.
        """
        held = {one.ip for one in old.status.addresses} if old else set()
        kept = {one.ip for one in new.status.addresses} if new else set()
        free = held - kept
        if not free and new is not None:
            return
        chosen = [key for key, (_, asked) in self._waiting.items() if asked & free]
        anything = next((key for key, (_, asked) in self._waiting.items() if not asked), None)
        for key in {*chosen, anything} - {None}:
            assert key is not None
            memory, _ = self._waiting.pop(key)
            memory.refused = None
            self._wake(key)

    def _is_asked_for(
        self,
        observed: documents.LoadBalancer,
        document: documents.Document,
        memory: ports.Memory,
    ) -> bool:
        if observed.status.state == "DELETING" or not self._owner.owns(observed):
            return False
        if _document_of(observed) == document:
            return True
        # The cloud may write a value in another way; then what we asked for last tells.
        is_same_generation = observed.status.generation == memory.applied_generation
        return is_same_generation and memory.applied == document

    def _check_may_take(self, observed: documents.LoadBalancer | None) -> None:
        if observed is None:
            return
        if self._owner.is_foreign(observed):
            raise errors.Rejected(
                "NameTaken",
                f"load balancer {observed.name} exists in the cloud and belongs to another cluster",
            )
        if observed.status.state == "DELETING":
            # Its DELETED frame wakes this key; the time is the safety net.
            raise errors.RetryAfter(self._settings.recheck_s, "the former one is being deleted")

    def _remember_refusal(
        self,
        key: str,
        memory: ports.Memory,
        document: documents.Document,
        error: errors.CloudError,
    ) -> None:
        if isinstance(error, errors.CloudRefused):
            memory.refused, memory.refused_at = document, self._clock.monotonic()
        if error.code in WAITS_FOR_OTHERS:
            asked = frozenset(one.ip for one in document.spec.addresses if one.ip)
            wanted = asked if error.code == "address_in_use" else frozenset()
            self._waiting[key] = (memory, wanted)


def _document_of(load_balancer: documents.LoadBalancer) -> documents.Document:
    return documents.Document(load_balancer.labels, load_balancer.spec, load_balancer.annotations)
