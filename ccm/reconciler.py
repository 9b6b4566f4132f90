"""One Service key in, what to do next out: level-triggered, safe to repeat and to kill anywhere.

    wanted:   finalizer → PUT → (the cloud's stream wakes the key) → status
    unwanted: DELETE → (the stream wakes the key) → finalizer and status in one patch

The finalizer is there before the cloud hears of the Service, and goes when the cloud has
forgotten it. Nothing waits here: a key that needs time gives its worker back.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import structlog

from ccm import clock as clocks
from ccm import conditions, desired, errors, model, nodes
from ccm import metrics as metrics_
from ccm import settings as settings_

NORMAL: Final = "Normal"
WARNING: Final = "Warning"

_log = structlog.get_logger()


class Kube(Protocol):
    """The cluster. Reads are from memory; awaited methods raise KubeError."""

    def service(self, key: str) -> model.Service | None:
        """Return the Service in the cache."""

    def backends(self) -> tuple[nodes.Backend, ...]:
        """Return the nodes that take traffic."""

    async def live_service(self, key: str) -> tuple[model.Service, bool] | None:
        """Return the Service as it is now, and whether the finalizer on it is ours."""

    async def write(
        self,
        service: model.Service,
        *,
        finalizers: tuple[str, ...] | None = None,
        ingress: tuple[model.Ingress, ...] | None = None,
        conditions: tuple[model.Condition, ...] | None = None,
    ) -> model.Service:
        """Write in one patch, against the version of `service`; return the new Service."""

    def record(self, service: model.Service, type_: str, reason: str, note: str) -> None:
        """Record an event; never blocks."""


class Cloud(Protocol):
    """The cloud. Reads are from memory; awaited methods raise CloudError."""

    def observed(self, name: str) -> model.LoadBalancer | None:
        """Return the load balancer as last seen."""

    def made_for(self, key: str) -> tuple[model.LoadBalancer, ...]:
        """Return the load balancers labelled with a Service's key, of any cluster."""

    async def look_up(self, name: str) -> model.LoadBalancer | None:
        """Return the load balancer as it is now."""

    async def put(self, name: str, document: model.Document) -> model.LoadBalancer:
        """Ask for `document`; return what the cloud made of it."""

    async def delete(self, name: str) -> bool:
        """Ask for deletion; return False if nothing is left."""


