"""What is remembered of each Service and each group between two looks."""

from __future__ import annotations

from ccm import clock as clocks
from ccm.kube import objects
from ccm.service.ports import Memory


class Memories:
    """Memories by key; a Service's ends with its UID."""

    def __init__(self, clock: clocks.Clock) -> None:
        self._clock = clock
        self._found: dict[str, Memory] = {}

    def of(self, service: objects.Service) -> Memory:
        """Return the memory of this very Service, an empty one at first."""
        return self._of(service.key, service.metadata.uid)

    def of_group(self, key: str) -> Memory:
        """Return the memory of a group, an empty one at first."""
        return self._of(key, key)

    def drop(self, key: str) -> None:
        """Forget."""
        self._found.pop(key, None)

    def _of(self, key: str, uid: str) -> Memory:
        memory = self._found.get(key)
        if memory is None or memory.uid != uid:
            memory = self._found[key] = Memory(uid, self._clock.monotonic())
        return memory
