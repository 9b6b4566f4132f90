"""What the control plane is made of, and how its fetching is reported."""

from __future__ import annotations

from dataclasses import dataclass

KUBERNETES = "v1.36.4"
ETCD = "v3.6.8"  # the one that this Kubernetes requires
NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download or build is: fraction 0.0-1.0 of the whole, and what it does now."""

    fraction: float
    label: str
