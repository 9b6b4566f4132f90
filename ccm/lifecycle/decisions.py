"""What is decided about Nodes and their taints. Pure.

Source: k8s.io/cloud-provider controllers/nodelifecycle/node_lifecycle_controller.go, read at
v0.37 alpha; the bound on removals is our own.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ccm import identity
from ccm.kube import objects

SHUTDOWN: Final = "node.cloudprovider.kubernetes.io/shutdown"


def is_watched(node: objects.Node) -> bool:
    """Return whether the node runs on an instance of this cloud and isn't leaving anyway."""
    ours = bool(identity.instance_id(node.spec.provider_id))
    return ours and node.metadata.deletion_timestamp is None


def is_ready(node: objects.Node) -> bool:
    """Return whether the kubelet reports Ready; silence and doubt are no."""
    return any(one.type == "Ready" and one.status == "True" for one in node.status.conditions or ())


def is_shut_down(node: objects.Node) -> bool:
    """Return whether the node has the shutdown taint."""
    return any(one.key == SHUTDOWN for one in node.taints)


def taints(node: objects.Node, *, shut_down: bool) -> list[dict[str, Any]] | None:
    """Return the whole list with or without the shutdown taint; None if it is empty."""
    kept = [msgspec.to_builtins(one) for one in node.taints if one.key != SHUTDOWN]
    added = [{"key": SHUTDOWN, "effect": "NoSchedule"}] if shut_down else []
    return [*kept, *added] or None


def allowance(left: int, removed: int) -> int:
    """Return how many nodes may be removed now: half of those that there were, but one at least.

    left: nodes that there are; removed: those removed of late. More at once is rather a cloud
    that lost its memory than machines that ended.
    """
    return max(1, (left + removed) // 2) - removed
