"""Which cluster this is, and how what belongs to it is marked in the cloud."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """uid: that of the kube-system namespace; names of clusters repeat."""

    name: str
    uid: str

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels of everything in the cloud that belongs to this cluster."""
        return {"cluster": self.name, "cluster-uid": self.uid}

    def owns(self, labels: Mapping[str, str]) -> bool:
        """Return whether this cluster made what carries `labels`."""
        return labels.get("cluster-uid") == self.uid
