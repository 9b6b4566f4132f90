"""What the cloud sells and where."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from fakecloud.api import replies, resource_schemas
from fakecloud.api.context import CHECKED, Caller
from fakecloud.domain import catalogue

router = APIRouter(tags=["catalogues"], dependencies=CHECKED, responses=replies.ANY_PROBLEM)


@router.get("/types", summary="List types", response_model=resource_schemas.TypeList)
def types(caller: Caller) -> Response:
    """Return the types of load balancers and their limits.

    In profile `dev` the limits are not enforced.
    """
    return replies.json({"items": [msgspec.to_builtins(one) for one in catalogue.TYPES]})


@router.get("/regions", summary="List regions", response_model=resource_schemas.RegionList)
def regions(caller: Caller) -> Response:
    """Return the regions and their zones."""
    return replies.json({"items": [msgspec.to_builtins(one) for one in catalogue.REGIONS]})
