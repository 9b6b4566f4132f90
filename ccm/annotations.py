"""The annotations of a Service that are understood: name, meaning, and how the value is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Annotation:
    """One row of the table; `meaning` is for the reference."""

    name: str
    meaning: str


SOURCE_RANGES = Annotation(
    "service.beta.kubernetes.io/load-balancer-source-ranges",
    "CIDRs that may connect, separated by commas; ignored if spec.loadBalancerSourceRanges is set",
)

TABLE: tuple[Annotation, ...] = (SOURCE_RANGES,)


def source_ranges(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """Return the CIDRs as written, trimmed; empty if the annotation is absent or blank."""
    value = annotations.get(SOURCE_RANGES.name, "")
    return tuple(part.strip() for part in value.split(",") if part.strip())
