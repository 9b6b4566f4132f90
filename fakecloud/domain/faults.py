"""Faults on demand, decided purely: what a rule is about, whether it hits, what it then does.

A rule looks at everything of its layer. Each time that it matches is a look, counted from 1; the
trigger says from the rule's seed, its id and that ordinal whether the look is a hit. So a rule
with the same id and seed disturbs the same looks again, whatever the time or the process.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final, Literal

import msgspec

from fakecloud.domain import filters

DEFAULT_EXPIRES_S: Final = 600
MAX_EXPIRES_S: Final = 86_400
MAX_SECONDS: Final = 3600.0

Phase = Literal["claim", "pre_apply", "post_apply", "pre_commit", "post_commit"]
Distribution = Literal["fixed", "uniform", "lognormal"]
DatabaseTrouble = Literal["busy", "serialization", "disconnect"]
Direction = Literal["downstream", "upstream"]
Leak = Literal["process", "ip"]
"""What a deletion can leave behind. A port can't be alone: it goes with its process."""


class Layer(StrEnum):
    """Where a fault is injected."""

    API = "api"  # between the network and the handlers
    WATCH = "watch"  # the stream of changes
    PROVISION = "provision"  # what the cloud does about a wish
    WORKER = "worker"  # the process that does it
    DATAPLANE = "dataplane"  # what carries the traffic


