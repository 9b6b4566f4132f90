"""What people are told about a Service: events with upstream's reasons, and conditions.

Trouble is told once, then there is silence until it changes or the Service does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Final

import structlog

from ccm import clock as clocks
from ccm import errors
from ccm.kube import objects
from ccm.service import annotations as annotations_
from ccm.service import conditions, ports
from ccm.service.ports import Memory

NORMAL: Final = "Normal"
WARNING: Final = "Warning"

# Reasons and words are upstream's, byte for byte: tools search for them.
EVENTS: Final = {
    "EnsuringLoadBalancer": (NORMAL, "Ensuring load balancer"),
    "EnsuredLoadBalancer": (NORMAL, "Ensured load balancer"),
    "UpdatedLoadBalancer": (NORMAL, "Updated load balancer with new hosts"),
    "DeletingLoadBalancer": (NORMAL, "Deleting load balancer"),
    "DeletedLoadBalancer": (NORMAL, "Deleted load balancer"),
    "UnAvailableLoadBalancer": (WARNING, "There are no available nodes for LoadBalancer"),
}

HOST_NAMES: Final = 20
"""Names of nodes in one event, as upstream limits them."""

_log = structlog.get_logger()


class Reports:
    """Events and conditions of Services. has_conditions: whether conditions are written at all."""

    def __init__(self, kube: ports.Kube, clock: clocks.Clock, *, has_conditions: bool) -> None:
        self._kube = kube
        self._clock = clock
        self._has_conditions = has_conditions

    def tell(self, service: objects.Service, reason: str) -> None:
        """Record one of the events whose words are fixed."""
        type_, note = EVENTS[reason]
        self._kube.record(service, type_, reason, note)

    def billing(self, service: objects.Service, reason: str, note: str) -> None:
        """Record BillingStarted or BillingStopped."""
        self._kube.record(service, NORMAL, reason, note)

    def begin(self, service: objects.Service, memory: Memory, *, moves_nodes_only: bool) -> None:
        """Say that work begins, unless only nodes move, and note what to say at its end."""
        if memory.announce == "EnsuredLoadBalancer":
            return
        if not moves_nodes_only:
            self.tell(service, "EnsuringLoadBalancer")
        memory.announce = "UpdatedLoadBalancer" if moves_nodes_only else "EnsuredLoadBalancer"

    def announce(self, service: objects.Service, memory: Memory) -> None:
        """Record the end of what was begun, if anything was; trouble counts as over."""
        if memory.announce:
            self.tell(service, memory.announce)
        memory.announce = ""
        memory.told = None

    def warn_once(
        self, service: objects.Service, memory: Memory, what: tuple[str, ...], text: str
    ) -> None:
        """Record that it failed, unless `what` was told of the Service as it is now."""
        told = (*what, service.spec, service.metadata.annotations)
        if memory.told == told:
            return
        memory.told = told
        if memory.announce == "UpdatedLoadBalancer":
            self._kube.record(service, WARNING, "UpdateLoadBalancerFailed", self._hosts(text))
        else:
            note = f"Error syncing load balancer: {text}"
            self._kube.record(service, WARNING, "SyncLoadBalancerFailed", note)
        _log.warning("service_not_served", service=service.key, error=text)

    def deletion_failed(
        self, service: objects.Service, memory: Memory, failed: errors.CloudError
    ) -> None:
        """Record DeleteLoadBalancerFailed once; a wait that the cloud asked for is no failure."""
        told = ("delete", failed.code, str(failed))
        if failed.retry_after_s is None and memory.told != told:
            memory.told = told
            note = f"Error deleting load balancer: {failed}"
            self._kube.record(service, WARNING, "DeleteLoadBalancerFailed", note)

    def advise(
        self, service: objects.Service, memory: Memory, advice: tuple[annotations_.Advice, ...]
    ) -> None:
        """Say once of each thing that has no effect, and again if it was gone in between."""
        for one in advice:
            if one.text not in memory.advised:
                self._kube.record(service, WARNING, one.reason, one.text)
        memory.advised = frozenset(one.text for one in advice)

    async def refuse(
        self,
        service: objects.Service,
        memory: Memory,
        reason: str,
        message: str,
        *,
        is_served: bool,
    ) -> None:
        """Say once why the Service can't be served.

        is_served: a load balancer still does what the Service asked for before; otherwise its
        address is taken back, as others may get it.
        """
        text = f"{reason}: {message}"
        self.warn_once(service, memory, (reason, message), text)
        stage = conditions.Stage.UNSUPPORTED
        current = self._kube.service(service.key)  # newer than `service` if we wrote meanwhile
        if current is not None and current.ingress and not is_served:
            await self.write(current, stage, text, ingress=(), facts=())
        elif current is not None:
            await self.write(current, stage, text)

    async def cloud_failed(
        self, service: objects.Service, memory: Memory, failed: errors.CloudError
    ) -> None:
        """Say once that the cloud is in trouble; a wait that the cloud asked for is no trouble."""
        if failed.retry_after_s is None or isinstance(failed, errors.CloudExhausted):
            self.warn_once(service, memory, (failed.code,), str(failed))
            text = f"{failed.code}: {failed}"
            await self._write_current(service, conditions.Stage.INFRASTRUCTURE, text)

    async def write(
        self,
        service: objects.Service,
        stage: conditions.Stage,
        message: str = "",
        *,
        ingress: tuple[objects.Ingress, ...] | None = None,
        facts: tuple[objects.Condition, ...] | None = None,
        annotations: Mapping[str, str | None] | None = None,
    ) -> None:
        """Write the conditions of `stage`, and the rest if given; nothing if all is so already.

        facts: what is true beside the stage; None leaves that as it is.

        Raises: KubeError, but a Service that is gone is no error: its deletion brings it back.
        """
        published = service.ingress if ingress is None else ingress
        changed = self.changed_conditions(
            service, stage, message, is_serving=bool(published), facts=facts
        )
        if ingress == service.ingress:
            ingress = None
        if ingress is None and changed is None and not annotations:
            return
        with contextlib.suppress(errors.KubeNotFound):
            await self._kube.write(
                service, ingress=ingress, conditions=changed, annotations=annotations or None
            )

    def changed_conditions(
        self,
        service: objects.Service,
        stage: conditions.Stage,
        message: str,
        *,
        is_serving: bool,
        facts: tuple[objects.Condition, ...] | None = None,
    ) -> tuple[objects.Condition, ...] | None:
        """Return the conditions to write, None if they are off or as they should be."""
        if not self._has_conditions:
            return None
        now = clocks.rfc3339(self._clock.now())
        wanted = conditions.advance(
            service.conditions, stage, message[:1024], now, is_serving=is_serving, facts=facts
        )
        return None if wanted == service.conditions else wanted

    def _hosts(self, text: str) -> str:
        names = [one.name for one in self._kube.backends()]
        shown = names[:HOST_NAMES]
        if left := len(names) - len(shown):
            shown.append(f"<{left} more>")
        return (
            f"Error updating load balancer with new hosts [{' '.join(shown)}] "
            f"[node names limited, total number of nodes: {len(names)}], error: {text}"
        )

    async def _write_current(
        self, service: objects.Service, stage: conditions.Stage, message: str
    ) -> None:
        current = self._kube.service(service.key)  # newer than `service` if we wrote meanwhile
        if current is not None:
            await self.write(current, stage, message)
