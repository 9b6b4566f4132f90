"""Load balancers by other ways than their whole document: POST, many at once, short edits."""

from __future__ import annotations

from functools import partial
from ipaddress import ip_address
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Path
from starlette.responses import Response

from fakecloud.api import load_balancers as whole
from fakecloud.api import replies, resource_schemas, schemas
from fakecloud.api.context import CHECKED, Caller, Cloud, CloudParts, needs
from fakecloud.api.mutations import Change
from fakecloud.domain import documents, edits
from fakecloud.model import LoadBalancer, Spec, Target
from fakecloud.requests.wishes import Outcome, Wish
from fakecloud.resources import Token
from fakecloud.store import events
from fakecloud.store import load_balancers as rows

router = APIRouter(
    prefix="/load-balancers",
    tags=["load balancers"],
    dependencies=CHECKED,
    responses=replies.ANY_PROBLEM,
)

WRITES: Final = [needs("lb:write")]
ActionName = Annotated[str, Path(pattern=r"^[a-z0-9._-]{1,63}$", description="name or id")]


@router.post(
    "",
    summary="Create a load balancer, named by you or by the cloud",
    status_code=201,
    response_model=schemas.LoadBalancer,
    responses={
        200: {"description": "it was there already", "model": schemas.LoadBalancer},
        201: {"description": "created"},
        **replies.refused(402, 507),
    },
    dependencies=WRITES,
)
def create(
    body: resource_schemas.PostLoadBalancer, cloud: CloudParts, caller: Caller, change: Change
) -> Response:
    """Create a load balancer. The same document again is 200; another one is 409 name_in_use."""
    wish = Wish(labels=body.labels, annotations=body.annotations, spec=whole.offered(body))

    def act() -> Response:
        lb, outcome = cloud.load_balancers.create(caller.project, body.name, wish)
        return replies.load_balancer(lb, 201 if outcome is Outcome.CREATED else 200)

    return change.run(act)


@router.post(
    ":batchGet",
    summary="Read many load balancers by name",
    response_model=resource_schemas.LoadBalancerBatch,
    dependencies=[needs("lb:read")],
)
def batch_get(body: resource_schemas.Names, cloud: CloudParts, caller: Caller) -> Response:
    """Return those of up to 500 load balancers that exist, and the names of those that don't."""
    with cloud.database.read() as connection:
        version = events.current_version(connection)
        found = rows.by_names(connection, caller.project, body.names)
    return replies.batch(
        body.names, {lb.name: documents.load_balancer(lb) for lb in found}, version
    )


@router.put(
    "/{name}/targets",
    summary="Replace the targets only",
    responses={200: {"description": "they were so already", "model": schemas.LoadBalancer}},
    dependencies=WRITES,
    status_code=202,
    response_model=schemas.LoadBalancer,
)
def put_targets(
    name: ActionName,
    body: resource_schemas.PutTargets,
    cloud: CloudParts,
    caller: Caller,
    change: Change,
    if_match: whole.IfMatch = None,
) -> Response:
    """Replace the targets of the named groups; every other part of the document stays."""
    sets = {
        group.name: tuple(msgspec.convert(t.model_dump(), Target) for t in group.targets)
        for group in body.target_groups
    }
    expected = whole.expectation(if_match, None)

    def act() -> Response:
        lb, outcome = cloud.load_balancers.change(
            caller.project, name, partial(_with_targets, sets), expected
        )
        return replies.load_balancer(lb, 202 if outcome is Outcome.ACCEPTED else 200)

    return change.run(act)


@router.post(
    "/{name}:drain",
    summary="Drain targets",
    responses={200: {"description": "they were so already", "model": schemas.LoadBalancer}},
    dependencies=WRITES,
    status_code=202,
    response_model=schemas.LoadBalancer,
)
def drain(
    name: ActionName,
    cloud: CloudParts,
    caller: Caller,
    change: Change,
    body: resource_schemas.Drain | None = None,
) -> Response:
    """Let targets finish their connections and get no new one: of a node, those listed, or all."""
    wanted = body or resource_schemas.Drain()
    endpoints = frozenset((str(ip_address(t.ip)), t.port) for t in wanted.targets)

    def act() -> Response:
        lb, outcome = cloud.load_balancers.change(
            caller.project, name, partial(_drained, wanted.node, endpoints)
        )
        return replies.load_balancer(lb, 202 if outcome is Outcome.ACCEPTED else 200)

    return change.run(act)


@router.post(
    "/{name}:repair",
    summary="Put it into effect again",
    status_code=202,
    response_model=schemas.LoadBalancer,
    dependencies=WRITES,
)
def repair(name: ActionName, cloud: CloudParts, caller: Caller, change: Change) -> Response:
    """Try again at once and with all attempts, from ERROR and from any other living state."""
    return change.run(
        lambda: replies.load_balancer(cloud.actions.repair(caller.project, name), 202)
    )


@router.post(
    "/{name}:failover",
    summary="Move it to another host",
    status_code=202,
    response_model=schemas.LoadBalancer,
    dependencies=WRITES,
)
def failover(name: ActionName, cloud: CloudParts, caller: Caller, change: Change) -> Response:
    """Take it from its host; the next one that is free runs it, perhaps the same."""
    return change.run(
        lambda: replies.load_balancer(cloud.actions.failover(caller.project, name), 202)
    )


def edited(cloud: Cloud, caller: Token, name: str, spec: Spec) -> LoadBalancer:
    """Return the load balancer after its spec was replaced."""
    return cloud.load_balancers.change(caller.project, name, lambda lb: _wish(lb, spec))[0]


def _with_targets(sets: dict[str, tuple[Target, ...]], lb: LoadBalancer) -> Wish:
    return _wish(lb, edits.with_targets(lb.spec, sets))


def _drained(
    node: str | None, endpoints: frozenset[tuple[str, int | None]], lb: LoadBalancer
) -> Wish:
    return _wish(lb, edits.drained(lb.spec, node, endpoints))


def _wish(lb: LoadBalancer, spec: Spec) -> Wish:
    return Wish(labels=lb.labels, annotations=lb.annotations, spec=spec)
