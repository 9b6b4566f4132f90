"""Which routes a Node needs, which of ours are stale, and what the Node's condition says. Pure.

Source: k8s.io/cloud-provider controllers/route/route_controller.go, read at v0.37 alpha. Ours are
told by the cluster's UID, not by names of nodes, which repeat between clusters.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ccm import identity
from ccm.cloud import documents
from ccm.kube import objects

NETWORK_UNAVAILABLE: Final = "NetworkUnavailable"
Cidr = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Plan:
    """What one Node needs. problem: why its pods can't all be reached, "" if they can."""

    node: objects.Node
    routes: Mapping[str, documents.RouteDocument]
    problem: str


def network_name(cluster: identity.Identity) -> str:
    """Return the name of the cluster's network in the cloud."""
    return f"k8s-{cluster.uid}"


def plan(node: objects.Node, cluster: identity.Identity, ranges: Sequence[str]) -> Plan | None:
    """Return the routes by their names; None if the Node has no range of pods yet."""
    if not node.spec.pod_cidrs:
        return None
    routes: dict[str, documents.RouteDocument] = {}
    problem = ""
    for text in node.spec.pod_cidrs:
        pods = _network(text)
        hop = None if pods is None else _internal_ip(node, pods.version)
        if pods is None or not _within(pods, ranges):
            problem = f"podCIDR {text} is in none of --cluster-cidr {','.join(ranges)}"
        elif hop is None:
            problem = f"the node has no InternalIP of the family of its podCIDR {text}"
        else:
            routes[f"k8s-{node.metadata.uid}-v{pods.version}"] = documents.RouteDocument(
                network=network_name(cluster),
                destination=str(pods),
                next_hop=hop,
                labels={**cluster.labels, "node": node.metadata.name},
            )
    return Plan(node, routes, problem)


def is_ours(route: documents.Route, cluster: identity.Identity, ranges: Sequence[str]) -> bool:
    """Return whether this cluster made the route, and it leads into the cluster's ranges."""
    destination = _network(route.destination)
    in_range = destination is not None and _within(destination, ranges)
    return cluster.owns(route.labels) and in_range


def differs(route: documents.Route | None, wanted: documents.RouteDocument) -> bool:
    """Return whether the cloud has to be asked for `wanted`."""
    return route is None or wanted != documents.RouteDocument(
        route.network, route.destination, route.next_hop, route.labels
    )


def condition(node: objects.Node, *, is_reachable: bool) -> dict[str, str] | None:
    """Return what the condition must say, None if it does; its times are the caller's.

    Another network plug-in's reason is overwritten: whoever routes says so.
    """
    wanted = {
        "type": NETWORK_UNAVAILABLE,
        "status": "False" if is_reachable else "True",
        "reason": "RouteCreated" if is_reachable else "NoRouteCreated",
        "message": "RouteController created a route"
        if is_reachable
        else "RouteController failed to create a route",
    }
    for one in node.status.conditions or ():
        if one.type == NETWORK_UNAVAILABLE:
            is_said = (one.status, one.reason) == (wanted["status"], wanted["reason"])
            return None if is_said else wanted
    return wanted


def matters(node: objects.Node) -> tuple[object, ...]:
    """Return what of a Node decides about its routes; equal means that no look is needed."""
    said = [one for one in node.status.conditions or () if one.type == NETWORK_UNAVAILABLE]
    return node.metadata.uid, node.spec.pod_cidrs, node.status.addresses, said


def _internal_ip(node: objects.Node, version: int) -> str | None:
    for one in node.status.addresses or ():
        if one.type != "InternalIP":
            continue
        try:
            address = ipaddress.ip_address(one.address)
        except ValueError:
            continue
        if address.version == version:
            return str(address)
    return None


def _within(pods: Cidr, ranges: Iterable[str]) -> bool:
    networks = (ipaddress.ip_network(one, strict=False) for one in ranges)
    return any(one.version == pods.version and pods.subnet_of(one) for one in networks)  # type: ignore[arg-type]


def _network(text: str) -> Cidr | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
