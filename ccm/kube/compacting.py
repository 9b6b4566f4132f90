"""Objects as caches keep them: without what nobody reads, equal parts once."""

from __future__ import annotations

from sys import intern
from typing import Final

from msgspec import structs

from ccm import interning
from ccm.kube import objects

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
"""kubectl's copy of the whole object, often its largest part."""


def service(pool: interning.Pool, item: objects.Service) -> objects.Service:
    """Return `item` as it is kept."""
    return structs.replace(
        item,
        metadata=_metadata(pool, item.metadata),
        spec=pool.one(structs.replace(item.spec, ports=pool.one(item.spec.ports))),
        status=objects.ServiceStatus(
            _load_balancer(pool, item.status.load_balancer), _conditions(pool, item)
        ),
    )


def endpoint_slice(pool: interning.Pool, item: objects.EndpointSlice) -> objects.EndpointSlice:
    """Return `item` as it is kept: of its labels only the one that names its Service."""
    name = (item.metadata.labels or {}).get(objects.SERVICE_NAME)
    labels = {objects.SERVICE_NAME: name} if name else None
    meta = structs.replace(item.metadata, labels=labels, annotations=None, creation_timestamp=None)
    return structs.replace(
        item,
        metadata=_metadata(pool, meta),
        address_type=intern(item.address_type),
        endpoints=_endpoints(pool, item.endpoints),
        ports=pool.one(item.ports),
    )


def node(pool: interning.Pool, item: objects.Node) -> objects.Node:
    """Return `item` as it is kept."""
    conditions = item.status.conditions
    shared = tuple(pool.one(one) for one in conditions) if conditions else conditions
    return structs.replace(
        item,
        metadata=_metadata(pool, item.metadata),
        status=structs.replace(item.status, conditions=pool.one(shared)),
    )


def _metadata(pool: interning.Pool, meta: objects.ObjectMeta) -> objects.ObjectMeta:
    annotations = meta.annotations
    if annotations and LAST_APPLIED in annotations:
        annotations = {key: text for key, text in annotations.items() if key != LAST_APPLIED}
    return structs.replace(
        meta,
        name=intern(meta.name),
        namespace=intern(meta.namespace),
        uid=intern(meta.uid),
        creation_timestamp=pool.one(meta.creation_timestamp),
        labels=pool.pairs(meta.labels),
        annotations=pool.pairs(annotations or None),
        finalizers=pool.one(meta.finalizers),
    )


def _load_balancer(
    pool: interning.Pool, status: objects.LoadBalancerStatus
) -> objects.LoadBalancerStatus:
    if not status.ingress:
        return pool.one(status)
    return objects.LoadBalancerStatus(
        tuple(
            structs.replace(one, ip_mode=pool.one(one.ip_mode), ports=pool.one(one.ports))
            for one in status.ingress
        )
    )


def _conditions(
    pool: interning.Pool, item: objects.Service
) -> tuple[objects.Condition, ...] | None:
    found = item.status.conditions
    if found is None:
        return None
    return pool.one(tuple(pool.one(_condition(pool, one)) for one in found))


def _condition(pool: interning.Pool, one: objects.Condition) -> objects.Condition:
    return structs.replace(
        one,
        type=intern(one.type),
        status=intern(one.status),
        reason=intern(one.reason),
        message=pool.one(one.message),
        last_transition_time=pool.one(one.last_transition_time),
    )


def _endpoints(
    pool: interning.Pool, found: tuple[objects.Endpoint, ...] | None
) -> tuple[objects.Endpoint, ...] | None:
    if not found:
        return found
    return tuple(
        structs.replace(
            one,
            conditions=pool.one(one.conditions),
            node_name=intern(one.node_name) if one.node_name else one.node_name,
        )
        for one in found
    )
