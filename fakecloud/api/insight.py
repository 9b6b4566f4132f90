"""A look into one load balancer: who serves what, its configuration, its log, its counters."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse
from starlette.responses import Response

from fakecloud.api import insight_schemas, replies
from fakecloud.api.actions import ActionName
from fakecloud.api.context import CHECKED, Caller, CloudParts, needs
from fakecloud.domain import documents

router = APIRouter(
    prefix="/load-balancers/{name}",
    tags=["load balancers"],
    dependencies=[*CHECKED, needs("lb:read")],
    responses=replies.ANY_PROBLEM,
)


@router.get("/status", summary="Status tree", response_model=insight_schemas.StatusTree)
def status(name: ActionName, cloud: CloudParts, caller: Caller) -> Response:
    """Return listeners, their target groups, and the health of each target."""
    return replies.json(documents.status_tree(cloud.load_balancers.find(caller.project, name)))


@router.get(
    "/config",
    summary="Configuration of the data plane",
    response_class=PlainTextResponse,
    responses={200: {"description": "what HAProxy was given, without secrets"}},
)
def config(name: ActionName, cloud: CloudParts, caller: Caller) -> Response:
    """Return the configuration file that the load balancer runs; 404 if it doesn't run.

    What another host runs is shown as that host last saw it.
    """
    lb = cloud.load_balancers.find(caller.project, name)
    return PlainTextResponse(cloud.insight.configuration(lb))


@router.get("/logs", summary="Log of the data plane", response_model=insight_schemas.LogTail)
def logs(
    name: ActionName,
    cloud: CloudParts,
    caller: Caller,
    lines: Annotated[int, Query(ge=1, le=1000, description="the last that many")] = 100,
) -> Response:
    """Return the last lines that the load balancer's process wrote, and where.

    What another host runs is shown as that host last saw it, at most 100 lines.
    """
    lb = cloud.load_balancers.find(caller.project, name)
    return replies.json(cloud.insight.log(lb, lines))


@router.get("/stats", summary="Counters", response_model=insight_schemas.Stats)
def stats(name: ActionName, cloud: CloudParts, caller: Caller) -> Response:
    """Return what listeners, target groups and targets have carried; totals never fall.

    They go on across updates, crashes and restarts while `epoch` is the same. What another host
    runs is shown as that host last saw it, `at`.
    """
    return replies.json(cloud.insight.stats(cloud.load_balancers.find(caller.project, name)))
