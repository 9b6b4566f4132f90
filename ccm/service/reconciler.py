"""One Service key in, what to do next out: level-triggered, safe to repeat and to kill anywhere.

    wanted:   finalizer → PUT → (the cloud's stream wakes the key) → status
    unwanted: DELETE → (the stream wakes the key) → finalizer and status in one patch

The finalizer is there before the cloud hears of the Service, and goes when the cloud has
forgotten it. Nothing waits here: a key that needs time gives its worker back.
"""

from __future__ import annotations

import structlog

from ccm import clock as clocks
from ccm import errors
from ccm import metrics as metrics_
from ccm import settings as settings_
from ccm.cloud import documents
from ccm.kube import objects
from ccm.kube.workers import Outcome
from ccm.service import conditions, desired, ownership, ports, removal, reports
from ccm.service.ports import Memory, Verdict

_log = structlog.get_logger()


class Reconciler:
    """Brings one Service and its load balancer together. Calls for one key must not overlap."""

    def __init__(
        self,
        kube: ports.Kube,
        cloud: ports.Cloud,
        owner: ownership.Ownership,
        settings: settings_.Settings,
        clock: clocks.Clock,
        metrics: metrics_.Metrics,
    ) -> None:
        self._kube = kube
        self._cloud = cloud
        self._owner = owner
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._reports = reports.Reports(kube, clock, has_conditions=settings.service_conditions)
        self._removal = removal.Removal(kube, cloud, self._reports, owner, settings, clock)
        self._memory: dict[str, Memory] = {}

    async def reconcile(self, key: str) -> Outcome:
        """Do what can be done now for `key` (namespace/name).

        Raises: RetryAfter for a planned wait; KubeError and CloudError to be tried again.
        """
        service = self._kube.service(key)
        if service is None:
            self._memory.pop(key, None)
            return await self._removal.delete_orphans(key)
        memory = self._remember(key, service)
        await self._removal.delete_former(key, service)
        if self._owner.wants(service):
            return await self._serve(service, memory)
        outcome = await self._removal.clean_up(service, memory)
        if outcome.verdict is Verdict.REMOVED:
            del self._memory[key]
        return outcome

    async def _serve(self, service: objects.Service, memory: Memory) -> Outcome:
        """Ensure, and tell people why if that can't be done."""
        try:
            return await self._ensure(service, memory)
        except errors.Rejected as rejected:
            reason, text = rejected.reason, str(rejected)
        except errors.CloudRefused as refused:
            reason, text = refused.code, str(refused)
        except errors.CloudError as failed:
            await self._reports.cloud_failed(service, memory, failed)
            raise
        await self._reports.refuse(service, memory, reason, text)
        return Outcome(Verdict.REFUSED, self._settings.reprobe_s)

    async def _ensure(self, service: objects.Service, memory: Memory) -> Outcome:
        memory.delete_asked_at = None
        document = desired.build(service, self._kube.backends(), self._owner)
        if self._is_refused(document, memory):
            return Outcome(Verdict.REFUSED, self._settings.reprobe_s)
        name = ownership.load_balancer_name(service.metadata.uid)
        observed = self._cloud.observed(name)
        if objects.CLEANUP_FINALIZER not in service.finalizers:
            service = await self._begin(service)
        if observed is None or not self._is_asked_for(observed, document, memory):
            self._check_may_take(observed)
            observed = await self._put(service, memory, name, observed, document)
        return await self._publish(service, memory, observed)

    def _is_refused(self, document: documents.Document, memory: Memory) -> bool:
        """Return whether the cloud refused exactly this not long ago."""
        if memory.refused != document:
            memory.refused = None
            return False
        return self._clock.monotonic() - memory.refused_at < self._settings.reprobe_s

    async def _begin(self, service: objects.Service) -> objects.Service:
        """Write the finalizer, before any call to the cloud, and say that work has begun."""
        return await self._kube.write(
            service,
            finalizers=(*service.finalizers, objects.CLEANUP_FINALIZER),
            conditions=self._reports.changed_conditions(
                service, conditions.Stage.IN_PROGRESS, "", is_serving=bool(service.ingress)
            ),
        )

    def _is_asked_for(
        self, observed: documents.LoadBalancer, document: documents.Document, memory: Memory
    ) -> bool:
        if observed.status.state == "DELETING" or not self._owner.owns(observed):
            return False
        same_marks = (observed.labels, observed.annotations) == (
            document.labels,
            document.annotations,
        )
        if same_marks and documents.satisfies(observed.spec, document.spec):
            return True
        # The cloud may write a value in another way; then what we asked for last tells.
        is_same_generation = observed.status.generation == memory.applied_generation
        return is_same_generation and memory.applied == document

    def _check_may_take(self, observed: documents.LoadBalancer | None) -> None:
        if observed is None:
            return
        if not self._owner.owns(observed):
            raise errors.Rejected(
                "NameTaken",
                f"load balancer {observed.name} exists in the cloud and belongs to another cluster",
            )
        if observed.status.state == "DELETING":
            # Its DELETED frame wakes this key; the time is the safety net.
            raise errors.RetryAfter(self._settings.recheck_s, "the former one is being deleted")

    async def _put(
        self,
        service: objects.Service,
        memory: Memory,
        name: str,
        before: documents.LoadBalancer | None,
        document: documents.Document,
    ) -> documents.LoadBalancer:
        moves_nodes_only = before is not None and desired.only_targets_differ(
            before.spec, document.spec
        )
        if not moves_nodes_only and memory.announce != "EnsuredLoadBalancer":
            self._reports.tell(service, "EnsuringLoadBalancer")
        if not desired.has_targets(document):
            self._reports.tell(service, "UnAvailableLoadBalancer")
        try:
            answer = await self._cloud.put(name, document)
        except errors.CloudRefused:
            memory.refused, memory.refused_at = document, self._clock.monotonic()
            raise
        self._metrics.syncs.inc()
        if memory.announce != "EnsuredLoadBalancer":
            memory.announce = "UpdatedLoadBalancer" if moves_nodes_only else "EnsuredLoadBalancer"
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
        self, service: objects.Service, memory: Memory, load_balancer: documents.LoadBalancer
    ) -> Outcome:
        """Bring the status in line with what the cloud reports."""
        if not load_balancer.is_applied:
            return await self._report_progress(service, memory, load_balancer)
        ingress = desired.ingress(service, load_balancer)
        await self._reports.write(service, conditions.Stage.COMPLETE, ingress=ingress)
        if ingress and not service.ingress:
            waited_s = self._clock.monotonic() - memory.first_seen
            self._metrics.time_to_address.observe(waited_s)
            memory.announce = "EnsuredLoadBalancer"
            _log.info(
                "address_published",
                service=service.key,
                ip=ingress[0].ip,
                ms=round(waited_s * 1000),
            )
        self._reports.announce(service, memory)
        return Outcome(Verdict.IN_SYNC)

    async def _report_progress(
        self, service: objects.Service, memory: Memory, load_balancer: documents.LoadBalancer
    ) -> Outcome:
        if load_balancer.status.state == "ERROR":
            # After ACTIVE the last good configuration still serves, so the address stays.
            message = load_balancer.problem or "provisioning failed"
            self._reports.warn_once(service, memory, ("ERROR", message), message)
            await self._reports.write(service, conditions.Stage.INFRASTRUCTURE, message)
        elif not service.ingress:  # an update in place is over before anybody could read of it
            await self._reports.write(service, conditions.Stage.IN_PROGRESS)
        return Outcome(Verdict.WAITING, self._settings.recheck_s)

    def _remember(self, key: str, service: objects.Service) -> Memory:
        memory = self._memory.get(key)
        if memory is None or memory.uid != service.metadata.uid:
            memory = Memory(service.metadata.uid, self._clock.monotonic())
            self._memory[key] = memory
        return memory
