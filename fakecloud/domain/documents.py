"""Values of the cloud as the documents of its API: the one place that knows their JSON shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from fakecloud.clock import rfc3339
from fakecloud.domain.routing import Network, Route
from fakecloud.model import ErrorNote, LoadBalancer, Operation, Target
from fakecloud.resources import Certificate, Instance, ReservedAddress

# Parts of a load balancer that are one column each: a list of these needs no whole document.
COLUMNS: Final[Mapping[tuple[str, ...], str]] = {
    ("name",): "name",
    ("labels",): "labels",
    ("annotations",): "annotations",
    ("status", "id"): "id",
    ("status", "state"): "state",
    ("status", "operating_state"): "operating_state",
    ("status", "addresses"): "addresses",
    ("status", "generation"): "generation",
    ("status", "observed_generation"): "observed_generation",
    ("status", "resource_version"): "resource_version",
    ("status", "operation"): "operation",
    ("status", "created_at"): "created_at",
    ("status", "updated_at"): "updated_at",
}


def columns(paths: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str] | None:
    """Return the columns that hold these parts of a load balancer, None if columns don't do."""
    found: dict[tuple[str, ...], str] = {}
    for path in paths:
        part = next((known for known in COLUMNS if path[: len(known)] == known), None)
        if part is None:
            return None
        found[part] = COLUMNS[part]
    return found


