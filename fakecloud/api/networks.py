"""Networks: private ranges that only their routes lead to."""

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
from fakecloud.domain.routing import NetworkWish

router = APIRouter(
    prefix="/networks", tags=["networks"], dependencies=CHECKED, responses=replies.ANY_PROBLEM
)

_PLAIN = ("name", "id")
KIND = lists.Kind(
    table="network",
    fields={**lists.fields_of(_PLAIN), "labels.": ("labels",)},
    roots=(*_PLAIN, "ranges", "labels", "resource_version", "created_at", "updated_at"),
    columns={(name,): name for name in _PLAIN},
)
Name = Annotated[str, Path(pattern=r"^[a-z0-9._-]{1,63}$", description="name or id")]
NewName = Annotated[str, Path(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
ListAsked = Annotated[lists.Asked, Depends(lists.asking(KIND))]


@router.get(
    "",
    summary="List networks",
    response_model=resource_schemas.NetworkList | schemas.PartialList,
    dependencies=[needs("network:read")],
)
def list_all(cloud: CloudParts, caller: Caller, asked: ListAsked) -> Response:
    """Return a page of networks."""
    return asked.read(partial(cloud.networks.page, caller.project), documents.network)


@router.put(
    "/{name}",
    summary="Create or replace a network",
    response_model=resource_schemas.Network,
    responses={201: {"description": "created", "model": resource_schemas.Network}},
    dependencies=[needs("network:write")],
)
def put(
    name: NewName,
    body: resource_schemas.PutNetwork,
    cloud: CloudParts,
    caller: Caller,
    change: Change,
) -> Response:
    """Create a network or replace its ranges; 409 range_in_use where they overlap others."""
    wish = msgspec.convert(body.model_dump(), NetworkWish)

    def act() -> Response:
        made, new = cloud.networks.put(caller.project, name, wish)
        headers = {"location": f"/v1/networks/{made.name}"} if new else {}
        return replies.json(documents.network(made), 201 if new else 200, headers)

    return change.run(act)


@router.get(
    "/{name}",
    summary="Read a network",
    response_model=resource_schemas.Network,
    dependencies=[needs("network:read")],
)
def get(name: Name, cloud: CloudParts, caller: Caller) -> Response:
    """Return one network by name or id."""
    return replies.json(documents.network(cloud.networks.find(caller.project, name)))


@router.delete(
    "/{name}",
    summary="Delete a network",
    status_code=204,
    dependencies=[needs("network:write")],
)
def delete(name: Name, cloud: CloudParts, caller: Caller, change: Change) -> Response:
    """Delete a network; 409 in_use while it has routes."""

    def act() -> Response:
        cloud.networks.delete(caller.project, name)
        return Response(status_code=204)

    return change.run(act)
