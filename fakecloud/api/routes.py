"""Routes: the machine that leads to a part of a network, for load balancers of this cloud."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from fakecloud.api import lists, replies, resource_schemas, schemas
from fakecloud.api.context import CHECKED, Caller, CloudParts, needs
from fakecloud.api.mutations import Change
from fakecloud.domain import documents
from fakecloud.domain.routing import RouteWish

router = APIRouter(
    prefix="/routes", tags=["networks"], dependencies=CHECKED, responses=replies.ANY_PROBLEM
)

_PLAIN = ("name", "id", "network", "destination", "next_hop", "state")
KIND = lists.Kind(
    table="route",
    fields={**lists.fields_of(_PLAIN), "labels.": ("labels",)},
    roots=(*_PLAIN, "last_error", "labels", "resource_version", "created_at", "updated_at"),
    columns={(name,): name for name in _PLAIN},
)
Name = Annotated[str, Path(pattern=r"^[a-z0-9._-]{1,63}$", description="name or id")]
NewName = Annotated[str, Path(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
ListAsked = Annotated[lists.Asked, Depends(lists.asking(KIND))]


@router.get(
    "",
    summary="List routes",
    response_model=resource_schemas.RouteList | schemas.PartialList,
    dependencies=[needs("network:read")],
)
def list_all(cloud: CloudParts, caller: Caller, asked: ListAsked) -> Response:
    """Return a page of routes."""
    return asked.read(partial(cloud.routes.page, caller.project), documents.route)


@router.put(
    "/{name}",
    summary="Create or replace a route",
    response_model=resource_schemas.Route,
    responses={201: {"description": "created", "model": resource_schemas.Route}},
    dependencies=[needs("network:write")],
)
def put(
    name: NewName,
    body: resource_schemas.PutRoute,
    cloud: CloudParts,
    caller: Caller,
    change: Change,
) -> Response:
    """Create a route or lead it elsewhere; it is PENDING until hosts have it, within a second."""
    wish = msgspec.convert(body.model_dump(), RouteWish)

    def act() -> Response:
        made, new = cloud.routes.put(caller.project, name, wish)
        headers = {"location": f"/v1/routes/{made.name}"} if new else {}
        return replies.json(documents.route(made), 201 if new else 200, headers)

    return change.run(act)


@router.get(
    "/{name}",
    summary="Read a route",
    response_model=resource_schemas.Route,
    dependencies=[needs("network:read")],
)
def get(name: Name, cloud: CloudParts, caller: Caller) -> Response:
    """Return one route by name or id."""
    return replies.json(documents.route(cloud.routes.find(caller.project, name)))


@router.delete(
    "/{name}",
    summary="Delete a route",
    status_code=204,
    dependencies=[needs("network:write")],
)
def delete(name: Name, cloud: CloudParts, caller: Caller, change: Change) -> Response:
    """Delete a route; hosts forget it within a second."""

    def act() -> Response:
        cloud.routes.delete(caller.project, name)
        return Response(status_code=204)

    return change.run(act)
