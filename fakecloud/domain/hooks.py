"""Where a worker can be disturbed: by faults on demand, and by tests."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from fakecloud.model import Desired, LoadBalancer


class Point(StrEnum):
    """Where a worker can be disturbed."""

    CLAIM = "claim"  # holds the lease, has done nothing
    PRE_APPLY = "pre_apply"
    POST_APPLY = "post_apply"  # the data plane has it, nothing is written yet
    PRE_COMMIT = "pre_commit"  # everything is written but not committed
    POST_COMMIT = "post_commit"


class Hook(Protocol):
    """Told by a worker where it is, to disturb it: faults on demand, and tests."""

    def at(self, point: Point, lb: LoadBalancer) -> None:
        """May end the process or block; before and after applying also raise a DataPlaneError,
        or Postponed.

        `lb` is what the worker works on, as it was claimed. At PRE_COMMIT, inside the
        transaction, any exception rolls back and leaves the lease to end by itself.
        """

    def spoils_commit(self, lb: LoadBalancer) -> bool:
        """Say whether PRE_COMMIT disturbs this one, so that it must not share its transaction."""

    def wanted(self, lb: LoadBalancer, desired: Desired) -> Desired:
        """Return what the data plane is told in place of `desired`."""

    def forgets(self, lb: LoadBalancer) -> bool:
        """Say whether the worker leaves the data plane of a deleted load balancer behind."""


class NoHook:
    """Disturbs nobody."""

    def at(self, point: Point, lb: LoadBalancer) -> None:
        """Do nothing."""

    def spoils_commit(self, lb: LoadBalancer) -> bool:
        """Say no."""
        return False

    def wanted(self, lb: LoadBalancer, desired: Desired) -> Desired:
        """Return `desired`."""
        return desired

    def forgets(self, lb: LoadBalancer) -> bool:
        """Say no."""
        return False
