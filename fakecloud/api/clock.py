"""Business time: how it passes, and advances."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from fakecloud.api import replies, schemas
from fakecloud.api.context import CHECKED, Caller, CloudParts, needs
from fakecloud.api.mutations import Change
from fakecloud.clock import rfc3339
from fakecloud.domain.business_time import LATEST, MAX_RATE, BusinessClock, Mode, Status, Timeline

router = APIRouter(tags=["clock"], dependencies=CHECKED, responses=replies.ANY_PROBLEM)


class Clock(BaseModel):
    """Business time now, and how it passes."""

    mode: Mode
    rate: int
    status: Status
    now: str = Field(description="business time")
    wall: str = Field(description="real time")
    target: str | None = Field(description="where the advance under way ends")
    operation: str | None = Field(description="the latest advance")


class SetClock(BaseModel):
    """How business time is to pass from now on."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["real", "rate", "manual"]
    rate: Annotated[
        int | None, Field(ge=1, le=MAX_RATE, description="with mode rate: times as fast as real")
    ] = None

    @model_validator(mode="after")
    def _rate_belongs_to_rate(self) -> SetClock:
        if (self.mode == "rate") != (self.rate is not None):
            raise ValueError("rate belongs to mode rate: give both or neither")
        return self


class Advance(BaseModel):
    """How far business time is to be moved: `by` seconds, or `to` a moment."""

    model_config = ConfigDict(extra="forbid")

    by: Annotated[
        str | None,
        Field(pattern=r"^[1-9][0-9]{0,9}[smhd]$", description="90s, 5m, 12h or 30d"),
    ] = None
    to: AwareDatetime | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Advance:
        if (self.by is None) == (self.to is None):
            raise ValueError("give by or to, one of both")
        return self


@router.get("/clock", response_model=Clock, summary="Show business time")
def show(cloud: CloudParts, caller: Caller) -> Response:
    """Return business time and how it passes."""
    return replies.json(_document(cloud.clock, cloud.clock.timeline))


@router.put(
    "/clock",
    response_model=Clock,
    summary="Change how business time passes",
    dependencies=[needs("clock")],
)
def put(body: SetClock, cloud: CloudParts, change: Change) -> Response:
    """Go on from the present moment: real, a fixed rate, or standing still. It never goes back."""

    def act() -> Response:
        timeline = cloud.timekeeper.set(Mode(body.mode), body.rate or 1)
        return replies.json(_document(cloud.clock, timeline))

    return change.run(act)


@router.post(
    "/clock:advance",
    status_code=202,
    response_model=schemas.Operation,
    summary="Move business time forward",
    dependencies=[needs("clock")],
)
def advance(body: Advance, cloud: CloudParts, caller: Caller, change: Change) -> Response:
    """Begin to move business time forward, stopping wherever something falls due."""

    def act() -> Response:
        target = _target(body, cloud.clock.now())
        return replies.operation(cloud.timekeeper.advance(caller.project, target), 202)

    return change.run(act)


def _target(body: Advance, now: datetime) -> datetime:
    target = LATEST + timedelta(days=1)
    if body.to is not None and body.to < target:
        target = body.to.astimezone(UTC)
    elif body.by is not None:
        units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
        seconds = int(body.by[:-1]) * units[body.by[-1]]
        if seconds < (target - now).total_seconds():
            target = now + timedelta(seconds=seconds)
    return target


def _document(clock: BusinessClock, timeline: Timeline) -> dict[str, Any]:
    advancing = timeline.status is Status.ADVANCING
    return {
        "mode": timeline.mode.value,
        "rate": timeline.rate,
        "status": timeline.status.value,
        "now": rfc3339(clock.now()),
        "wall": rfc3339(clock.wall()),
        "target": _moment(timeline.target) if advancing else None,
        "operation": timeline.operation,
    }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
