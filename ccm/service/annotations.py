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

FAULTS = Annotation(
    "chaos.fakecloud.dev/*",
    "passed on to the cloud, which then disturbs this load balancer: provision, delete, state",
)

TABLE: tuple[Annotation, ...] = (SOURCE_RANGES, FAULTS)


def source_ranges(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """Return the CIDRs as written, trimmed; empty if the annotation is absent or blank."""
    value = annotations.get(SOURCE_RANGES.name, "")
    return tuple(part.strip() for part in value.split(",") if part.strip())


def for_the_cloud(annotations: Mapping[str, str]) -> dict[str, str]:
    """Return what the cloud itself is to read; it refuses what it doesn't understand."""
    prefix = FAULTS.name.removesuffix("*")
    return {key: value for key, value in annotations.items() if key.startswith(prefix)}
