"""kube-proxy's part: from a Service and its EndpointSlices to what answers on which node. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

_TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address behind a Service; `pod` is its name, or "" in a slice written by hand."""

    address: str
    node: str
    pod: str


@dataclass(frozen=True, slots=True)
class NodePort:
    """One port of a Service that has a nodePort.

    ready: endpoints that are Ready; leaving: terminating ones that still serve (KEP-1669).
    """

    protocol: str
    number: int
    name: str
    ready: tuple[Endpoint, ...]
    leaving: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Proxied:
    """What nodes do for one Service.

    health_port: healthCheckNodePort, 0 without. local: externalTrafficPolicy Local.
    sticky: sessionAffinity ClientIP.
    """

    namespace: str
    name: str
    local: bool
    sticky: bool
    health_port: int
    ports: tuple[NodePort, ...]

    def endpoints_on(self, port: NodePort, node: str) -> tuple[Endpoint, ...]:
        """Return where `node` sends a connection to `port`: ready ones, else those that leave."""
        for candidates in (port.ready, port.leaving):
            fit = tuple(each for each in candidates if not self.local or each.node == node)
            if fit:
                return fit
        return ()

    def ready_on(self, node: str) -> int:
        """Return the number of Ready endpoints on `node`, as its health check counts them."""
        return len(
            {each.address for port in self.ports for each in port.ready if each.node == node}
        )


def proxied(service: Json, slices: Iterable[Json]) -> Proxied:
    """Return what nodes do for `service` with its EndpointSlices `slices`."""
    spec, metadata = service["spec"], service["metadata"]
    served = [slice_ for slice_ in slices if slice_.get("endpoints")]
    local = spec.get("externalTrafficPolicy") == "Local"
    return Proxied(
        namespace=metadata["namespace"],
        name=metadata["name"],
        local=local,
        sticky=spec.get("sessionAffinity") == "ClientIP",
        health_port=spec.get("healthCheckNodePort", 0) if local else 0,
        ports=tuple(
            _node_port(port, served) for port in spec.get("ports", ()) if "nodePort" in port
        ),
    )


def eligible(node: Json) -> bool:
    """Return False for a node that is on its way out, as `/healthz` of kube-proxy sees it."""
    if node["metadata"].get("deletionTimestamp"):
        return False
    taints = node.get("spec", {}).get("taints") or ()
    return all(taint["key"] != _TO_BE_DELETED for taint in taints)


def _node_port(port: Json, slices: list[Json]) -> NodePort:
    name = port.get("name", "")
    protocol = port.get("protocol", "TCP")
    ready: dict[Endpoint, None] = {}
    leaving: dict[Endpoint, None] = {}
    for slice_ in slices:
        if not any(_same_port(each, name, protocol) for each in slice_.get("ports") or ()):
            continue
        for each in slice_["endpoints"]:
            conditions = each.get("conditions") or {}
            is_ready = conditions.get("ready", True)
            if is_ready:
                ready[_endpoint(each)] = None
            elif conditions.get("serving", is_ready) and conditions.get("terminating"):
                leaving[_endpoint(each)] = None
    return NodePort(protocol, port["nodePort"], name, tuple(ready), tuple(leaving))


def _same_port(port: Json, name: str, protocol: str) -> bool:
    return (port.get("name") or "") == name and port.get("protocol", "TCP") == protocol


def _endpoint(each: Json) -> Endpoint:
    target = each.get("targetRef") or {}
    pod = target.get("name", "") if target.get("kind") == "Pod" else ""
    return Endpoint(each["addresses"][0], each.get("nodeName") or "", pod)
