"""Values of the cloud as the documents of its API: the one place that knows their JSON shape."""

from __future__ import annotations

from typing import Any

import msgspec

from fakecloud.clock import rfc3339
from fakecloud.model import ErrorNote, LoadBalancer, Operation


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
        "resource_version": str(op.resource_version),
        "created_at": rfc3339(op.created_at),
        "updated_at": rfc3339(op.updated_at),
    }


def etag(lb: LoadBalancer) -> str:
    """Return the entity tag `"<generation>.<resource_version>"`."""
    return f'"{lb.generation}.{lb.resource_version}"'


def _error(note: ErrorNote | None) -> dict[str, Any] | None:
    if note is None:
        return None
    return {"code": note.code, "message": note.message, "at": rfc3339(note.at)}
