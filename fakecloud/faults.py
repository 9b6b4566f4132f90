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
from typing import Any, Final, Literal

import msgspec

from fakecloud import filters
from fakecloud.errors import FieldError, InvalidFilter

DEFAULT_EXPIRES_S: Final = 600
MAX_EXPIRES_S: Final = 86_400
MAX_SECONDS: Final = 3600.0

Phase = Literal["claim", "pre_apply", "post_apply", "pre_commit", "post_commit"]
Distribution = Literal["fixed", "uniform", "lognormal"]
DatabaseTrouble = Literal["busy", "serialization", "disconnect"]


class Layer(StrEnum):
    """Where a fault is injected."""

    API = "api"  # between the network and the handlers
    WATCH = "watch"  # the stream of changes
    PROVISION = "provision"  # what the cloud does about a wish
    WORKER = "worker"  # the process that does it


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
    """What a hit does; `ACTIONS` says which parameters belong to which type."""

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
    return trigger.nth is None or ordinal == trigger.nth


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
    return (facts.operation == "delete") is (rule.action.type == "slow_delete")


def phase_of(action: Action) -> str:
    """Return where in the life of a worker's attempt an action takes place."""
    return action.point or action.phase or _PHASES.get(action.type, "pre_apply")


_PHASES: Final = {"pause": "post_apply", "lease_steal": "post_apply", "db_error": "pre_commit"}


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


class _Takes(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of an action: those it must have, and those it may have."""

    needs: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()


def _takes(needs: str = "", may: str = "") -> _Takes:
    return _Takes(needs=frozenset(needs.split()), may=frozenset(may.split()))


_SPREAD: Final = "distribution most_s sigma"
_POINTS_OUTSIDE: Final = ("claim", "pre_apply", "post_apply")
ACTIONS: Final[dict[Layer, dict[str, _Takes]]] = {
    Layer.API: {
        "status": _takes("code", "problem retry_after_s"),
        "html_502": _takes(),
        "latency": _takes("seconds", _SPREAD),
        "hang": _takes(may="seconds"),
        "reset_before": _takes(),
        "drop_after_commit": _takes(),
        "truncate_body": _takes(),
        "malformed_json": _takes(),
        "wrong_content_type": _takes(),
        "stale_read": _takes(may="versions"),
        "omit_from_list": _takes(may="probability"),
        "rate_limit": _takes(may="retry_after_s"),
    },
    Layer.WATCH: {
        "disconnect": _takes(may="after_n"),
        "delay": _takes("seconds", _SPREAD),
        "duplicate": _takes(),
        "expire": _takes(may="after_n"),
        "no_bookmarks": _takes(),
        "silent_stall": _takes(may="after_n"),
    },
    Layer.PROVISION: {
        "delay": _takes("seconds", f"phase {_SPREAD}"),
        "fail_transient": _takes(may="phase times"),
        "fail_permanent": _takes(may="phase code"),
        "stuck": _takes(may="phase"),
        "slow_delete": _takes("seconds", _SPREAD),
        "pool_exhausted": _takes(),
        "quota_zero": _takes(),
        "error_then_heal": _takes("seconds"),
    },
    Layer.WORKER: {
        "crash": _takes("point"),
        "pause": _takes("seconds", "point"),
        "lease_steal": _takes(may="point"),
        "duplicate_run": _takes(may="point"),
        "db_error": _takes(may="kind point"),
    },
}
AT_ADMISSION: Final = frozenset({"pool_exhausted", "quota_zero"})
_ONLY_AT: Final[dict[str, tuple[str, ...]]] = {
    "pause": _POINTS_OUTSIDE,
    "lease_steal": _POINTS_OUTSIDE,
    "duplicate_run": _POINTS_OUTSIDE,
    "db_error": ("claim", "pre_apply", "post_apply", "pre_commit"),
    "delay": _POINTS_OUTSIDE,
    "fail_transient": _POINTS_OUTSIDE,
    "fail_permanent": _POINTS_OUTSIDE,
    "stuck": _POINTS_OUTSIDE,
}


def mistakes(layer: Layer, match: Match, trigger: Trigger, action: Action) -> list[FieldError]:
    """Return what is wrong with a rule beyond the shape of its fields; empty if nothing is."""
    found = [*_action_mistakes(layer, action)]
    given = [name for name in trigger.__struct_fields__ if getattr(trigger, name) is not None]
    if len(given) > 1:
        found.append(_wrong("/trigger", f"give one of {', '.join(given)}, not several"))
    if trigger.window is not None and trigger.window.last < trigger.window.first:
        found.append(_wrong("/trigger/window", "last is before first"))
    try:
        filters.parse_selector(match.label_selector)
    except InvalidFilter as error:
        found.append(_wrong("/match/label_selector", error.detail))
    if match.label_selector and action.type in AT_ADMISSION:
        found.append(
            _wrong("/match/label_selector", f"{action.type} comes before there are labels")
        )
    return found


def _action_mistakes(layer: Layer, action: Action) -> Iterable[FieldError]:
    takes = ACTIONS[layer].get(action.type)
    if takes is None:
        offered = ", ".join(ACTIONS[layer])
        yield _wrong("/action/type", f"layer {layer} has no {action.type!r}; it has {offered}")
        return
    given = set(msgspec.to_builtins(action)) - {"type"}
    for name in sorted(takes.needs - given):
        yield _wrong(f"/action/{name}", f"{action.type} needs it")
    for name in sorted(given - takes.needs - takes.may):
        yield _wrong(f"/action/{name}", f"{action.type} doesn't have it")
    wanted: Any = str if action.type == "fail_permanent" else int
    if action.code is not None and not isinstance(action.code, wanted):
        kind = "a word" if wanted is str else "an HTTP status"
        yield _wrong("/action/code", f"{action.type} takes {kind}")
    elif isinstance(action.code, int) and not 400 <= action.code <= 599:
        yield _wrong("/action/code", "an injected status is 400 to 599")
    points = _ONLY_AT.get(action.type)
    if points is not None and phase_of(action) not in points and layer is not Layer.WATCH:
        name = "point" if action.point else "phase"
        yield _wrong(f"/action/{name}", f"{action.type} takes place at {', '.join(points)}")
    if action.distribution == "uniform" and (action.most_s or 0) < (action.seconds or 0):
        yield _wrong("/action/most_s", "the upper end of uniform is below `seconds`")


def _wrong(pointer: str, message: str) -> FieldError:
    return FieldError(pointer, "invalid", message)
