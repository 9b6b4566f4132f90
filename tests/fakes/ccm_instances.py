"""The cloud's instances, to be found, missing or unanswered."""

from __future__ import annotations

from typing import Any

from ccm import errors
from ccm.cloud import documents


def instance(name: str = "node-1", **changes: Any) -> documents.Instance:
    """Return a running instance with one InternalIP."""
    values: dict[str, Any] = {
        "id": f"i_{name}",
        "provider_id": f"fakecloud://local-1/i_{name}",
        "type": "standard-2",
        "region": "local-1",
        "zone": "local-1a",
        "addresses": (documents.InstanceAddress("InternalIP", "10.0.0.1"),),
    }
    return documents.Instance(name=name, **{**values, **changes})


class FakeInstances:
    """Answers by name or id; `failing`, if set, is raised instead."""

    def __init__(self, *there: documents.Instance) -> None:
        self.there = {one.name: one for one in there}
        self.failing: errors.CloudError | None = None
        self.asked: list[str] = []

    async def instance(self, name: str) -> documents.Instance | None:
        """Return the instance, None if there is none. Raises: CloudError as told."""
        self.asked.append(name)
        if self.failing is not None:
            raise self.failing
        return next((one for one in self.there.values() if name in (one.name, one.id)), None)
