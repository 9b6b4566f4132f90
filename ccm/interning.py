"""Equal values kept once: ten thousand Services differ in little more than their names."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from typing import Any, Final, TypeVar

MOST: Final = 8192
"""Values to compare with; when there are more, sharing begins anew."""

T = TypeVar("T")


class Pool:
    """Gives back the first of equal values. What is in it must never be changed."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: dict[Hashable, Any] = {}

    def one(self, value: T) -> T:
        """Return the value that stands for all that equal `value`, itself if it can't be shared."""
        try:
            return self._keep(value, value)
        except TypeError:  # something in it can't be hashed
            return value

    def pairs(self, found: dict[str, str] | None) -> dict[str, str] | None:
        """Return the dictionary that stands for all with these pairs."""
        if found is None:
            return None
        shared = {sys.intern(key): sys.intern(value) for key, value in found.items()}
        return self._keep(frozenset(shared.items()), shared)

    def _keep(self, key: Any, value: T) -> T:
        kept: T = self._kept.setdefault(key, value)
        if len(self._kept) > self._most:
            self._kept.clear()
        return kept
