"""What the reconciler sees of the cluster: caches to read, patches to write, events to record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ccm import errors, settings
from ccm.kube import events, informer, objects
from ccm.kube import transport as transports
from ccm.service import nodes, sharing

EVENT_SOURCE = "service-controller"
"""reportingController; the name that upstream's controller uses."""

_service_decoder = msgspec.json.Decoder(objects.Service)


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
        services: informer.Informer[objects.Service],
        nodes_: informer.Informer[objects.Node],
        recorder: events.Recorder,
        slices: informer.Informer[objects.EndpointSlice] | None = None,
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
        self._slices: dict[str, tuple[objects.EndpointSlice, ...]] = {}
        self._sharing: dict[str, set[str]] = {}
        nodes_.handlers.append(self._node_changed)
        services.handlers.append(self._service_changed)
        if slices is not None:
            slices.handlers.append(self._slice_changed)

    def service(self, key: str) -> objects.Service | None:
        """Return the Service in the cache, None if there is none."""
        return self._services.store.get(key)

    def services(self) -> tuple[objects.Service, ...]:
        """Return all Services in the cache."""
        return tuple(self._services.store.values())

    def backends(self) -> tuple[nodes.Backend, ...]:
        """Return the nodes that take traffic, computed once per change of a node."""
        if self._backends is None:
            self._backends = nodes.backends(self._nodes.store.values())
        return self._backends

    def endpoints(self, key: str) -> tuple[objects.EndpointSlice, ...]:
        """Return the EndpointSlices of a Service; none if they are not watched."""
        return self._slices.get(key, ())

    def sharing(self, group: str) -> tuple[objects.Service, ...]:
        """Return the Services that ask to share the load balancer of `group`."""
        found = (self.service(key) for key in sorted(self._sharing.get(group, ())))
        return tuple(one for one in found if one is not None)

    async def live_service(self, key: str) -> tuple[objects.Service, bool] | None:
        """Return the Service as the API server has it now, and whether its finalizer is ours.

        The finalizer's name is shared by all implementations; whoever added it is recorded as
        the manager of that field. None: no such Service. Raises: KubeError.
        """
        try:
            body = await self._transport.request("GET", path_of(key))
        except errors.KubeNotFound:
            return None
        return _service_decoder.decode(body), has_our_finalizer(body)

    async def write(
        self,
        service: objects.Service,
        *,
        finalizers: tuple[str, ...] | None = None,
        ingress: tuple[objects.Ingress, ...] | None = None,
        conditions: tuple[objects.Condition, ...] | None = None,
        annotations: Mapping[str, str | None] | None = None,
    ) -> objects.Service:
        """Write what is given in one patch; return the Service as it is now.

        Raises: KubeConflict if somebody else wrote since `service` was read; KubeError.
        """
        self._may_write()
        body = status_patch(service, finalizers=finalizers, ingress=ingress, conditions=conditions)
        if annotations is not None:
            body["metadata"]["annotations"] = dict(annotations)
        answer = await self._transport.request(
            "PATCH",
            f"{path_of(service.key)}/status",
            params={"fieldManager": settings.FIELD_MANAGER},
            body=body,
            content_type=transports.MERGE_PATCH,
        )
        written = _service_decoder.decode(answer)
        self._services.observe(written)
        return written

    def record(self, service: objects.Service, type_: str, reason: str, note: str) -> None:
        """Record an event about `service`; never blocks. type_: Normal | Warning."""
        self._recorder.record(EVENT_SOURCE, service.reference, type_, reason, note)

    def _node_changed(self, key: str, old: objects.Node | None, new: objects.Node | None) -> None:
        self._backends = None

    def _service_changed(
        self, key: str, old: objects.Service | None, new: objects.Service | None
    ) -> None:
        before = sharing.share_of(old) if old else ""
        after = sharing.share_of(new) if new else ""
        if before and before != after:
            self._sharing[before].discard(key)
            if not self._sharing[before]:
                del self._sharing[before]
        if after:
            self._sharing.setdefault(after, set()).add(key)

    def _slice_changed(
        self, key: str, old: objects.EndpointSlice | None, new: objects.EndpointSlice | None
    ) -> None:
        if old is not None:
            name = old.metadata.name
            slices = self._slices.pop(old.service_key, ())
            if left := tuple(one for one in slices if one.metadata.name != name):
                self._slices[old.service_key] = left
        if new is not None:
            self._slices[new.service_key] = (*self._slices.get(new.service_key, ()), new)


def status_patch(
    service: objects.Service,
    *,
    finalizers: tuple[str, ...] | None = None,
    ingress: tuple[objects.Ingress, ...] | None = None,
    conditions: tuple[objects.Condition, ...] | None = None,
) -> dict[str, Any]:
    """Return the patch that sets what is given and leaves the rest.

    Lists are replaced whole by a merge patch, so the resource version goes along: whoever wrote
    in between makes it a 409 instead of a lost update.
    """
    metadata: dict[str, Any] = {"resourceVersion": service.metadata.resource_version}
    if finalizers is not None:
        metadata["finalizers"] = list(finalizers)
    status: dict[str, Any] = {}
    if ingress is not None:
        status["loadBalancer"] = {"ingress": msgspec.to_builtins(ingress) if ingress else None}
    if conditions is not None:
        status["conditions"] = [_condition(one) for one in conditions] or None
    body: dict[str, Any] = {"metadata": metadata}
    if status:
        body["status"] = status
    return body


def _condition(condition: objects.Condition) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(condition)
    if not condition.observed_generation:
        del body["observedGeneration"]
    return body


def path_of(key: str) -> str:
    """Return where the API server has the Service."""
    namespace, _, name = key.partition("/")
    return f"/api/v1/namespaces/{namespace}/services/{name}"


def has_our_finalizer(body: bytes | msgspec.Raw) -> bool:
    """Return whether the cleanup finalizer of a Service, as JSON, was added by this controller."""
    managers = _managed_decoder.decode(body).metadata.managed_fields or ()
    return any(_holds_finalizer(one) for one in managers)


def _holds_finalizer(manager: _Manager) -> bool:
    if manager.manager != settings.FIELD_MANAGER:
        return False
    finalizers = ((manager.fields or {}).get("f:metadata") or {}).get("f:finalizers") or {}
    return f'v:"{objects.CLEANUP_FINALIZER}"' in finalizers
