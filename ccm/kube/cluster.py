"""What the reconciler sees of the cluster: caches to read, patches to write, events to record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ccm import errors, model, nodes, settings
from ccm.kube import events, informer, patches
from ccm.kube import transport as transports

SERVICES = "/api/v1/services"
NODES = "/api/v1/nodes"

_service_decoder = msgspec.json.Decoder(model.Service)


class _Manager(msgspec.Struct, rename={"fields": "fieldsV1"}):
    manager: str = ""
    fields: dict[str, Any] | None = None


class _ManagedMeta(msgspec.Struct, rename="camel"):
    managed_fields: tuple[_Manager, ...] | None = None


class _Managed(msgspec.Struct):
    metadata: _ManagedMeta


_managed_decoder = msgspec.json.Decoder(_Managed)


class Cluster:
    """The Kube protocol of the reconciler, on informers and a transport."""

    def __init__(
        self,
        transport: transports.Transport,
        services: informer.Informer[model.Service],
        nodes_: informer.Informer[model.Node],
        recorder: events.Recorder,
        *,
        may_write: Callable[[], None] = lambda: None,
    ) -> None:
        """may_write: called before every write; raises LeaseLost when another one leads."""
        self._transport = transport
        self._may_write = may_write
        self._services = services
        self._nodes = nodes_
        self._recorder = recorder
        self._backends: tuple[nodes.Backend, ...] | None = None
        nodes_.handlers.append(self._node_changed)

    def service(self, key: str) -> model.Service | None:
        """Return the Service in the cache, None if there is none."""
        return self._services.store.get(key)

    def services(self) -> tuple[model.Service, ...]:
        """Return all Services in the cache."""
        return tuple(self._services.store.values())

    def backends(self) -> tuple[nodes.Backend, ...]:
        """Return the nodes that take traffic, computed once per change of a node."""
        if self._backends is None:
            self._backends = nodes.backends(self._nodes.store.values())
        return self._backends

    async def live_service(self, key: str) -> tuple[model.Service, bool] | None:
        """Return the Service as the API server has it now, and whether its finalizer is ours.

        The finalizer's name is shared by all implementations; whoever added it is recorded as
        the manager of that field. None: no such Service. Raises: KubeError.
        """
        try:
            body = await self._transport.request("GET", _path(key))
        except errors.KubeNotFound:
            return None
        service = _service_decoder.decode(body)
        managers = _managed_decoder.decode(body).metadata.managed_fields or ()
        return service, any(_holds_finalizer(one) for one in managers)

    async def write(
        self,
        service: model.Service,
        *,
        finalizers: tuple[str, ...] | None = None,
        ingress: tuple[model.Ingress, ...] | None = None,
        conditions: tuple[model.Condition, ...] | None = None,
    ) -> model.Service:
        """Write what is given in one patch; return the Service as it is now.

        Raises: KubeConflict if somebody else wrote since `service` was read; KubeError.
        """
        self._may_write()
        body = patches.service_status(
            service, finalizers=finalizers, ingress=ingress, conditions=conditions
        )
        answer = await self._transport.request(
            "PATCH",
            f"{_path(service.key)}/status",
            params={"fieldManager": settings.FIELD_MANAGER},
            body=body,
            content_type=transports.MERGE_PATCH,
        )
        written = _service_decoder.decode(answer)
        self._services.observe(written)
        return written

    def record(self, service: model.Service, type_: str, reason: str, note: str) -> None:
        """Record an event about `service`; never blocks. type_: Normal | Warning."""
        self._recorder.record(service, type_, reason, note)

    def _node_changed(self, key: str, old: model.Node | None, new: model.Node | None) -> None:
        self._backends = None


async def cluster_uid(transport: transports.Transport) -> str:
    """Return the UID of the kube-system namespace, the cluster's identity. Raises: KubeError."""
    body = await transport.request("GET", "/api/v1/namespaces/kube-system")
    return _service_decoder.decode(body).metadata.uid


def _path(key: str) -> str:
    namespace, _, name = key.partition("/")
    return f"/api/v1/namespaces/{namespace}/services/{name}"


def _holds_finalizer(manager: _Manager) -> bool:
    if manager.manager != settings.FIELD_MANAGER:
        return False
    finalizers = ((manager.fields or {}).get("f:metadata") or {}).get("f:finalizers") or {}
    return f'v:"{model.CLEANUP_FINALIZER}"' in finalizers
