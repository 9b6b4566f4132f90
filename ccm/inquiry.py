"""The commands that look once: `explain` asks both sides, `teardown` ends what a cluster left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ccm import errors, identity
from ccm import metrics as metrics_
from ccm.cloud import client as clients
from ccm.cloud import connection as connections
from ccm.cloud import documents
from ccm.kube import objects
from ccm.kube import transport as transports
from ccm.service import desired, endpoints, explaining, nodes, ownership, sharing

T = TypeVar("T")


class _Nodes(msgspec.Struct):
    items: tuple[objects.Node, ...] = ()


class _Slices(msgspec.Struct):
    items: tuple[objects.EndpointSlice, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """Which Service, and how the controller that serves it was started."""

    key: str
    kubeconfig: Path | None
    cloud_url: str
    read_token: Callable[[], str]
    classes: tuple[str, ...]
    handle_unclassed: bool
    pod_networks: tuple[str, ...]
    transparent: bool
    lease: str
    cloud_ca_file: Path | None = None


async def ask(question: Question) -> list[explaining.Finding]:
    """Return the findings about a Service. Raises: ConfigError, KubeError."""
    async with contextlib.AsyncExitStack() as stack:
        transport = await transports.connect(question.kubeconfig)
        stack.push_async_callback(transport.close)
        connection = connections.Connection(
            question.cloud_url, question.read_token, metrics_.Metrics(), question.cloud_ca_file
        )
        client = clients.Client(connection)
        stack.push_async_callback(client.aclose)
        return explaining.explain(await _situation(question, transport, client))


async def teardown(
    cloud_url: str,
    read_token: Callable[[], str],
    cluster_uid: str,
    *,
    delete: bool,
    ca_file: Path | None = None,
) -> list[str]:
    """Return the names of what a cluster left, deleted if `delete`: load balancers and routes.

    Raises: ConfigError, CloudError.
    """
    gone = identity.Identity("", cluster_uid)
    metrics = metrics_.Metrics()
    client = clients.Client(connections.Connection(cloud_url, read_token, metrics, ca_file))
    async with contextlib.aclosing(client):
        names = [one.name for one in await client.list() if gone.owns(one.labels)]
        routes = [one for one in await client.routes() if gone.owns(one.labels)]
        if delete:
            for name in names:
                await client.delete(name)
            for route in routes:
                await client.delete_route(route.name)
            for network in {one.network for one in routes}:
                await client.delete_network(network)
        return [*names, *(one.name for one in routes)]


async def _situation(
    question: Question, transport: transports.Transport, client: clients.Client
) -> explaining.Situation:
    namespace, _, name = question.key.partition("/")
    path = f"/api/v1/namespaces/{namespace}/services/{name}"
    service = await _read(transport, path, objects.Service)
    system = await _read(transport, "/api/v1/namespaces/kube-system", objects.Namespace)
    owner = ownership.Ownership(
        identity.Identity("", system.metadata.uid), question.classes, question.handle_unclassed
    )
    found_nodes = (await _read(transport, "/api/v1/nodes", _Nodes)).items
    slices = await _slices(transport, namespace, name)
    plan = _plan(question, service, owner, found_nodes, slices)
    found, problem = await _inspect(client, service, owner)
    return explaining.Situation(
        service,
        owner,
        plan,
        found_nodes,
        slices,
        found,
        problem,
        await _holder(transport, question.lease),
    )


def _plan(
    question: Question,
    service: objects.Service,
    owner: ownership.Ownership,
    found_nodes: tuple[objects.Node, ...],
    slices: tuple[objects.EndpointSlice, ...] | None,
) -> desired.Plan | errors.Rejected:
    pods = endpoints.Pods(slices or (), question.pod_networks) if question.pod_networks else None
    try:
        backends = nodes.backends(found_nodes)
        return desired.build(service, backends, owner, pods, transparent=question.transparent)
    except errors.Rejected as rejected:
        return rejected


async def _inspect(
    client: clients.Client, service: objects.Service, owner: ownership.Ownership
) -> tuple[documents.Inspection | None, str]:
    group = sharing.share_of(service)
    own = ownership.load_balancer_name(service.metadata.uid)
    try:
        return await client.inspect(sharing.name_of(group, owner) if group else own), ""
    except errors.CloudError as error:
        return None, str(error)


async def _slices(
    transport: transports.Transport, namespace: str, name: str
) -> tuple[objects.EndpointSlice, ...] | None:
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    params = {"labelSelector": f"kubernetes.io/service-name={name}"}
    try:
        return (await _read(transport, path, _Slices, params)).items
    except errors.KubeError:
        return None  # whoever asks may not read them; the rest is still worth saying


async def _holder(transport: transports.Transport, lease: str) -> str:
    namespace, _, name = lease.partition("/")
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
    try:
        return (await _read(transport, path, objects.Lease)).spec.holder_identity or ""
    except errors.KubeError:
        return ""


async def _read(
    transport: transports.Transport,
    path: str,
    kind: type[T],
    params: dict[str, str] | None = None,
) -> T:
    body = await transport.request("GET", path, params=params)
    decoded: Any = msgspec.json.decode(body, type=kind)
    found: T = decoded
    return found
