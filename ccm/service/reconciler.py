"""One key in, what to do next out: level-triggered, safe to repeat and to kill anywhere.

    wanted:   finalizer → PUT → (the cloud's stream wakes the key) → status
    unwanted: DELETE → (the stream wakes the key) → finalizer and status in one patch

The finalizer is there before the cloud hears of the Service, and goes when the cloud has
forgotten it. Nothing waits here: a key that needs time gives its worker back. A key is that of
a Service, or of a group of Services that share a load balancer (groups.py).
"""

from __future__ import annotations

from collections.abc import Callable

from ccm import clock as clocks
from ccm import errors
from ccm import metrics as metrics_
from ccm import settings as settings_
from ccm.cloud import documents
from ccm.kube import objects
from ccm.kube.workers import Outcome
from ccm.service import (
    asking,
    desired,
    endpoints,
    groups,
    ownership,
    ports,
    publishing,
    removal,
    reports,
    sharing,
)
from ccm.service.memories import Memories
from ccm.service.ports import Memory, Verdict


class Reconciler:
    """Brings Services and load balancers together. Calls for one key must not overlap."""

    def __init__(
        self,
        kube: ports.Kube,
        cloud: ports.Cloud,
        reach: ports.Reach,
        rates: ports.Rates,
        owner: ownership.Ownership,
        settings: settings_.Settings,
        clock: clocks.Clock,
        metrics: metrics_.Metrics,
        wake: Callable[[str], None],
    ) -> None:
        """wake: called with a key that is worth another look."""
        self._kube = kube
        self._cloud = cloud
        self._owner = owner
        self._settings = settings
        self._memories = Memories(clock)
        self._reports = reports.Reports(kube, clock, has_conditions=settings.service_conditions)
        self.asking = asking.Asking(cloud, owner, settings, clock, metrics, wake)
        self._publishing = publishing.Publishing(
            kube, self._reports, reach, rates, settings, clock, metrics, wake
        )
        self._removal = removal.Removal(kube, cloud, self._reports, owner, settings, clock, metrics)
        self._groups = groups.Groups(
            kube,
            cloud,
            owner,
            self.asking,
            self._publishing,
            self._reports,
            self._memories,
            settings,
            self.plan,
        )

    async def reconcile(self, key: str) -> Outcome:
        """Do what can be done now for `key`: namespace/name, or a group's.

        Raises: RetryAfter for a planned wait; KubeError and CloudError to be tried again.
        """
        if key.startswith(ownership.GROUP):
            return await self._groups.reconcile(key)
        service = self._kube.service(key)
        if service is None:
            self._memories.drop(key)
            self.asking.forget(key)
            return await self._removal.delete_orphans(key)
        memory = self._memories.of(service)
        await self._removal.delete_former(key, service)
        if self._owner.wants(service):
            return await self._serve(service, memory)
        self.asking.forget(key)
        outcome = await self._removal.clean_up(service, memory)
        if outcome.verdict == Verdict.REMOVED:
            self._memories.drop(key)
        return outcome

    def plan(self, service: objects.Service) -> desired.Plan:
        """Return what to ask the cloud for. Raises: Rejected."""
        pods = None
        if networks := self._settings.pod_networks:
            pods = endpoints.Pods(self._kube.endpoints(service.key), networks)
        return desired.build(
            service,
            self._kube.backends(),
            self._owner,
            pods,
            transparent=self._settings.transparent,
        )

    async def tell_unreachable(self, key: str, failed: errors.CloudError) -> None:
        """Say on a Service without an address that the cloud can't be reached."""
        service = self._kube.service(key)
        if service is not None and self._owner.wants(service) and not service.ingress:
            await self._reports.cloud_failed(service, self._memories.of(service), failed)

    async def _serve(self, service: objects.Service, memory: Memory) -> Outcome:
        """Ensure, and tell people why if that can't be done."""
        if sharing.share_of(service):
            return Outcome(Verdict.SHARED)  # its group's look does everything
        try:
            return await self._ensure(service, memory)
        except errors.Rejected as rejected:
            reason, text = rejected.reason, str(rejected)
        except errors.CloudRefused as refused:
            reason, text = refused.code, str(refused)
        except errors.CloudError as failed:
            await self._reports.cloud_failed(service, memory, failed)
            raise
        name = ownership.load_balancer_name(service.metadata.uid)
        is_served = self._removal.is_shared(service) or bool(
            self._cloud.observed(name) or (service.ingress and await self._cloud.look_up(name))
        )
        await self._reports.refuse(service, memory, reason, text, is_served=is_served)
        return Outcome(Verdict.REFUSED, self._settings.reprobe_s)

    async def _ensure(self, service: objects.Service, memory: Memory) -> Outcome:
        memory.delete_asked_at = None
        plan = self.plan(service)
        self._reports.advise(service, memory, plan.advice)
        document = plan.document
        if self.asking.was_refused(memory, document):
            return Outcome(Verdict.REFUSED, self._settings.reprobe_s)
        service = await self._publishing.begin(service)

        def tell(before: documents.LoadBalancer | None) -> None:
            moves_nodes_only = before is not None and desired.only_targets_differ(
                before.spec, document.spec
            )
            self._reports.begin(service, memory, moves_nodes_only=moves_nodes_only)
            if not desired.has_targets(document):
                self._reports.tell(service, "UnAvailableLoadBalancer")

        name = ownership.load_balancer_name(service.metadata.uid)
        observed = await self.asking.bring(service.key, name, document, memory, tell)
        return await self._publishing.publish(service.key, service, memory, plan, observed)
