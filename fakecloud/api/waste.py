"""What costs and serves nobody, and the inventories of clusters that it is known by."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from fakecloud.api import replies
from fakecloud.api.context import CHECKED, Caller, CloudParts, needs
from fakecloud.api.mutations import Change
from fakecloud.billing import waste
from fakecloud.clock import rfc3339
from fakecloud.store.inventories import Inventory

router = APIRouter(dependencies=[*CHECKED], responses=replies.ANY_PROBLEM)

ClusterUid = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,63}$", description="of kube-system")]
Uid = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,63}$")]
STANDARD = waste.Policy()


class InventoryBody(BaseModel):
    """The Services of a cluster that want load balancers, all of them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    services: list[Uid] = Field(max_length=20_000, description="their UIDs")
    lease_s: int = Field(ge=10, le=86_400, description="how long this is believed")


class ShownInventory(BaseModel):
    """What a cluster said last."""

    cluster_uid: str
    services: list[str]
    taken_at: str
    lease_until: str


@router.get(
    "/costs/waste",
    summary="What costs and serves nobody",
    tags=["costs"],
    dependencies=[needs("billing:read")],
)
def report(
    cloud: CloudParts,
    caller: Caller,
    idle_days: Annotated[int, Query(ge=1, le=90, description="without traffic")] = 7,
    idle_connections: Annotated[
        int, Query(ge=1, le=1_000_000, description="fewer in that time are no traffic")
    ] = STANDARD.idle_connections,
    silent_s: Annotated[
        int, Query(ge=0, le=31_536_000, description="after its lease a cluster counts as gone")
    ] = int(STANDARD.silent.total_seconds()),
) -> Response:
    """Return orphans, duplicates, stuck deletions, what has no target or traffic, with its cost.

    Nothing is deleted: each has the command that would.
    """
    policy = waste.Policy(
        idle=timedelta(days=idle_days),
        idle_connections=idle_connections,
        silent=timedelta(seconds=silent_s),
    )
    return replies.json(cloud.spending.waste.report(caller.project, policy))


@router.put(
    "/clusters/{cluster_uid}/inventory",
    summary="Say which Services a cluster has",
    tags=["clusters"],
    response_model=ShownInventory,
    dependencies=[needs("lb:write")],
)
def put(
    cloud: CloudParts, caller: Caller, change: Change, cluster_uid: ClusterUid, body: InventoryBody
) -> Response:
    """Keep the list until its lease ends; what was made for a Service not in it is an orphan.

    The controller sends it again and again, also unchanged: when it stops, the cluster is gone.
    """

    def act() -> Response:
        found, changed = cloud.spending.waste.take_inventory(
            caller.project, cluster_uid, body.services, body.lease_s
        )
        if not changed:
            change.unchanged()
        return replies.json(_document(found))

    return change.run(act)


@router.get(
    "/clusters/{cluster_uid}/inventory",
    summary="What a cluster said last",
    tags=["clusters"],
    response_model=ShownInventory,
    dependencies=[needs("lb:read")],
)
def get(cloud: CloudParts, caller: Caller, cluster_uid: ClusterUid) -> Response:
    """Return the Services that the cluster has, and how long that is believed."""
    return replies.json(_document(cloud.spending.waste.inventory(caller.project, cluster_uid)))


@router.delete(
    "/clusters/{cluster_uid}/inventory",
    summary="Forget a cluster's inventory",
    tags=["clusters"],
    status_code=204,
    dependencies=[needs("lb:write")],
)
def delete(cloud: CloudParts, caller: Caller, change: Change, cluster_uid: ClusterUid) -> Response:
    """Forget the list: without one, nothing of the cluster counts as an orphan."""

    def act() -> Response:
        cloud.spending.waste.forget_inventory(caller.project, cluster_uid)
        return Response(status_code=204)

    return change.run(act)


def _document(found: Inventory) -> dict[str, object]:
    return {
        "cluster_uid": found.cluster_uid,
        "services": sorted(found.services),
        "taken_at": rfc3339(found.taken_at),
        "lease_until": rfc3339(found.lease_until),
    }
