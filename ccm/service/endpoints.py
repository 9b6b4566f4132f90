"""Pods as targets, for Services without nodePorts (KEP-1864): from EndpointSlices.

Only where load balancers reach pods: in the networks that --pod-networks names.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from ccm import errors
from ccm.cloud import documents
from ccm.kube import objects


@dataclass(frozen=True, slots=True)
class Pods:
    """What is known of the pods behind one Service. networks: CIDRs that load balancers reach."""

    slices: tuple[objects.EndpointSlice, ...]
    networks: tuple[str, ...]


def targets(pods: Pods, port: objects.ServicePort, family: str) -> tuple[documents.Target, ...]:
    """Return the pods behind `port`, by address. family: IPv4 | IPv6.

    Ready ones; a pod that is terminating but still serves is drained, and takes traffic only if
    no other does (KEP-1669). Raises: Rejected if a pod is out of reach.
    """
    found: dict[tuple[str, int], tuple[objects.Endpoint, bool]] = {}
    for slice_ in pods.slices:
        number = _port_of(slice_, port)
        if slice_.address_type != family or number is None:
            continue
        for one in slice_.endpoints or ():
            conditions = one.conditions or objects.EndpointConditions()
            is_leaving = bool(conditions.terminating) and conditions.serving is not False
            if conditions.ready is False and not is_leaving:
                continue
            for ip in one.addresses[:1]:
                found[ip, number] = (one, conditions.ready is False)
    has_ready = any(not is_leaving for _, is_leaving in found.values())
    return tuple(
        _target(pods, ip, number, one.node_name, drain=is_leaving and has_ready)
        for (ip, number), (one, is_leaving) in sorted(found.items(), key=lambda pair: pair[0])
    )


def _port_of(slice_: objects.EndpointSlice, port: objects.ServicePort) -> int | None:
    for one in slice_.ports or ():
        if (one.name or "") == port.name and one.protocol == port.protocol:
            return one.port
    return None


def _target(pods: Pods, ip: str, number: int, node: str | None, *, drain: bool) -> documents.Target:
    if not _is_within(ip, pods.networks):
        raise errors.Rejected(
            "PodsUnreachable",
            f"pod {ip} is in none of the networks that load balancers reach "
            f"({', '.join(pods.networks)}); add its network to --pod-networks, or set "
            "spec.allocateLoadBalancerNodePorts to true",
        )
    return documents.Target(ip=ip, port=number, node=node, drain=drain)


def _is_within(ip: str, networks: Iterable[str]) -> bool:
    address = ipaddress.ip_address(ip)
    return any(address in ipaddress.ip_network(one, strict=False) for one in networks)
