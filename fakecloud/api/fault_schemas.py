"""Wire models of faults. What belongs to which action is checked by `fault_actions`."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from fakecloud.chaos.engine import Draft
from fakecloud.clock import rfc3339
from fakecloud.domain import fault_actions, faults
from fakecloud.store.faults import Record

Glob = Annotated[str, StringConstraints(max_length=253)]
Seconds = Annotated[float, Field(gt=0, le=faults.MAX_SECONDS)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Lasting = Annotated[float, Field(gt=0, le=faults.MAX_EXPIRES_S)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
ActionType = Literal[
    "auth_flap", "bandwidth", "blackhole", "cert_expire", "clock_skew_header", "health_flap", "host_down", "kill",
    "jitter", "limit_data", "refuse", "reload_fail", "resets", "slicer", "slow_close",
    "stats_socket_hang", "stop", "crash", "db_error", "delay", "delete_leaks", "disconnect",
    "drop_after_commit", "dup_page", "duplicate", "duplicate_run", "error_then_heal", "expire",
    "fail_permanent", "fail_transient", "flap_state", "hang", "html_502", "latency", "lease_steal",
    "malformed_json", "no_bookmarks", "omit_from_list", "partial", "pause", "pool_exhausted",
    "quota_zero", "rate_limit", "reorder_across_objects", "reset_before", "silent_stall",
    "skip_page", "slow_delete", "stale_read", "status", "stuck", "timeout", "truncate_body",
    "wrong_content_type",
]  # fmt: skip
assert set(get_args(ActionType)) == {one for of in fault_actions.ACTIONS.values() for one in of}


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Match(_Wire):
    """What the fault is about; what isn't said matches everything. Texts are globs."""

    methods: list[Literal["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"]] = Field(
        default=[], max_length=6
    )
    route: Glob = Field(default="", examples=["/v1/load-balancers/*"])
    operation: Glob = Field(default="", examples=["create"])
    resource_name: Glob = ""
    label_selector: Annotated[str, StringConstraints(max_length=2000)] = ""
    project: Glob = ""
    user_agent: Glob = ""
    phase: Glob = ""
    listener: Glob = ""


class Window(_Wire):
    """Looks `first` to `last`, both included."""

    first: Count
    last: Count


class Trigger(_Wire):
    """Which looks are hits: at most one of these; none means every look."""

    probability: Share | None = None
    every_n: Count | None = None
    first_n: Count | None = None
    nth: Count | None = None
    sequence: list[bool] | None = Field(default=None, min_length=1, max_length=1000)
    window: Window | None = None


class Action(_Wire):
    """What a hit does; a parameter that the type doesn't have is refused."""

    type: ActionType
    code: int | Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9_]{0,62}$")] | None = Field(
        default=None, description="status: 400 to 599; fail_permanent: a word"
    )
    problem: Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9_]{0,62}$")] | None = None
    retry_after_s: int | None = Field(default=None, ge=0, le=3600)
    seconds: Seconds | None = None
    distribution: faults.Distribution | None = None
    most_s: Seconds | None = None
    sigma: float | None = Field(default=None, ge=0, le=5)
    versions: int | None = Field(default=None, ge=1, le=100)
    probability: Share | None = None
    after_n: int | None = Field(default=None, ge=0, le=1_000_000)
    phase: faults.Phase | None = None
    times: int | None = Field(default=None, ge=1, le=1000)
    point: faults.Phase | None = None
    kind: faults.DatabaseTrouble | None = None
    skew_s: float | None = Field(default=None, ge=-86_400, le=86_400)
    listeners: list[Glob] | None = Field(default=None, min_length=1, max_length=50)
    leaks: faults.Leak | None = None
    bytes_per_s: int | None = Field(default=None, ge=1, le=10_000_000_000)
    bytes: int | None = Field(default=None, ge=1, le=1_000_000_000)
    direction: faults.Direction | None = Field(
        default=None, description="downstream, the default: what the target sends"
    )
    lasts_s: Lasting | None = Field(
        default=None, description="how long for each load balancer; default: as long as the fault"
    )