class Verdict(StrEnum):
    """What a look at a key came to."""

    IN_SYNC = "in_sync"
    WAITING = "waiting"
    REFUSED = "refused"
    NOT_OURS = "not_ours"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it; recheck_s: when to look again without a trigger, None = not needed."""

    verdict: Verdict
    recheck_s: float | None = None


@dataclass(slots=True)
class _Memory:
    """What this process knows of one Service beyond the two caches; losing it costs little."""

    uid: str
    first_seen: float
    applied: model.Document | None = None
    applied_generation: int = -1
    announce: str = ""
    refused: model.Document | None = None
    told: tuple[object, ...] | None = None
    delete_asked_at: float | None = None


class Reconciler:
    """Brings one Service and its load balancer together. Calls for one key must not overlap."""

    def __init__(
        self,
        kube: Kube,
        cloud: Cloud,
        ownership: desired.Ownership,
        settings: settings_.Settings,
        clock: clocks.Clock,
        metrics: metrics_.Metrics,
    ) -> None:
        self._kube = kube
        self._cloud = cloud
        self._ownership = ownership
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._memory: dict[str, _Memory] = {}

    async def reconcile(self, key: str) -> Outcome:
        """Do what can be done now for `key` (namespace/name).

        Raises: RetryAfter for a planned wait; KubeError and CloudError to be tried again.
        """
        service = self._kube.service(key)
        if service is None:
            return await self._forget_deleted(key)
        memory = self._remember(key, service)
        await self._delete_former(key, service)
        if not self._ownership.wants(service):
            return await self._clean_up(service, memory)
        try:
            return await self._ensure(service, memory)
        except errors.Rejected as rejected:
            return await self._refuse(service, memory, rejected.reason, str(rejected))
        except errors.CloudRefused as refused:
            return await self._refuse(service, memory, refused.code, str(refused))
        except errors.CloudError as failed:
            await self._explain_failure(service, memory, failed)
            raise

    # -- wanted ---------------------------------------------------------------------------

    async def _ensure(self, service: model.Service, memory: _Memory) -> Outcome:
        memory.delete_asked_at = None
        document = desired.build(service, self._kube.backends(), self._ownership)
        if memory.refused == document:
            return Outcome(Verdict.REFUSED, self._settings.reprobe_s)
        memory.refused = None
        name = desired.load_balancer_name(service.metadata.uid)
        observed = self._cloud.observed(name)
        if model.CLEANUP_FINALIZER not in service.finalizers:
            service = await self._begin(service)
        if observed is None or not self._is_asked_for(observed, document, memory):
            self._check_may_take(observed)
            observed = await self._put(service, memory, name, observed, document)
        return await self._publish(service, memory, observed)

    async def _begin(self, service: model.Service) -> model.Service:
        """Write the finalizer, before any call to the cloud, and say that work has begun."""
        return await self._kube.write(
            service,
            finalizers=(*service.finalizers, model.CLEANUP_FINALIZER),
            conditions=self._changed_conditions(
                service, conditions.Stage.IN_PROGRESS, "", is_serving=bool(service.ingress)
            ),
        )

    def _is_asked_for(
        self, observed: model.LoadBalancer, document: model.Document, memory: _Memory
    ) -> bool:
        if observed.status.state == "DELETING":
            return False
        if model.satisfies(observed.spec, document.spec) and observed.labels == document.labels:
            return True
        # The cloud may write a value in another way; then what we asked for last tells.
        is_same_generation = observed.status.generation == memory.applied_generation
        return is_same_generation and memory.applied == document

    def _check_may_take(self, observed: model.LoadBalancer | None) -> None:
        if observed is None:
            return
        if not self._ownership.owns(observed):
            raise errors.Rejected(
                "NameTaken",
                f"load balancer {observed.name} exists in the cloud and belongs to another cluster",
            )
        if observed.status.state == "DELETING":
            # Its DELETED frame wakes this key; the time is the safety net.
            raise errors.RetryAfter(self._settings.recheck_s, "the former one is being deleted")

    async def _put(
        self,
        service: model.Service,
        memory: _Memory,
        name: str,
        before: model.LoadBalancer | None,
        document: model.Document,
    ) -> model.LoadBalancer:
        moves_nodes_only = before is not None and desired.only_targets_differ(
            before.spec, document.spec
        )
        if not moves_nodes_only and memory.announce != "ensured":
            self._kube.record(service, NORMAL, "EnsuringLoadBalancer", "Ensuring load balancer")
        if not desired.has_targets(document):
            self._kube.record(
                service,
                WARNING,
                "UnAvailableLoadBalancer",
                "There are no available nodes for LoadBalancer",
            )
        try:
            answer = await self._cloud.put(name, document)
        except errors.CloudRefused:
            memory.refused = document
            raise
        self._metrics.syncs.inc()
        if memory.announce != "ensured":
            memory.announce = "updated" if moves_nodes_only else "ensured"
        memory.applied, memory.applied_generation = document, answer.status.generation
        _log.info(
            "load_balancer_requested",
            service=service.key,
            name=name,
            generation=answer.status.generation,
            targets=len(document.spec.target_groups[0].targets) if service.ports else 0,
        )
        return answer

    async def _publish(
        self, service: model.Service, memory: _Memory, load_balancer: model.LoadBalancer
    ) -> Outcome:
        """Bring the status in line with what the cloud reports."""
        if not load_balancer.is_applied:
            return await self._report_progress(service, memory, load_balancer)
        ingress = desired.ingress(service, load_balancer)
        had_address = bool(service.ingress)
        await self._write_status(
            service,
            ingress if ingress != service.ingress else None,
            self._changed_conditions(service, conditions.Stage.COMPLETE, "", is_serving=True),
        )
        if ingress and not had_address:
            waited_s = self._clock.monotonic() - memory.first_seen
            self._metrics.time_to_address.observe(waited_s)
            memory.announce = "ensured"
            _log.info(
                "address_published",
                service=service.key,
                ip=ingress[0].ip,
                ms=round(waited_s * 1000),
            )
        self._announce(service, memory)
        memory.told = None
        return Outcome(Verdict.IN_SYNC)

    async def _report_progress(
        self, service: model.Service, memory: _Memory, load_balancer: model.LoadBalancer
    ) -> Outcome:
        # ERROR after ACTIVE: the last good configuration still serves, so the address stays.
        is_serving = bool(service.ingress)
        changed = None
        if load_balancer.status.state == "ERROR":
            message = load_balancer.problem or "provisioning failed"
            self._warn_once(service, memory, ("ERROR", message), message)
            changed = self._changed_conditions(
                service, conditions.Stage.INFRASTRUCTURE, message, is_serving=is_serving
            )
        elif not is_serving:  # an update in place is over before anybody could read of it
            changed = self._changed_conditions(
                service, conditions.Stage.IN_PROGRESS, "", is_serving=False
            )
        await self._write_status(service, None, changed)
        return Outcome(Verdict.WAITING, self._settings.recheck_s)

    def _announce(self, service: model.Service, memory: _Memory) -> None:
        match memory.announce:
            case "ensured":
                self._kube.record(service, NORMAL, "EnsuredLoadBalancer", "Ensured load balancer")
            case "updated":
                self._kube.record(
                    service,
                    NORMAL,
                    "UpdatedLoadBalancer",
                    "Updated load balancer with new hosts",
                )
        memory.announce = ""

    # -- not wanted -----------------------------------------------------------------------

    async def _clean_up(self, service: model.Service, memory: _Memory) -> Outcome:
        """Remove what is ours of a Service that is deleted, of another type or another class."""
        name = desired.load_balancer_name(service.metadata.uid)
        found = self._cloud.observed(name)
        has_finalizer = model.CLEANUP_FINALIZER in service.finalizers
        if found is None and not has_finalizer:
            return Outcome(Verdict.NOT_OURS)
        if found is None and memory.delete_asked_at is None:
            found = await self._cloud.look_up(name)
        if found is not None and self._ownership.owns(found):
            is_left = await self._delete(service, memory, found)
            if is_left:
                return Outcome(Verdict.WAITING, self._settings.recheck_s)
        return await self._let_go(service, memory)

    async def _delete(
        self, service: model.Service, memory: _Memory, found: model.LoadBalancer
    ) -> bool:
        """Ask the cloud once; return whether the load balancer is still there."""
        asked_at = memory.delete_asked_at
        if asked_at is None:
            self._kube.record(service, NORMAL, "DeletingLoadBalancer", "Deleting load balancer")
        elif found.status.state == "DELETING":
            is_overdue = self._clock.monotonic() - asked_at >= self._settings.recheck_s
            return not is_overdue or await self._cloud.look_up(found.name) is not None
        try:
            is_left = await self._cloud.delete(found.name)
        except errors.CloudError as failed:
            text = f"Error deleting load balancer: {failed}"
            told = ("delete", failed.code, str(failed))
            if failed.retry_after_s is None and memory.told != told:
                memory.told = told
                self._kube.record(service, WARNING, "DeleteLoadBalancerFailed", text)
            raise
        memory.delete_asked_at = self._clock.monotonic()
        _log.info("load_balancer_deletion_requested", service=service.key, name=found.name)
        return is_left

    async def _let_go(self, service: model.Service, memory: _Memory) -> Outcome:
        """Remove the finalizer and what we wrote into the status, if they are ours."""
        if model.CLEANUP_FINALIZER not in service.finalizers:
            return Outcome(Verdict.REMOVED)
        if memory.delete_asked_at is None and not await self._is_our_finalizer(service):
            return Outcome(Verdict.NOT_OURS)
        is_foreign = service.spec.type == "LoadBalancer" and not self._ownership.class_is_ours(
            service
        )
        left = tuple(one for one in service.finalizers if one != model.CLEANUP_FINALIZER)
        ours = conditions.without_ours(service.conditions)
        with contextlib.suppress(errors.KubeNotFound):
            await self._kube.write(
                service,
                finalizers=left,
                ingress=() if service.ingress and not is_foreign else None,
                conditions=ours if ours != service.conditions and not is_foreign else None,
            )
        if memory.delete_asked_at is not None:
            self._kube.record(service, NORMAL, "DeletedLoadBalancer", "Deleted load balancer")
        self._memory.pop(service.key, None)
        _log.info("service_released", service=service.key)
        return Outcome(Verdict.REMOVED)

    async def _is_our_finalizer(self, service: model.Service) -> bool:
        # All implementations share the name (KEP-1959): with our class it can only be ours,
        # otherwise ask who wrote it.
        if service.spec.type == "LoadBalancer" and self._ownership.class_is_ours(service):
            return True
        live = await self._kube.live_service(service.key)
        if live is None or live[0].metadata.uid != service.metadata.uid:
            return False
        return live[1]

    async def _forget_deleted(self, key: str) -> Outcome:
        """Delete what a Service left behind that vanished with its finalizer removed by hand."""
        self._memory.pop(key, None)
        left = self._of_key(key)
        if not left:
            return Outcome(Verdict.NOT_OURS)
        live = await self._kube.live_service(key)
        for load_balancer in left:
            uid = load_balancer.labels.get("service-uid")
            if live is not None and live[0].metadata.uid == uid:
                raise errors.RetryAfter(1.0, "the Service cache is behind the API server")
            await self._cloud.delete(load_balancer.name)
            _log.warning("orphan_deleted", service=key, name=load_balancer.name)
        return Outcome(Verdict.WAITING, self._settings.recheck_s)

    async def _delete_former(self, key: str, service: model.Service) -> None:
        """Delete load balancers of an earlier Service of the same name."""
        for load_balancer in self._of_key(key):
            is_current = load_balancer.labels.get("service-uid") == service.metadata.uid
            if not is_current and load_balancer.status.state != "DELETING":
                await self._cloud.delete(load_balancer.name)
                _log.warning("orphan_deleted", service=key, name=load_balancer.name)

    def _of_key(self, key: str) -> tuple[model.LoadBalancer, ...]:
        return tuple(one for one in self._cloud.made_for(key) if self._ownership.owns(one))

    # -- telling --------------------------------------------------------------------------

    async def _refuse(
        self, service: model.Service, memory: _Memory, reason: str, message: str
    ) -> Outcome:
        """Say once why the Service can't be served, then be silent until it changes."""
        text = f"{reason}: {message}"
        self._warn_once(service, memory, (reason, message), text)
        await self._write_stage(service, conditions.Stage.UNSUPPORTED, text)
        return Outcome(Verdict.REFUSED, self._settings.reprobe_s)

    async def _explain_failure(
        self, service: model.Service, memory: _Memory, failed: errors.CloudError
    ) -> None:
        """Say once that the cloud is in trouble; a wait that the cloud asked for is no trouble."""
        if failed.retry_after_s is not None:
            return
        self._warn_once(service, memory, (failed.code,), str(failed))
        stage = conditions.Stage.INFRASTRUCTURE
        await self._write_stage(service, stage, f"{failed.code}: {failed}")

    async def _write_stage(
        self, service: model.Service, stage: conditions.Stage, message: str
    ) -> None:
        current = self._kube.service(service.key)  # newer than `service` if we wrote meanwhile
        if current is not None:
            changed = self._changed_conditions(
                current, stage, message, is_serving=bool(current.ingress)
            )
            await self._write_status(current, None, changed)

    def _warn_once(
        self, service: model.Service, memory: _Memory, what: tuple[str, ...], text: str
    ) -> None:
        told = (*what, service.spec, service.metadata.annotations)
        if memory.told == told:
            return
        memory.told = told
        note = f"Error syncing load balancer: {text}"
        self._kube.record(service, WARNING, "SyncLoadBalancerFailed", note)
        _log.warning("service_not_served", service=service.key, error=text)

    async def _write_status(
        self,
        service: model.Service,
        ingress: tuple[model.Ingress, ...] | None,
        changed: tuple[model.Condition, ...] | None,
    ) -> None:
        if ingress is None and changed is None:
            return
        try:
            await self._kube.write(service, ingress=ingress, conditions=changed)
        except errors.KubeNotFound:
            return  # gone meanwhile; its deletion brings the key back

    def _changed_conditions(
        self, service: model.Service, stage: conditions.Stage, message: str, *, is_serving: bool
    ) -> tuple[model.Condition, ...] | None:
        """Return the conditions to write, None if they are off or as they should be."""
        if not self._settings.service_conditions:
            return None
        now = clocks.rfc3339(self._clock.now())
        wanted = conditions.advance(
            service.conditions, stage, message[:1024], now, is_serving=is_serving
        )
        return None if wanted == service.conditions else wanted

    def _remember(self, key: str, service: model.Service) -> _Memory:
        memory = self._memory.get(key)
        if memory is None or memory.uid != service.metadata.uid:
            memory = _Memory(service.metadata.uid, self._clock.monotonic())
            self._memory[key] = memory
        return memory
