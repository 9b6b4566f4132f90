"""Bodies of the merge patches on services/status, which takes metadata as well."""

from __future__ import annotations

from typing import Any

import msgspec

from ccm import model


def service_status(
    service: model.Service,
    *,
    finalizers: tuple[str, ...] | None = None,
    ingress: tuple[model.Ingress, ...] | None = None,
    conditions: tuple[model.Condition, ...] | None = None,
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


def _condition(condition: model.Condition) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(condition)
    if not condition.observed_generation:
        del body["observedGeneration"]
    return body