class Match(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What a rule is about; an empty field matches everything. Names are globs."""

    methods: tuple[str, ...] = ()
    route: str = ""  # glob on the path, e.g. /v1/load-balancers/*
    operation: str = ""  # list, get, put, …; create, update or delete of a load balancer
    resource_name: str = ""
    label_selector: str = ""
    project: str = ""
    user_agent: str = ""
    phase: str = ""
    listener: str = ""


class Window(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Looks `first` to `last`, both included."""

    first: int
    last: int


class Trigger(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Which looks are hits: at most one field is set; none means every look."""

    probability: float | None = None
    every_n: int | None = None
    first_n: int | None = None
    nth: int | None = None
    sequence: tuple[bool, ...] | None = None  # look by look; none after its end
    window: Window | None = None


class Action(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What a hit does; `fault_actions` says which parameters belong to which type."""

    type: str
    code: int | str | None = None
    problem: str | None = None
    retry_after_s: int | None = None
    seconds: float | None = None  # fixed; lower end of uniform; median of lognormal
    distribution: Distribution | None = None
    most_s: float | None = None  # upper end of uniform, cap of lognormal
    sigma: float | None = None
    versions: int | None = None
    probability: float | None = None
    after_n: int | None = None
    phase: Phase | None = None
    times: int | None = None
    point: Phase | None = None
    kind: DatabaseTrouble | None = None
    skew_s: float | None = None
    listeners: tuple[str, ...] | None = None  # globs
    leaks: Leak | None = None
    bytes_per_s: int | None = None
    bytes: int | None = None
    direction: Direction | None = None
    lasts_s: float | None = None  # None: until the fault is gone


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that somebody asked for. `looks` and `hits` count so far; times are wall time."""

    id: str
    project: str
    name: str
    layer: Layer
    priority: int
    enabled: bool
    match: Match
    trigger: Trigger
    action: Action
    seed: int
    looks: int
    hits: int
    max_hits: int | None
    created_at: datetime
    expires_at: datetime

    def lives(self, wall: datetime) -> bool:
        """Say whether the rule disturbs anything at that moment."""
        spent = self.max_hits is not None and self.hits >= self.max_hits
        return self.enabled and not spent and wall < self.expires_at


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A look that disturbs: the rule, the ordinal of the look, and what it is about."""

    rule_id: str
    seed: int
    ordinal: int
    action: Action

    def draw(self, salt: str = "") -> float:
        """Return a number in [0, 1) that this hit always gives."""
        return draw(self.seed, self.rule_id, self.ordinal, salt)

    def seconds(self, default: float = 0.0) -> float:
        """Return how long the action lasts, drawn from its distribution."""
        return duration_s(self.action, self.draw("seconds"), default)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about the thing that may be disturbed. `labels` None: not looked up."""

    layer: Layer
    project: str
    method: str = ""
    path: str = ""
    operation: str = ""
    resource: str = ""
    labels: Mapping[str, str] | None = None
    user_agent: str = ""
    phase: str = ""
    listeners: tuple[str, ...] = ()


def draw(seed: int, rule_id: str, ordinal: int, salt: str = "") -> float:
    """Return a number in [0, 1), the same for the same arguments everywhere."""
    text = f"{seed}:{rule_id}:{ordinal}:{salt}"
    digest = hashlib.sha256(text.encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)


def triggers(rule: Rule, ordinal: int) -> bool:
    """Say whether a look is a hit; ordinals count from 1."""
    trigger = rule.trigger
    if trigger.probability is not None:
        return draw(rule.seed, rule.id, ordinal) < trigger.probability
    if trigger.sequence is not None:
        return ordinal <= len(trigger.sequence) and trigger.sequence[ordinal - 1]
    if trigger.window is not None:
        return trigger.window.first <= ordinal <= trigger.window.last
    if trigger.every_n is not None:
        return ordinal % trigger.every_n == 0
    if trigger.first_n is not None:
        return ordinal <= trigger.first_n
    return ordinal == trigger.nth if trigger.nth is not None else _by_itself(rule.action, ordinal)


def _by_itself(action: Action, ordinal: int) -> bool:
    """Say whether a look is a hit where no trigger was given: every one, unless it flaps."""
    return action.type != "auth_flap" or (ordinal - 1) // (action.times or 1) % 2 == 0


def in_order(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return the rules as they are asked: highest priority first, among equals the oldest."""
    return tuple(sorted(rules, key=lambda rule: (-rule.priority, rule.created_at, rule.id)))


def matches(rule: Rule, facts: Facts) -> bool:
    """Say whether a rule is about these facts."""
    match = rule.match
    if rule.layer is not facts.layer or (match.project or rule.project) != facts.project:
        return False
    if match.methods and facts.method not in match.methods:
        return False
    globs = (
        (match.route, facts.path),
        (match.resource_name, facts.resource),
        (match.user_agent, facts.user_agent),
        (match.phase, facts.phase),
    )
    if not all(not glob or fnmatchcase(text, glob) for glob, text in globs):
        return False
    if match.listener and not any(fnmatchcase(one, match.listener) for one in facts.listeners):
        return False
    if not _operation_matches(rule, facts):
        return False
    return filters.parse_selector(match.label_selector).matches(facts.labels or {})


def _operation_matches(rule: Rule, facts: Facts) -> bool:
    if rule.match.operation:
        return fnmatchcase(facts.operation, rule.match.operation)
    if rule.layer is not Layer.PROVISION:
        return True
    # Unless it is said, a fault doesn't keep anybody from deleting: that would leave things behind.
    return (facts.operation == "delete") is (rule.action.type in _OF_DELETION)


def phase_of(action: Action) -> str:
    """Return where in the life of a worker's attempt an action takes place.

    Besides the points of an attempt: `applying` and `removing`, what the data plane is told, and
    `active`, between two attempts.
    """
    return action.point or action.phase or _PHASES.get(action.type, "pre_apply")


_OF_DELETION: Final = frozenset({"slow_delete", "delete_leaks"})
_PHASES: Final = {
    "pause": "post_apply",
    "lease_steal": "post_apply",
    "db_error": "pre_commit",
    "partial": "applying",
    "delete_leaks": "removing",
    "flap_state": "active",
}


def duration_s(action: Action, number: float, default: float = 0.0) -> float:
    """Return the seconds that an action lasts for a number in [0, 1); never above the bound."""
    seconds = default if action.seconds is None else action.seconds
    most = MAX_SECONDS if action.most_s is None else action.most_s
    if action.distribution == "uniform":
        return seconds + (most - seconds) * number
    if action.distribution == "lognormal":
        z = statistics.NormalDist().inv_cdf(min(max(number, 1e-9), 1 - 1e-9))
        return min(seconds * math.exp((0.5 if action.sigma is None else action.sigma) * z), most)
    return seconds
