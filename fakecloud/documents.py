"""Values of the cloud as the documents of its API: the one place that knows their JSON shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from fakecloud.clock import rfc3339
from fakecloud.model import ErrorNote, LoadBalancer, Operation


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


def etag(lb: LoadBalancer) -> str:
    """Return the entity tag `"<generation>.<resource_version>"`."""
    return f'"{lb.generation}.{lb.resource_version}"'


def _error(note: ErrorNote | None) -> dict[str, Any] | None:
    if note is None:
        return None
    return {"code": note.code, "message": note.message, "at": rfc3339(note.at)}
