"""Whether the targets of a Service are reached from the client's own address, and if not, why.

It takes a cloud that connects so, and nodes that send the answers back through the load balancer
(`ccm.returning` on each of them): --transparent says that both are there.
"""

from __future__ import annotations

from dataclasses import dataclass

from ccm.kube import objects
from ccm.service import annotations as annotations_


@dataclass(frozen=True, slots=True)
class Transparency:
    """The decision. reason, why_not: of the condition, where it was asked for and can't be."""

    is_on: bool = False
    reason: str = ""
    why_not: str = ""


def decide(
    service: objects.Service,
    wishes: annotations_.Wishes,
    served: tuple[objects.ServicePort, ...],
    *,
    offered: bool,
) -> Transparency:
    """Return the decision for all TCP ports of a Service. offered: the controller's --transparent.

    Without the annotation it is as offered where the policy is Local: that is what it is for.
    """
    asked = wishes.get(annotations_.PRESERVE_CLIENT_IP)
    is_local = service.spec.external_traffic_policy == "Local"
    if asked is False or (asked is None and not (offered and is_local)):
        return Transparency()
    reason, why_not = _obstacle(service, wishes, served, offered=offered)
    if not reason:
        return Transparency(is_on=True)
    if asked is None:
        return Transparency()
    name = annotations_.PRESERVE_CLIENT_IP.name
    return Transparency(reason=reason, why_not=f"{name} has no effect: {why_not}")


def _obstacle(
    service: objects.Service,
    wishes: annotations_.Wishes,
    served: tuple[objects.ServicePort, ...],
    *,
    offered: bool,
) -> tuple[str, str]:
    """Return reason and text of the first thing in the way, or two empty texts."""
    is_local = service.spec.external_traffic_policy == "Local"
    proxied = [one.name for one in (annotations_.IP_MODE, annotations_.HOSTNAME)
               if wishes.has(one) and wishes.get(one) != "VIP"]  # fmt: skip
    obstacles = {
        ("Masqueraded", "kube-proxy replaces it unless spec.externalTrafficPolicy is Local"): (
            not is_local and any(port.node_port for port in served)
        ),
        ("NotOffered", "the controller runs without --transparent: no answer would come back"): (
            not offered
        ),
        ("NotOffered", "it is offered for TCP only"): all(
            port.protocol != "TCP" for port in served
        ),
        ("TwoFamilies", "clients and targets must be of one family; spec.ipFamilies has two"): (
            len(service.spec.ip_families or ()) > 1
        ),
        ("ProxyProtocol", f"{annotations_.PROXY_PROTOCOL.name} tells it"): (
            wishes.get(annotations_.PROXY_PROTOCOL) != "none"
        ),
        ("IpModeConflict", f"{', '.join(proxied)} brings nodes to it, which no answer reaches"): (
            bool(proxied)
        ),
    }
    return next((said for said, holds in obstacles.items() if holds), ("", ""))
