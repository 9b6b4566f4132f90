"""A look into one load balancer: who serves what, its configuration, its log, its counters."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse
from starlette.responses import Response

from fakecloud import documents, errors
from fakecloud.api import replies, resource_schemas
from fakecloud.api.actions import ActionName
from fakecloud.api.context import CHECKED, Caller, CloudParts, needs

router = APIRouter(
    prefix="/load-balancers/{name}",
    tags=["load balancers"],
    dependencies=[*CHECKED, needs("lb:read")],
    responses=replies.ANY_PROBLEM,
)


@router.get("/status", summary="Status tree", response_model=resource_schemas.StatusTree)
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
    """Return the configuration file that the load balancer runs on this host; 404 if none does."""
    lb = cloud.load_balancers.find(caller.project, name)
    text = cloud.inspector.configuration(lb.id)
    if text is None:
        raise errors.NotFound(f"{lb.name} does not run on this host; it is {lb.state.value}")
    return PlainTextResponse(text)


@router.get("/logs", summary="Log of the data plane", response_model=resource_schemas.LogTail)
def logs(
    name: ActionName,
    cloud: CloudParts,
    caller: Caller,
    lines: Annotated[int, Query(ge=1, le=1000, description="the last that many")] = 100,
) -> Response:
    """Return the last lines that the load balancer's process on this host wrote."""
    lb = cloud.load_balancers.find(caller.project, name)
    return replies.json({"name": lb.name, "lines": cloud.inspector.log_tail(lb.id, lines)})


@router.get("/stats", summary="Live counters", response_model=resource_schemas.Stats)
def stats(name: ActionName, cloud: CloudParts, caller: Caller) -> Response:
    """Return what listeners, target groups and targets have counted since the process started."""
    lb = cloud.load_balancers.find(caller.project, name)
    try:
        counters = cloud.inspector.counters(lb.id)
    except errors.Transient as error:
        raise errors.Unavailable(f"the data plane does not answer: {error.message}") from None
    return replies.json(
        {
            "name": lb.name,
            "running": lb.id in cloud.inspector.running(),
            "counters": [msgspec.to_builtins(one) for one in counters or ()],
        }
    )
