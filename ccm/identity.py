"""Which cluster this is, and how what belongs to it is marked in the cloud."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PROVIDER_PREFIX: Final = "fakecloud://"
"""Of provider IDs: fakecloud://REGION/INSTANCE."""


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


def instance_id(provider_id: str) -> str:
    """Return the instance that a node's provider ID names, "" if another provider gave it."""
    if not provider_id.startswith(PROVIDER_PREFIX):
        return ""
    return provider_id.removeprefix(PROVIDER_PREFIX).partition("/")[2]
