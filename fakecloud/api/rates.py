"""What a load balancer costs in an hour, for whoever makes them: a price list, nobody's bill."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from fakecloud.api import replies
from fakecloud.api.context import CHECKED, CloudParts, needs

router = APIRouter(
    tags=["costs"], dependencies=[*CHECKED, needs("lb:read")], responses=replies.ANY_PROBLEM
)


@router.get("/costs/rates", summary="What load balancers cost in an hour")
def rates(cloud: CloudParts) -> Response:
    """Return the price of each shape by itself, without traffic; one without a price is left out.

    A shape: the type, how many listeners of how many protocols (TCP, UDP), and IPv4 addresses.
    """
    return replies.json(cloud.costs.rates())
