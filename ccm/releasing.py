"""The command `release`: a cluster's Services given back, once its controller is removed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from ccm import errors, identity
from ccm import metrics as metrics_
from ccm.cloud import client as clients
from ccm.cloud import connection as connections
from ccm.kube import objects
from ccm.kube import transport as transports
from ccm.service import annotations as annotations_
from ccm.service import cluster, conditions

MAX_PAGES: Final = 1000
PAGE: Final = "500"


class _ListMeta(msgspec.Struct, rename={"next": "continue"}):
    next: str = ""


class _Services(msgspec.Struct):
    metadata: _ListMeta
    items: tuple[msgspec.Raw, ...] = ()


async def release(
    kubeconfig: Path,
    lease: str,
    cloud_url: str,
    read_token: Callable[[], str],
    *,
    project: str = "",
    ca_file: Path | None = None,
) -> tuple[list[str], list[str]]:
    """Give back every Service that the controller served; delete what the cloud ran for them.

    They are <pending> again: no address, no finalizer, condition or annotation of ours is left. Return
    their keys, and the names of the load balancers. May be repeated.
    Raises: ConfigError while a controller still leads; KubeError, CloudError.
    """
    transport = await transports.connect(kubeconfig)
    try:
        await _refuse_while_led(transport, lease)
        body = await transport.request("GET", "/api/v1/namespaces/kube-system")
        uid = msgspec.json.decode(body, type=objects.Namespace).metadata.uid
        released = [one.key for one in await _released(transport)]
    finally:
        await transport.close()
    metrics = metrics_.Metrics()
    connection = connections.Connection(cloud_url, read_token, metrics, ca_file, project)
    client = clients.Client(connection)
    async with contextlib.aclosing(client):
        gone = identity.Identity("", uid)
        names = [one.name for one in await client.list() if gone.owns(one.labels)]
        for name in names:
            await client.delete(name)
    return released, names


async def _refuse_while_led(transport: transports.Transport, lease: str) -> None:
    """Raises: ConfigError: a controller that runs would take everything back at once."""
    namespace, _, name = lease.partition("/")
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
    try:
        body = await transport.request("GET", path)
    except errors.KubeNotFound:
        return
    holder = msgspec.json.decode(body, type=objects.Lease).spec.holder_identity
    if holder:
        raise errors.ConfigError(
            f"{holder} still leads: delete the controller first, "
            "kubectl -n kube-system delete deployment fakecloud-ccm (if it is gone already, "
            f"kubectl -n {namespace} delete lease {name})"
        )


async def _released(transport: transports.Transport) -> list[objects.Service]:
    found = []
    for raw in await _services(transport):
        service = msgspec.json.decode(raw, type=objects.Service)
        if not cluster.has_our_finalizer(raw):
            continue
        body = _patch(service)
        path = f"{cluster.path_of(service.key)}/status"
        await transport.request("PATCH", path, body=body, content_type=transports.MERGE_PATCH)
        found.append(service)
    return found


def _patch(service: objects.Service) -> dict[str, Any]:
    finalizers = tuple(f for f in service.finalizers if f != objects.CLEANUP_FINALIZER)
    others = conditions.without_ours(service.conditions)
    body = cluster.status_patch(service, finalizers=finalizers, ingress=(), conditions=others)
    if ours := annotations_.without_ours(service.annotations):
        body["metadata"]["annotations"] = ours
    return body


async def _services(transport: transports.Transport) -> list[msgspec.Raw]:
    found: list[msgspec.Raw] = []
    params = {"limit": PAGE}
    for _ in range(MAX_PAGES):
        body = await transport.request("GET", "/api/v1/services", params=params)
        page = msgspec.json.decode(body, type=_Services)
        found += page.items
        if not page.metadata.next:
            break
        params["continue"] = page.metadata.next
    return found


def told(released: list[str], deleted: list[str]) -> Iterator[str]:
    """Yield what to say of it."""
    yield from (f"{key} is <pending> again" for key in released)
    yield from (f"deleted {name}" for name in deleted)
    if not released and not deleted:
        yield "nothing was left"