class CreateFault(_Wire):
    """A fault to inject. With the id and seed of an earlier one it hits the same looks again."""

    layer: Literal["api", "watch", "provision", "worker", "dataplane"]
    action: Action
    id: Annotated[str, StringConstraints(pattern="^flt_[a-z0-9]{1,40}$")] | None = None
    name: Annotated[str, StringConstraints(max_length=63)] = ""
    match: Match = Match()
    trigger: Trigger = Trigger()
    priority: int = Field(default=0, ge=-1000, le=1000)
    enabled: bool = True
    seed: Seed = 0
    max_hits: Count | None = None
    expires_in_s: Lasting = Field(
        default=faults.DEFAULT_EXPIRES_S, description="it then removes itself"
    )


class PatchFault(_Wire):
    """Switch a fault on or off."""

    enabled: bool


class StartScenario(_Wire):
    """How a scenario is played."""

    seed: Seed = 0
    expires_in_s: Lasting | None = Field(default=None, description="default: the scenario's own")


class Fault(BaseModel):
    """A fault with its counts; `looks` is how often it matched, `hits` how often it disturbed."""

    id: str
    name: str
    project: str
    layer: Literal["api", "watch", "provision", "worker", "dataplane"]
    priority: int
    enabled: bool
    match: Match
    trigger: Trigger
    action: Action
    seed: int
    max_hits: int | None
    looks: int
    hits: int
    created_at: str
    expires_at: str


class FaultList(BaseModel):
    """One page of faults."""

    items: list[Fault]
    next_page_token: str | None
    resource_version: str


class Hit(BaseModel):
    """One hit. `subject`: the request id, or load balancer id/operation/generation/point."""

    seq: int
    fault_id: str
    at: str
    layer: str
    action: str
    subject: str


class HitList(BaseModel):
    """One page of hits, newest first."""

    items: list[Hit]
    next_page_token: str | None
    resource_version: str


class ActionKind(BaseModel):
    """One type of action: parameters that it needs and may have, and a command that injects it."""

    layer: str
    type: str
    description: str
    needs: list[str]
    may: list[str]
    example: str


class ActionKindList(BaseModel):
    """Every type of action of every layer."""

    items: list[ActionKind]


class Scenario(BaseModel):
    """A named set of faults."""

    name: str
    description: str
    expires_in_s: float
    faults: int


class ScenarioList(BaseModel):
    """Every scenario."""

    items: list[Scenario]


class Reset(BaseModel):
    """How many faults and hits were removed."""

    faults: int
    hits: int


def action_kinds() -> list[dict[str, object]]:
    """Return the documents of all actions, layer by layer."""
    return [
        {
            "layer": layer.value,
            "type": type,
            "description": kind.says,
            "needs": sorted(kind.needs),
            "may": sorted(kind.may),
            "example": f"fakecloud fault add {layer} {type} {kind.example}".rstrip(),
        }
        for layer, kinds in fault_actions.ACTIONS.items()
        for type, kind in kinds.items()
    ]


def draft(body: CreateFault) -> Draft:
    """Return the value of a checked body."""
    return msgspec.convert(body.model_dump(exclude_none=True), Draft)


def fault(rule: faults.Rule) -> dict[str, object]:
    """Return the document of a rule."""
    return {
        **msgspec.to_builtins(rule),
        "match": msgspec.to_builtins(rule.match),
        "created_at": rfc3339(rule.created_at),
        "expires_at": rfc3339(rule.expires_at),
    }


def hit(record: Record) -> dict[str, object]:
    """Return the document of a hit."""
    found: dict[str, object] = msgspec.to_builtins(record)
    del found["project"]
    return found | {"at": rfc3339(record.at)}
