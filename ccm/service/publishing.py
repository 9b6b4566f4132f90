"""What a Service's status says once its load balancer serves, and until then."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from ccm import clock as clocks
from ccm import metrics as metrics_
from ccm import settings as settings_
from ccm.cloud import documents
from ccm.kube import objects
from ccm.kube.workers import Outcome
from ccm.service import annotations as annotations_
from ccm.service import conditions, desired, ports, reach, reports
from ccm.service.ports import Memory, Verdict

_log = structlog.get_logger()


class Publishing:
    """Brings the status of one Service in line with what the cloud reports."""

    def __init__(
        self,
        kube: ports.Kube,
        reports_: reports.Reports,
        reach_: ports.Reach,
        rates: ports.Rates,
        settings: settings_.Settings,
        clock: clocks.Clock,
        metrics: metrics_.Metrics,
        wake: Callable[[str], None],
    ) -> None:
        """wake: called with the key of a Service whose address turned out to answer, or not."""
        self._kube = kube
        self._reports = reports_
        self._reach = reach_
        self._rates = rates
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._wake = wake

    async def begin(self, service: objects.Service) -> objects.Service:
        """Return the Service with our finalizer, written before any call to the cloud."""
        if objects.CLEANUP_FINALIZER in service.finalizers:
            return service
        return await self._kube.write(
            service,
            finalizers=(*service.finalizers, objects.CLEANUP_FINALIZER),
            conditions=self._reports.changed_conditions(
                service, conditions.Stage.IN_PROGRESS, "", is_serving=bool(service.ingress)
            ),
        )

    async def publish(
        self,
        key: str,
        service: objects.Service,
        memory: Memory,
        plan: desired.Plan,
        load_balancer: documents.LoadBalancer,
    ) -> Outcome:
        """Publish the address if the load balancer serves, else say what it waits for."""
        if not load_balancer.is_applied:
            return await self._report_progress(service, memory, load_balancer)
        ingress = desired.ingress(plan, load_balancer)
        changed = self._annotations(service, plan, load_balancer)
        facts = await self._facts(key, service, plan, load_balancer)
        await self._reports.write(
            service, conditions.Stage.COMPLETE, ingress=ingress, facts=facts, annotations=changed
        )
        if ingress and not service.ingress:
            waited_s = self._clock.monotonic() - memory.first_seen
            self._metrics.time_to_address.observe(waited_s)
            memory.announce = "EnsuredLoadBalancer"
            _log.info(
                "address_published",
                service=service.key,
                address=ingress[0].ip or ingress[0].hostname,
                ms=round(waited_s * 1000),
            )
        self._reports.announce(service, memory)
        if ingress and not service.ingress and changed.get(annotations_.HOURLY_COST):
            self._tell_cost(service, load_balancer)
        return Outcome(Verdict.IN_SYNC)

    def _annotations(
        self, service: objects.Service, plan: desired.Plan, load_balancer: documents.LoadBalancer
    ) -> dict[str, str | None]:
        """Return what has changed of what we write: the machine's ports and the price."""
        wanted: dict[str, str | None] = {
            annotations_.HOST_PORTS: desired.host_ports(service, load_balancer) or None
        }
        rate = self._rates.rate_of(load_balancer.spec)
        if plan.share or not self._settings.hourly_cost:
            wanted[annotations_.HOURLY_COST] = None
        elif rate is not None:  # not known for a while is no reason to take it away
            wanted[annotations_.HOURLY_COST] = rate
        written = service.annotations
        return {name: text for name, text in wanted.items() if written.get(name) != text}

    def _tell_cost(self, service: objects.Service, load_balancer: documents.LoadBalancer) -> None:
        if rate := self._rates.rate_of(load_balancer.spec):
            self._reports.billing(service, "BillingStarted", self._rates.words(rate))

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

    async def _facts(
        self,
        key: str,
        service: objects.Service,
        plan: desired.Plan,
        load_balancer: documents.LoadBalancer,
    ) -> tuple[objects.Condition, ...]:
        facts = [plan.source_ip]
        if self._settings.reachability_check:
            facts.insert(0, await self._reachable(key, service, plan, load_balancer))
        if refused := plan.refused_ports:
            text = ", ".join(f"{one.port}/{one.protocol}" for one in refused)
            facts.append(
                objects.Condition(
                    conditions.PORTS_ERROR, "True", "UnsupportedProtocol", f"not served: {text}"
                )
            )
        return tuple(facts)

    async def _reachable(
        self,
        key: str,
        service: objects.Service,
        plan: desired.Plan,
        load_balancer: documents.LoadBalancer,
    ) -> objects.Condition:
        """Return whether the first address answers, tried from here.

        From elsewhere it may be otherwise: an address outside of the nodes' network is named,
        because it fails silently.
        """
        kind = conditions.REACHABLE
        tcp = [one for one in plan.document.spec.listeners if one.protocol != "udp"]
        ip = next((one.ip for one in load_balancer.status.addresses if one.ip), None)
        if not tcp or ip is None:
            text = "a UDP port doesn't tell whether anything listens"
            return objects.Condition(kind, "Unknown", "NotTried", text)
        port = tcp[0].port
        problem = await self._reach.soon(ip, port, lambda: self._wake(key))
        where = f"{ip} port {port},"
        tried = f"{where} tried from {self._reach.here}"
        node_ips = [one for backend in self._kube.backends() for one in backend.ips]
        if network := reach.outside_of(ip, node_ips):
            tried += f"; the address is not in the nodes' network ({network})"
        match problem:
            case None:
                new = objects.Condition(kind, "Unknown", "Trying", tried)
            case "":
                new = objects.Condition(kind, "True", "Connected", tried)
            case _:
                new = objects.Condition(kind, "False", "NoConnection", f"{problem}: {tried}")
        old = next((one for one in service.conditions if one.type == kind), None)
        is_known = old is not None and where in old.message
        # A restart, or another instance that leads now, is no news of its own.
        if old is not None and is_known and (problem is None or old.status == new.status):
            return old
        return new
