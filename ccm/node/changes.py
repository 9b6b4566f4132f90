"""What a Node has to become, given its instance. Pure.

Sources: k8s.io/cloud-provider controllers/node/node_controller.go and node/helpers/address.go,
read at v0.37 alpha. Labels and addresses follow the cloud for good, not only at first sight.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ccm import errors, identity
from ccm.cloud import documents
from ccm.kube import objects

UNINITIALIZED: Final = "node.cloudprovider.kubernetes.io/uninitialized"
PROVIDED_IP: Final = "alpha.kubernetes.io/provided-node-ip"
_VALUE: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Changes:
    """Merge patches without their resource version, empty where nothing differs.

    status: goes first, so that nobody schedules to a node without addresses.
    """

    status: dict[str, Any]
    node: dict[str, Any]


def is_uninitialized(node: objects.Node) -> bool:
    """Return whether the kubelet waits for a cloud to introduce the node."""
    return any(one.key == UNINITIALIZED for one in node.taints)


def instance_key(node: objects.Node) -> str:
    """Return the id or name of the instance that the node runs on, "" if it isn't ours.

    The name counts only as long as nobody has introduced the node.
    """
    if node.spec.provider_id:
        return identity.instance_id(node.spec.provider_id)
    return node.metadata.name if is_uninitialized(node) else ""


def changes(node: objects.Node, instance: documents.Instance) -> Changes:
    """Return what differs. Raises: Rejected if the node's own IP isn't one of the instance's."""
    status: dict[str, Any] = {}
    wanted = addresses(node, instance)
    if wanted and wanted != (node.status.addresses or ()):
        status = {"addresses": [msgspec.to_builtins(one) for one in wanted]}
    spec: dict[str, Any] = {}
    if not node.spec.provider_id:
        spec["providerID"] = instance.provider_id
    if is_uninitialized(node):
        kept = [one for one in node.taints if one.key != UNINITIALIZED]
        spec["taints"] = [msgspec.to_builtins(one) for one in kept] or None
    body: dict[str, Any] = {"spec": spec} if spec else {}
    if differing := _differing_labels(node, instance):
        body["metadata"] = {"labels": differing}
    return Changes(status, body)


def addresses(node: objects.Node, instance: documents.Instance) -> tuple[objects.NodeAddress, ...]:
    """Return the addresses for the status, each once; empty if the cloud knows none.

    Those that the kubelet was told to use come first and stand alone among their type.
    Raises: Rejected if one of them isn't the instance's.
    """
    known = tuple(
        dict.fromkeys(objects.NodeAddress(one.type, one.address) for one in instance.addresses)
    )
    if not known:
        return ()
    if not any(one.type == "Hostname" for one in known):
        known += tuple(one for one in node.status.addresses or () if one.type == "Hostname")
    provided = (node.metadata.annotations or {}).get(PROVIDED_IP, "")
    return _preferred(provided, known) if provided else known


def _preferred(
    provided: str, known: tuple[objects.NodeAddress, ...]
) -> tuple[objects.NodeAddress, ...]:
    first: list[objects.NodeAddress] = []
    for text in provided.split(","):
        ip = _ip(text.strip())
        matching = [one for one in known if ip is not None and _ip(one.address) == ip]
        if not matching:
            raise errors.Rejected(
                "NodeIPUnknown",
                f"annotation {PROVIDED_IP}: {text.strip()!r} is not an address of the instance; "
                "give the kubelet another --node-ip, or the instance that address",
            )
        first += [one for one in matching if one not in first]
    settled = {one.type for one in first}
    return (*first, *(one for one in known if one.type not in settled))


def _differing_labels(node: objects.Node, instance: documents.Instance) -> dict[str, str]:
    wanted = {
        "node.kubernetes.io/instance-type": instance.type,
        "beta.kubernetes.io/instance-type": instance.type,
        "topology.kubernetes.io/zone": instance.zone,
        "failure-domain.beta.kubernetes.io/zone": instance.zone,
        "topology.kubernetes.io/region": instance.region,
        "failure-domain.beta.kubernetes.io/region": instance.region,
    }
    present = node.metadata.labels or {}
    # What the API server takes for no label value would keep the node from being introduced.
    return {
        key: value
        for key, value in wanted.items()
        if _VALUE.fullmatch(value) and present.get(key) != value
    }


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
