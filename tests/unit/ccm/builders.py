"""Values for tests, with only what a test is about spelled out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ccm import identity, settings
from ccm.kube import objects
from ccm.service import ownership as ownerships

CLUSTER_UID = "11111111-2222-3333-4444-555555555555"


def ownership(**changes: Any) -> ownerships.Ownership:
    """Return the ownership of this cluster."""
    values: dict[str, Any] = {
        "cluster": identity.Identity("kind", CLUSTER_UID),
        "classes": ("fakecloud.dev/haproxy",),
        "handle_unclassed": True,
    }
    return ownerships.Ownership(**{**values, **changes})


def run_settings(**changes: Any) -> settings.Settings:
    """Return settings that need no file."""
    values: dict[str, Any] = {"cloud_url": "http://127.0.0.1:1", "cloud_token_file": Path("token")}
    return settings.Settings(**{**values, **changes})


def port(
    number: int = 80, *, name: str = "", protocol: str = "TCP", node_port: int | None = None
) -> objects.ServicePort:
    """Return a port with a nodePort derived from it."""
    return objects.ServicePort(
        number, name, protocol, 30000 + number if node_port is None else node_port
    )


def service(
    name: str = "web",
    *,
    namespace: str = "shop",
    uid: str = "u-1",
    finalizers: tuple[str, ...] = (),
    annotations: dict[str, str] | None = None,
    deletion_timestamp: str | None = None,
    status: objects.ServiceStatus | None = None,
    ports: tuple[objects.ServicePort, ...] | None = None,
    **spec: Any,
) -> objects.Service:
    """Return a Service of type LoadBalancer with port 80."""
    return objects.Service(
        metadata=objects.ObjectMeta(
            name=name,
            namespace=namespace,
            uid=uid,
            resource_version="1",
            finalizers=finalizers,
            annotations=annotations,
            deletion_timestamp=deletion_timestamp,
        ),
        spec=objects.ServiceSpec(
            **{"type": "LoadBalancer", "ip_families": ("IPv4",), **spec},
            ports=(port(),) if ports is None else ports,
        ),
        status=status or objects.ServiceStatus(),
    )


def node(
    name: str = "node-1",
    *ips: str,
    labels: dict[str, str] | None = None,
    taints: tuple[str, ...] = (),
    is_deleted: bool = False,
) -> objects.Node:
    """Return a Node with InternalIPs."""
    return objects.Node(
        metadata=objects.ObjectMeta(
            name=name,
            labels=labels,
            deletion_timestamp="2026-01-01T00:00:00Z" if is_deleted else None,
        ),
        spec=objects.NodeSpec(taints=tuple(objects.Taint(key) for key in taints)),
        status=objects.NodeStatus(
            tuple(objects.NodeAddress("InternalIP", ip) for ip in ips or ("10.0.0.1",))
        ),
    )
