"""Addresses that a customer keeps, and the pools that they come from."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from fakecloud.api import lists, replies, resource_schemas, schemas
from fakecloud.api.context import CHECKED, Caller, CloudParts, needs
from fakecloud.api.mutations import Change
from fakecloud.domain import documents, edits
from fakecloud.errors import InUse
from fakecloud.model import Address, LoadBalancer
from fakecloud.requests.reservations import Wanted
from fakecloud.requests.wishes import Wish
from fakecloud.resources import ReservedAddress

router = APIRouter(tags=["addresses"], dependencies=CHECKED, responses=replies.ANY_PROBLEM)

KIND = lists.Kind(
    table="reserved_address",
    fields={
        **lists.fields_of(("name", "id", "ip", "family", "pool", "state", "load_balancer")),
        "labels.": ("labels",),
    },
    roots=(
        *("id", "name", "labels", "ip", "family", "pool", "state", "load_balancer"),
        *("resource_version", "created_at", "updated_at"),
    ),
    columns={("name",): "name", ("id",): "id", ("ip",): "ip"},
)
Name = Annotated[str, Path(pattern=r"^[a-z0-9._:-]{1,63}$", description="name, id or ip")]
ActionName = Annotated[str, Path(pattern=r"^[a-z0-9._-]{1,63}$", description="name or id")]
ListAsked = Annotated[lists.Asked, Depends(lists.asking(KIND))]


@router.get(
    "/addresses",
    summary="List reserved addresses",
    response_model=resource_schemas.AddressList | schemas.PartialList,
    dependencies=[needs("ip:read")],
)
def list_all(cloud: CloudParts, caller: Caller, asked: ListAsked) -> Response:
    """Return a page of the project's reserved addresses."""
    return asked.read(partial(cloud.reservations.page, caller.project), documents.reserved_address)


@router.post(
    "/addresses",
    summary="Reserve an address",
    status_code=201,
    response_model=resource_schemas.Address,
    responses=replies.refused(507),
    dependencies=[needs("ip:write")],
)
def reserve(
    body: resource_schemas.PostAddress, cloud: CloudParts, caller: Caller, change: Change
) -> Response:
    """Keep an address of a pool, a certain one or any; the same wish again gives the same one."""
    wanted = Wanted(
        name=body.name, family=body.family, pool=body.pool, ip=body.ip, labels=body.labels
    )

    def act() -> Response:
        return _reply(cloud.reservations.reserve(caller.project, wanted), 201)

    return change.run(act)


@router.get(
    "/addresses/{name}",
    summary="Read a reserved address",
    response_model=resource_schemas.Address,
    dependencies=[needs("ip:read")],
)
def get(name: Name, cloud: CloudParts, caller: Caller) -> Response:
    """Return one reserved address by name, id or ip."""
    return _reply(cloud.reservations.find(caller.project, name), 200)


@router.delete(
    "/addresses/{name}",
    summary="Give a reserved address up",
    status_code=204,
    dependencies=[needs("ip:write")],
)
def delete(name: Name, cloud: CloudParts, caller: Caller, change: Change) -> Response:
    """End the reservation; the address rests for a minute before anybody gets it.

    409 in_use while a load balancer uses it.
    """

    def act() -> Response:
        cloud.reservations.give_up(caller.project, name)
        return Response(status_code=204)

    return change.run(act)


@router.post(
    "/addresses/{name}:assign",
    summary="Give a reserved address to a load balancer",
    status_code=202,
    response_model=schemas.LoadBalancer,
    dependencies=[needs("ip:write"), needs("lb:write")],
)
def assign(
    name: ActionName,
    body: resource_schemas.Assign,
    cloud: CloudParts,
    caller: Caller,
    change: Change,
) -> Response:
    """Ask for the address in the load balancer's `spec.addresses`, as a PUT of it would."""

    def act() -> Response:
        address = _address(cloud.reservations.find(caller.project, name))

        def edit(lb: LoadBalancer) -> Wish:
            spec = edits.with_address(lb.spec, address)
            return Wish(labels=lb.labels, annotations=lb.annotations, spec=spec)

        lb, _ = cloud.load_balancers.change(caller.project, body.load_balancer, edit)
        return replies.load_balancer(lb, 202)

    return change.run(act)


@router.post(
    "/addresses/{name}:release",
    summary="Take a reserved address from its load balancer",
    status_code=202,
    response_model=schemas.LoadBalancer,
    dependencies=[needs("ip:write"), needs("lb:write")],
)
def release(name: ActionName, cloud: CloudParts, caller: Caller, change: Change) -> Response:
    """Take the address out of `spec.addresses`; the load balancer's only one becomes another.

    409 in_use when no load balancer uses it.
    """

    def act() -> Response:
        reserved = cloud.reservations.find(caller.project, name)
        if reserved.load_balancer is None:
            raise InUse(f"{reserved.ip} is not assigned to a load balancer")
        address = _address(reserved)

        def edit(lb: LoadBalancer) -> Wish:
            spec = edits.without_address(lb.spec, address)
            return Wish(labels=lb.labels, annotations=lb.annotations, spec=spec)

        lb, _ = cloud.load_balancers.change(caller.project, reserved.load_balancer, edit)
        return replies.load_balancer(lb, 202)

    return change.run(act)


@router.get(
    "/ip-pools",
    summary="List address pools",
    response_model=resource_schemas.PoolList,
    dependencies=[needs("ip:read")],
)
def pools(cloud: CloudParts, caller: Caller) -> Response:
    """Return every pool: its range, and how many addresses are used, reserved and resting."""
    return replies.json(
        {
            "items": [
                {
                    "name": one.pool.name,
                    "family": one.pool.family,
                    "kind": one.pool.kind,
                    "cidr": str(one.pool.network),
                    "interface": one.pool.interface,
                    "capacity": one.capacity,
                    "used": one.used,
                    "reserved": one.reserved,
                    "resting": one.resting,
                }
                for one in cloud.reservations.pools()
            ]
        }
    )


def _address(reserved: ReservedAddress) -> Address:
    return Address(family=reserved.family, ip=reserved.ip, pool=reserved.pool)


def _reply(reserved: ReservedAddress, status_code: int) -> Response:
    headers = {"location": f"/v1/addresses/{reserved.name}"} if status_code == 201 else {}
    return replies.json(documents.reserved_address(reserved), status_code, headers)
