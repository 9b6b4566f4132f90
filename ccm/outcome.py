"""What a look at a Service came to, and what is remembered between two looks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ccm import model


class Verdict(StrEnum):
    """What a look at a key came to."""

    IN_SYNC = "in_sync"
    WAITING = "waiting"
    REFUSED = "refused"
    NOT_OURS = "not_ours"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it; recheck_s: when to look again without a trigger, None = not needed."""

    verdict: Verdict
    recheck_s: float | None = None


@dataclass(slots=True)
class Memory:
    """What this process knows of one Service beyond the two caches; losing it costs little."""

    uid: str
    first_seen: float
    applied: model.Document | None = None
    applied_generation: int = -1
    announce: str = ""  # reason of the event that is due when the cloud is done
    refused: model.Document | None = None
    refused_at: float = 0.0
    told: tuple[object, ...] | None = None
    delete_asked_at: float | None = None
