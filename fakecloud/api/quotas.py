"""Quotas: how many of each kind a project has and may have."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from fakecloud.access.projects import Projects
from fakecloud.api import replies
from fakecloud.api.context import CHECKED, Caller, CloudParts, needs
from fakecloud.api.mutations import Change

router = APIRouter(
    prefix="/quotas", tags=["quotas"], dependencies=CHECKED, responses=replies.ANY_PROBLEM
)


class NewLimit(BaseModel):
    """A project's own limit; null: the cloud's standard one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    limit: int | None = Field(ge=0, lt=1 << 53)


class Quota(BaseModel):
    """How many a project has of one kind; `limit` null: unlimited."""

    metric: str
    limit: int | None
    in_use: int


class QuotaList(BaseModel):
    """Every quota of a project."""

    items: list[Quota]


@router.get("", summary="Show quotas", response_model=QuotaList, dependencies=[needs("lb:read")])
def list_all(cloud: CloudParts, caller: Caller) -> Response:
    """Return every quota of the project; watches are those open on this server."""
    with cloud.database.read() as connection:
        found = cloud.quotas.of_project(connection, caller.project)
    items = [msgspec.to_builtins(one) for one in found]
    for item in items:
        if item["metric"] == "watches":  # a stream, not a row: nothing is left of one that broke
            item["in_use"] = cloud.hub.watches(caller.project)
    return replies.json({"items": items})


@router.put(
    "/{project}/{metric}",
    summary="Set a limit",
    response_model=Quota,
    dependencies=[needs("admin")],
)
def put(
    project: Annotated[str, Path(max_length=63)],
    metric: Annotated[str, Path(max_length=63)],
    body: NewLimit,
    cloud: CloudParts,
    change: Change,
) -> Response:
    """Set how many a project may have. What it has already stays, even when it is more."""

    def act() -> Response:
        Projects(cloud.database, cloud.clock).find(project)
        with cloud.database.write() as connection:
            quota = cloud.quotas.set_limit(connection, project, metric, body.limit)
        return replies.json(msgspec.to_builtins(quota))

    return change.run(act)
