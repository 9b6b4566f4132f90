"""Taking back what is ours: of Services deleted, of another type or class, or long gone.

    DELETE → (the cloud's stream wakes the key) → finalizer and status in one patch

The finalizer's name is shared by all implementations (KEP-1959), so it is touched only where
this cluster owned the load balancer or wrote the finalizer itself.
"""

from __future__ import annotations

import contextlib

import structlog

from ccm import clock as clocks
from ccm import errors
from ccm import metrics as metrics_
from ccm import settings as settings_
from ccm.cloud import documents
from ccm.kube import objects
from ccm.kube.workers import Outcome
from ccm.service import annotations as annotations_
from ccm.service import conditions, ownership, ports, reports
from ccm.service.ports import Memory, Verdict

_log = structlog.get_logger()


class Removal:
    """The part of a reconcile that ends with nothing left. Calls for one key must not overlap."""

    def __init__(
        self,
        kube: ports.Kube,
        cloud: ports.Cloud,
        reports_: reports.Reports,
        owner: ownership.Ownership,
        settings: settings_.Settings,
        clock: clocks.Clock,
        metrics: metrics_.Metrics,
    ) -> None:
        self._kube = kube
        self._cloud = cloud
        self._reports = reports_
        self._owner = owner
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._orphans: dict[str, dict[str, float]] = {}

    async def clean_up(self, service: objects.Service, memory: Memory) -> Outcome:
        """Remove what is ours of a Service that is deleted, of another type or another class."""
        if self.is_shared(service):
            # Its group strikes it off the record once its ports are closed; that wakes the key.
            return Outcome(Verdict.WAITING, self._settings.recheck_s)
        name = ownership.load_balancer_name(service.metadata.uid)
        found = self._cloud.observed(name)
        has_finalizer = objects.CLEANUP_FINALIZER in service.finalizers
        if found is None and not has_finalizer:
            return Outcome(Verdict.NOT_OURS)
        if found is None and memory.delete_asked_at is None:
            found = await self._cloud.look_up(name)
        if found is not None and not self._owner.is_foreign(found):
            is_left = await self._delete(service, memory, found)
            if is_left:
                return Outcome(Verdict.WAITING, self._settings.recheck_s)
        return await self._let_go(service, memory)

    async def delete_orphans(self, key: str) -> Outcome:
        """Delete what a Service left behind that vanished with its finalizer removed by hand."""
        return await self._sweep(key, self._of_key(key))

    async def delete_former(self, key: str, service: objects.Service) -> None:
        """Delete load balancers of an earlier Service of the same name."""
        former = tuple(
            one
            for one in self._of_key(key)
            if one.labels.get("service-uid") != service.metadata.uid
        )
        if former:
            await self._check_gone(key, former)
            for one in former:
                await self._delete_orphan(one)

    async def _sweep(self, key: str, left: tuple[documents.LoadBalancer, ...]) -> Outcome:
        """Delete orphans that are no longer young: a cache may be behind, a backup come back."""
        now = self._clock.monotonic()
        before = self._orphans.pop(key, {})
        self._metrics.orphans.set(sum(map(len, self._orphans.values())))
        if not left:
            return Outcome(Verdict.NOT_OURS)
        await self._check_gone(key, left)
        since = self._orphans[key] = {one.status.id: before.get(one.status.id, now) for one in left}
        self._metrics.orphans.set(sum(map(len, self._orphans.values())))
        wait_s = 0.0
        for one in left:
            age_s = now - since[one.status.id]
            if age_s < self._settings.orphan_grace_s:
                wait_s = max(wait_s, self._settings.orphan_grace_s - age_s)
            elif self._settings.orphan_sweep == "report":
                _log.warning("orphan_found", name=one.name, labels=one.labels)
            else:
                await self._delete_orphan(one)
        return Outcome(Verdict.WAITING, wait_s or self._settings.recheck_s)

    async def _check_gone(self, key: str, left: tuple[documents.LoadBalancer, ...]) -> None:
        """Raises: RetryAfter if the API server still has the Service that one was made for."""
        live = await self._kube.live_service(key)
        uids = {one.labels.get("service-uid") for one in left}
        if live is not None and live[0].metadata.uid in uids:
            raise errors.RetryAfter(1.0, "the Service cache is behind the API server")

    async def _delete(
        self, service: objects.Service, memory: Memory, found: documents.LoadBalancer
    ) -> bool:
        """Ask the cloud once; return whether the load balancer is still there."""
        asked_at = memory.delete_asked_at
        if memory.announce != "DeletedLoadBalancer":
            self._reports.tell(service, "DeletingLoadBalancer")
            memory.announce = "DeletedLoadBalancer"
        if asked_at is not None and found.status.state == "DELETING":
            is_overdue = self._clock.monotonic() - asked_at >= self._settings.recheck_s
            return not is_overdue or await self._cloud.look_up(found.name) is not None
        try:
            is_left = await self._cloud.delete(found.name)
        except errors.CloudError as failed:
            self._reports.deletion_failed(service, memory, failed)
            raise
        memory.delete_asked_at = self._clock.monotonic()
        _log.info("load_balancer_deletion_requested", service=service.key, name=found.name)
        return is_left

    async def _let_go(self, service: objects.Service, memory: Memory) -> Outcome:
        """Remove the finalizer and what we wrote into the status, if they are ours."""
        if objects.CLEANUP_FINALIZER not in service.finalizers:
            return Outcome(Verdict.REMOVED)
        if memory.delete_asked_at is None and not await self._is_our_finalizer(service):
            return Outcome(Verdict.NOT_OURS)
        is_foreign = service.spec.type == "LoadBalancer" and not self._owner.class_is_ours(service)
        left = tuple(one for one in service.finalizers if one != objects.CLEANUP_FINALIZER)
        ours = conditions.without_ours(service.conditions)
        with contextlib.suppress(errors.KubeNotFound):
            await self._kube.write(
                service,
                finalizers=left,
                ingress=() if service.ingress and not is_foreign else None,
                conditions=ours if ours != service.conditions and not is_foreign else None,
                annotations=annotations_.without_ours(service.annotations),
            )
        if memory.delete_asked_at is not None:
            self._reports.tell(service, "DeletedLoadBalancer")
            if rate := service.annotations.get(annotations_.HOURLY_COST):
                note = f"{rate} an hour no longer: its load balancer is gone"
                self._reports.billing(service, "BillingStopped", note)
        _log.info("service_released", service=service.key)
        return Outcome(Verdict.REMOVED)

    async def _is_our_finalizer(self, service: objects.Service) -> bool:
        # All implementations share the name (KEP-1959): with our class it can only be ours,
        # otherwise ask who wrote it.
        if service.spec.type == "LoadBalancer" and self._owner.class_is_ours(service):
            return True
        live = await self._kube.live_service(service.key)
        if live is None or live[0].metadata.uid != service.metadata.uid:
            return False
        return live[1]

    async def _delete_orphan(self, load_balancer: documents.LoadBalancer) -> None:
        if load_balancer.status.state != "DELETING":
            await self._cloud.delete(load_balancer.name)
            _log.warning("orphan_deleted", name=load_balancer.name, labels=load_balancer.labels)

    def _of_key(self, key: str) -> tuple[documents.LoadBalancer, ...]:
        """Return the load balancers that were made for this Service alone."""
        return tuple(
            one
            for one in self._cloud.made_for(key)
            if self._owner.owns(one) and "share" not in one.labels
        )

    def is_shared(self, service: objects.Service) -> bool:
        """Return whether a load balancer that several share has the Service on its record."""
        return any(
            ownership.members_of(one).get(service.key) == service.metadata.uid
            for one in self._cloud.made_for(service.key)
            if self._owner.owns(one) and "share" in one.labels
        )
