"""Which HTTP load balancers could share one Gateway, and what exactly that would save.

Advice is given only when the same rating that makes the bill says that it gets smaller, so where
the first five rules cost the same as one there is none for five.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import yaml

from fakecloud.billing import money, projection
from fakecloud.billing.prices import PriceBook
from fakecloud.billing.usage import Span
from fakecloud.model import Listener, LoadBalancer

HTTP_PORTS: Final = frozenset({80, 443, 8000, 8080, 8443})
LEAST: Final = 2
GATEWAY: Final = "shared-gateway"


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A load balancer of a Service, as it is billed now."""

    lb: LoadBalancer
    span: Span

    @property
    def namespace(self) -> str:
        """Return the Service's namespace."""
        return self.lb.labels.get("namespace", "")

    @property
    def service(self) -> str:
        """Return namespace and name of the Service."""
        return f"{self.namespace}/{self.lb.labels.get('service', '')}"


class Excluded(msgspec.Struct, frozen=True, kw_only=True):
    """Who can't share, and why."""

    service: str
    why: str


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """Load balancers that can share one, amounts in pico-units a month without traffic."""

    cluster: str
    services: tuple[str, ...]
    confidence: str
    current_pico: int
    proposed_pico: int
    manifest: str

    @property
    def saves_pico(self) -> int:
        """Return what the bill falls by."""
        return self.current_pico - self.proposed_pico


def advise(there: Sequence[Candidate], book: PriceBook) -> tuple[list[Advice], list[Excluded]]:
    """Return who should share one Gateway, the greatest saving first, and who can't."""
    groups: defaultdict[tuple[Any, ...], list[Candidate]] = defaultdict(list)
    excluded = []
    for one in sorted(there, key=lambda candidate: candidate.service):
        why = why_not(one.lb)
        if why is not None:
            excluded.append(Excluded(service=one.service, why=why))
            continue
        groups[_alike(one.lb)].append(one)
    found = []
    for group in groups.values():
        if len(group) < LEAST:
            excluded += [Excluded(service=one.service, why=_ALONE) for one in group]
            continue
        advice = _advice(group, there, book)
        if advice.saves_pico > 0:
            found.append(advice)
        else:
            why = f"one load balancer for {len(group)} costs as much under {book.id}"
            excluded += [Excluded(service=one.service, why=why) for one in group]
    return sorted(found, key=lambda advice: -advice.saves_pico), excluded


_ALONE: Final = "no other HTTP load balancer has the same cluster, source ranges and families"


def why_not(lb: LoadBalancer) -> str | None:
    """Return why a load balancer can't be one Gateway's with others; None: it can."""
    if not (lb.labels.get("namespace") and lb.labels.get("service")):
        return "it is of no Service"
    reasons = (_why_not_listener(listener) for listener in lb.spec.listeners)
    why = next((reason for reason in reasons if reason is not None), None)
    if why is None and any(group.affinity.kind == "client_ip" for group in lb.spec.target_groups):
        why = "it keeps clients by their address (sessionAffinity: ClientIP)"
    if why is None and any(request.ip for request in lb.spec.addresses):
        why = "it asks for an address of its own"
    return why


def _why_not_listener(listener: Listener) -> str | None:
    if listener.protocol == "udp":
        return f"UDP {listener.port} is not HTTP"
    if listener.protocol == "tcp" and not _looks_like_http(listener.name, listener.port):
        return f"TCP {listener.port} is not known to be HTTP"
    if listener.accept_proxy_protocol:
        return f"port {listener.port} expects a PROXY header"
    return None


def _looks_like_http(name: str, port: int) -> bool:
    return name.startswith("http") or port in HTTP_PORTS


def _certain(lb: LoadBalancer) -> bool:
    return all(
        listener.protocol in ("http", "https") or listener.name.startswith("http")
        for listener in lb.spec.listeners
    )


def _alike(lb: LoadBalancer) -> tuple[Any, ...]:
    families = tuple(sorted({request.family for request in lb.spec.addresses}))
    cluster = lb.labels.get("cluster-uid") or lb.labels.get("cluster", "")
    return cluster, lb.spec.type, families, tuple(sorted(lb.spec.source_ranges))


def _advice(group: Sequence[Candidate], there: Sequence[Candidate], book: PriceBook) -> Advice:
    ports = {listener.port for one in group for listener in one.lb.spec.listeners}
    shared = msgspec.structs.replace(
        group[0].span, ports=len(ports), protocols=1, attribution=GATEWAY
    )
    members = {one.lb.id for one in group}
    rest = [(one.lb.id, one.span) for one in there if one.lb.id not in members]
    current = _monthly([(one.lb.id, one.span) for one in there], book)
    proposed = _monthly([*rest, (GATEWAY, shared)], book)
    unchanged = _monthly(rest, book)
    return Advice(
        cluster=group[0].lb.labels.get("cluster", ""),
        services=tuple(one.service for one in group),
        confidence="high" if all(_certain(one.lb) for one in group) else "medium",
        current_pico=current - unchanged,
        proposed_pico=proposed - unchanged,
        manifest=manifest(group),
    )


def _monthly(of: Iterable[tuple[str, Span]], book: PriceBook) -> int:
    return sum(line.billed_pico for line in projection.bill(projection.month_of(of), book))


def manifest(group: Sequence[Candidate]) -> str:
    """Return a Gateway and a route for each Service; hosts are for the reader to fill in."""
    ports = sorted({listener.port for one in group for listener in one.lb.spec.listeners})
    api = "gateway.networking.k8s.io/v1"
    everywhere = {"namespaces": {"from": "All"}}
    documents: list[dict[str, Any]] = [
        {
            "apiVersion": api,
            "kind": "Gateway",
            "metadata": {"name": GATEWAY, "namespace": group[0].namespace},
            "spec": {
                "gatewayClassName": "YOUR-GATEWAY-CLASS",
                "listeners": [
                    {
                        "name": f"http-{port}",
                        "port": port,
                        "protocol": "HTTP",
                        "allowedRoutes": everywhere,
                    }
                    for port in ports
                ],
            },
        }
    ]
    for one in group:
        parent = {"name": GATEWAY, "namespace": group[0].namespace}
        name = one.lb.labels["service"]
        documents.append(
            {
                "apiVersion": api,
                "kind": "HTTPRoute",
                "metadata": {"name": name, "namespace": one.namespace},
                "spec": {
                    "parentRefs": [parent],
                    "hostnames": [f"{name}.{one.namespace}.example.org"],
                    "rules": [
                        {"backendRefs": [{"name": name, "port": one.lb.spec.listeners[0].port}]}
                    ],
                },
            }
        )
    return yaml.safe_dump_all(documents, sort_keys=False)


def document(
    found: Sequence[Advice], excluded: Sequence[Excluded], book: PriceBook
) -> dict[str, Any]:
    """Return the answer's document."""
    return {
        "currency": book.currency,
        "price_book": book.id,
        "items": [
            {
                "type": "consolidate_http",
                "cluster": advice.cluster,
                "services": advice.services,
                "confidence": advice.confidence,
                "current_monthly": money.text(advice.current_pico),
                "proposed_monthly": money.text(advice.proposed_pico),
                "saves_monthly": money.text(advice.saves_pico),
                "manifest": advice.manifest,
            }
            for advice in found
        ],
        "excluded": [{"service": one.service, "why": one.why} for one in excluded],
    }