def parts(values: Iterable[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    """Return the part of a load balancer's document that these columns' values make up."""
    document: dict[str, Any] = {}
    for path, value in values:
        shown = rfc3339(value) if isinstance(value, datetime) else value
        shown = str(shown) if path[-1] == "resource_version" else shown
        inside = document if len(path) == 1 else document.setdefault(path[0], {})
        inside[path[-1]] = shown
    return document


def load_balancer(lb: LoadBalancer) -> dict[str, Any]:
    """Return the document of a load balancer: name, labels, annotations, spec and status."""
    return {
        "name": lb.name,
        "labels": lb.labels,
        "annotations": lb.annotations,
        "spec": msgspec.to_builtins(lb.spec),
        "status": {
            "id": lb.id,
            "state": lb.state.value,
            "operating_state": lb.operating_state.value,
            "conditions": [
                {
                    "type": c.type,
                    "status": c.status,
                    "reason": c.reason,
                    "message": c.message,
                    "last_transition_time": rfc3339(c.last_transition_time),
                }
                for c in lb.conditions
            ],
            "addresses": [msgspec.to_builtins(a) for a in lb.addresses],
            "host_ports": [msgspec.to_builtins(one) for one in lb.host_ports],
            "generation": lb.generation,
            "observed_generation": lb.observed_generation,
            "resource_version": str(lb.resource_version),
            "last_error": _error(lb.last_error),
            "operation": lb.operation,
            "targets": [
                {
                    "ip": t.ip,
                    "port": t.port,
                    "health": t.health,
                    "reason": t.reason,
                    "since": rfc3339(t.since),
                }
                for t in lb.targets
            ],
            "created_at": rfc3339(lb.created_at),
            "updated_at": rfc3339(lb.updated_at),
        },
    }


def operation(op: Operation) -> dict[str, Any]:
    """Return the document of an operation."""
    return {
        "id": op.id,
        "type": op.type,
        "target": op.target,
        "target_id": op.target_id,
        "target_generation": op.target_generation,
        "status": op.status.value,
        "done": op.status.value != "RUNNING",
        "error": _error(op.error),
        "phase": op.phase,
        "progress": op.progress,
        "phases": [
            {
                "name": phase.name,
                "started_at": rfc3339(phase.started_at),
                "ended_at": None if phase.ended_at is None else rfc3339(phase.ended_at),
            }
            for phase in op.phases
        ],
        "eta": None if op.eta is None else rfc3339(op.eta),
        "resource_version": str(op.resource_version),
        "created_at": rfc3339(op.created_at),
        "updated_at": rfc3339(op.updated_at),
    }


def reserved_address(one: ReservedAddress) -> dict[str, Any]:
    """Return the document of a reserved address."""
    return {
        "id": one.id,
        "name": one.name,
        "labels": one.labels,
        "ip": one.ip,
        "family": one.family,
        "pool": one.pool,
        "state": "RESERVED" if one.load_balancer is None else "ASSIGNED",
        "load_balancer": one.load_balancer,
        "resource_version": str(one.resource_version),
        "created_at": rfc3339(one.created_at),
        "updated_at": rfc3339(one.updated_at),
    }


def instance(one: Instance) -> dict[str, Any]:
    """Return the document of an instance."""
    return {
        "id": one.id,
        "name": one.name,
        "provider_id": f"fakecloud://{one.region}/{one.id}",
        "type": one.type,
        "region": one.region,
        "zone": one.zone,
        "addresses": [msgspec.to_builtins(address) for address in one.addresses],
        "labels": one.labels,
        "power_state": one.power_state,
        "resource_version": str(one.resource_version),
        "created_at": rfc3339(one.created_at),
        "updated_at": rfc3339(one.updated_at),
    }


def network(one: Network) -> dict[str, Any]:
    """Return the document of a network."""
    return {
        "id": one.id,
        "name": one.name,
        "ranges": list(one.ranges),
        "labels": one.labels,
        "resource_version": str(one.resource_version),
        "created_at": rfc3339(one.created_at),
        "updated_at": rfc3339(one.updated_at),
    }


def route(one: Route) -> dict[str, Any]:
    """Return the document of a route."""
    return {
        "id": one.id,
        "name": one.name,
        "network": one.network,
        "destination": one.destination,
        "next_hop": one.next_hop,
        "labels": one.labels,
        "state": one.state,
        "last_error": msgspec.to_builtins(one.last_error),
        "resource_version": str(one.resource_version),
        "created_at": rfc3339(one.created_at),
        "updated_at": rfc3339(one.updated_at),
    }


def certificate(one: Certificate) -> dict[str, Any]:
    """Return the document of a certificate; no key is in it."""
    return {
        "id": one.id,
        "name": one.name,
        "labels": one.labels,
        "certificate": one.chain,
        "hosts": list(one.hosts),
        "not_before": rfc3339(one.not_before),
        "not_after": rfc3339(one.not_after),
        "fingerprint": one.fingerprint,
        "resource_version": str(one.resource_version),
        "created_at": rfc3339(one.created_at),
        "updated_at": rfc3339(one.updated_at),
    }


def status_tree(lb: LoadBalancer) -> dict[str, Any]:
    """Return who serves what: listeners, their target groups, and each target's health."""
    health = {(t.ip, t.port): t for t in lb.targets}

    def target(one: Target) -> dict[str, Any]:
        seen = health.get((one.ip, one.port))
        return {
            "ip": one.ip,
            "port": one.port,
            "node": one.node,
            "weight": one.weight,
            "drain": one.drain,
            "health": seen.health if seen else "unknown",
            "reason": seen.reason if seen else "not_probed",
            "since": rfc3339(seen.since) if seen else None,
        }

    groups = {
        group.name: {"name": group.name, "targets": [target(one) for one in group.targets]}
        for group in lb.spec.target_groups
    }
    return {
        "name": lb.name,
        "id": lb.id,
        "state": lb.state.value,
        "operating_state": lb.operating_state.value,
        "listeners": [
            {
                "name": one.name,
                "protocol": one.protocol,
                "port": one.port,
                "target_group": groups[one.target_group],
            }
            for one in lb.spec.listeners
        ],
    }


def etag(lb: LoadBalancer) -> str:
    """Return the entity tag `"<generation>.<resource_version>"`."""
    return f'"{lb.generation}.{lb.resource_version}"'


def _error(note: ErrorNote | None) -> dict[str, Any] | None:
    if note is None:
        return None
    return {"code": note.code, "message": note.message, "at": rfc3339(note.at)}
