"""Wire models of what a running load balancer shows: who serves what, logs, counters."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class TargetState(BaseModel):
    """One target in the status tree."""

    ip: str
    port: int
    node: str | None
    weight: int
    drain: bool
    health: Literal["healthy", "unhealthy", "unknown"]
    reason: str
    since: str | None


class GroupState(BaseModel):
    """A target group in the status tree."""

    name: str
    targets: list[TargetState]


class ListenerState(BaseModel):
    """A listener in the status tree."""

    name: str
    protocol: str
    port: int
    target_group: GroupState


class StatusTree(BaseModel):
    """Who serves what."""

    name: str
    id: str
    state: str
    operating_state: str
    listeners: list[ListenerState]


class LogTail(BaseModel):
    """The last lines of a log, as its host saw them; `at` null: never yet."""

    name: str
    host: str | None
    at: str | None
    lines: list[str]


class Counters(BaseModel):
    """What one part of a load balancer has counted."""

    kind: Literal["listener", "target_group", "target"]
    name: str
    connections: int = Field(description="open now")
    connections_total: int
    bytes_in: int
    bytes_out: int
    requests_total: int = Field(description="HTTP requests")
    denied_total: int = Field(description="refused by source ranges or limits")
    failed_total: int = Field(description="attempts to connect to a target that failed")
    connect_ms: int | None = Field(description="targets: average of the latest 1024 connections")
    response_ms: int | None = Field(description="HTTP targets: average of the latest 1024 answers")
    epoch: str = Field(description="totals never fall while it is the same")
    gaps: int = Field(description="processes that died before their last counters were read")
    health: str | None = Field(default=None, description="targets only, as the two below")
    share: float | None = Field(default=None, description="of all connections to targets")
    recent_share: float | None = Field(default=None, description="the same of the last minute")


class Stats(BaseModel):
    """What was carried, as seen `at` on `host`; `running` false: nothing serves now."""

    name: str
    host: str | None
    at: str | None
    running: bool
    counters: list[Counters]
