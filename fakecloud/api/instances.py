"""Instances: the machines of the cloud, as a node controller asks for them."""

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
from fakecloud.resources import Instance, InstanceWish

router = APIRouter(
    prefix="/instances", tags=["instances"], dependencies=CHECKED, responses=replies.ANY_PROBLEM
)

_PLAIN = ("name", "id", "provider_id", "type", "region", "zone", "power_state")
KIND = lists.Kind(
    table="instance",
    fields={**lists.fields_of(_PLAIN), "labels.": ("labels",)},
    roots=(*_PLAIN, "addresses", "labels", "resource_version", "created_at", "updated_at"),
    columns={(name,): name for name in _PLAIN if name != "provider_id"},
)
Name = Annotated[str, Path(pattern=r"^[a-z0-9._-]{1,253}$", description="name or id")]
NewName = Annotated[str, Path(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
ListAsked = Annotated[lists.Asked, Depends(lists.asking(KIND))]


@router.get(
    "",
    summary="List instances",
    response_model=resource_schemas.InstanceList | schemas.PartialList,
    dependencies=[needs("instance:read")],
)
def list_all(cloud: CloudParts, caller: Caller, asked: ListAsked) -> Response:
    """Return a page of instances."""
    return asked.read(partial(cloud.instances.page, caller.project), documents.instance)


@router.post(
    "",
    summary="Create an instance",
    status_code=201,
    response_model=resource_schemas.Instance,
    dependencies=[needs("instance:write")],
)
def create(
    body: resource_schemas.PostInstance, cloud: CloudParts, caller: Caller, change: Change
) -> Response:
    """Create an instance; the same document again gives the same one, another is 409."""
    wish = _wish(body)
    return change.run(lambda: _reply(cloud.instances.create(caller.project, body.name, wish), 201))


@router.put(
    "/{name}",
    summary="Create or replace an instance",
    response_model=resource_schemas.Instance,
    responses={201: {"description": "created", "model": resource_schemas.Instance}},
    dependencies=[needs("instance:write")],
)
def put(
    name: NewName,
    body: resource_schemas.PutInstance,
    cloud: CloudParts,
    caller: Caller,
    change: Change,
) -> Response:
    """Create an instance or replace what is said of it."""
    wish = _wish(body)

    def act() -> Response:
        instance, new = cloud.instances.put(caller.project, name, wish)
        return _reply(instance, 201 if new else 200)

    return change.run(act)


@router.get(
    "/{name}",
    summary="Read an instance",
    response_model=resource_schemas.Instance,
    dependencies=[needs("instance:read")],
)
def get(name: Name, cloud: CloudParts, caller: Caller) -> Response:
    """Return one instance by name or id."""
    return _reply(cloud.instances.find(caller.project, name), 200)


@router.delete(
    "/{name}",
    summary="Delete an instance",
    status_code=204,
    dependencies=[needs("instance:write")],
)
def delete(name: Name, cloud: CloudParts, caller: Caller, change: Change) -> Response:
    """Delete an instance; the machine it stands for is not touched."""

    def act() -> Response:
        cloud.instances.delete(caller.project, name)
        return Response(status_code=204)

    return change.run(act)


def _wish(body: resource_schemas.PutInstance) -> InstanceWish:
    return msgspec.convert(body.model_dump(exclude={"name"}), InstanceWish)


def _reply(instance: Instance, status_code: int) -> Response:
    headers = {"location": f"/v1/instances/{instance.name}"} if status_code == 201 else {}
    return replies.json(documents.instance(instance), status_code, headers)
