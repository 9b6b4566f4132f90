"""Which nodes get traffic, as named predicates, and under which address.

Readiness, schedulability and other taints don't matter: the health check decides about those
(KEP-3458). Source: k8s.io/cloud-provider controllers/service/controller.go, read at v0.37 alpha.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ccm.kube import objects

EXCLUDE_LABEL: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
AUTOSCALER_TAINT: Final = "ToBeDeletedByClusterAutoscaler"


# Exactly what Go's strconv.ParseBool takes for false; "" and garbage count as "excluded".
_GO_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})


@dataclass(frozen=True, slots=True)
class Backend:
    """A node that takes traffic: its name and InternalIPs in the node's own order.

    drain: on its way out, so that it keeps its connections and gets no new ones.
    """

    name: str
    ips: tuple[str, ...]
    drain: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    def ip_of(self, families: Iterable[str]) -> str | None:
        """Return the first address of the first family that the node has.

        families: "IPv4" | "IPv6", preferred first.
        """
        for family in families:
            for ip in self.ips:
                if (":" in ip) == (family == "IPv6"):
                    return ip
        return None

    def matches(self, selector: Iterable[tuple[str, str]]) -> bool:
        """Return whether the node has all of these labels."""
        return all(self.labels.get(key) == value for key, value in selector)


def is_being_deleted(node: objects.Node) -> bool:
    """Return whether the Node object is on its way out."""
    return node.metadata.deletion_timestamp is not None


def is_excluded(node: objects.Node) -> bool:
    """Return whether the node's label keeps it out of load balancers."""
    value = (node.metadata.labels or {}).get(EXCLUDE_LABEL)
    return value is not None and value not in _GO_FALSE


def is_going_away(node: objects.Node) -> bool:
    """Return whether the cluster autoscaler is about to remove the node."""
    return any(taint.key == AUTOSCALER_TAINT for taint in node.spec.taints or ())


def internal_ips(node: objects.Node) -> tuple[str, ...]:
    """Return the node's InternalIPs that parse, in its own order."""
    return tuple(
        address.address
        for address in node.status.addresses or ()
        if address.type == "InternalIP" and _is_ip(address.address)
    )


def exclusion(node: objects.Node) -> str:
    """Return why the node takes no new traffic, "" if it does."""
    if is_excluded(node):
        return f"label {EXCLUDE_LABEL}"
    if is_being_deleted(node):
        return "it is being deleted"
    if is_going_away(node):
        return f"taint {AUTOSCALER_TAINT}"
    if not internal_ips(node):
        return "it has no InternalIP"
    return ""


def backend(node: objects.Node) -> Backend | None:
    """Return the node as a backend, None if it takes no traffic. Equal results: nothing to do.

    Where upstream drops a node that is going away, it is drained here: as long as it is there,
    its connections go on.
    """
    ips = internal_ips(node)
    if is_excluded(node) or not ips:
        return None
    drain = is_being_deleted(node) or is_going_away(node)
    return Backend(node.metadata.name, ips, drain, node.metadata.labels or {})


def backends(nodes: Iterable[objects.Node]) -> tuple[Backend, ...]:
    """Return the nodes that take traffic, by name."""
    found = (backend(node) for node in nodes)
    return tuple(sorted((one for one in found if one), key=lambda one: one.name))


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
