"""Load balancers: put the whole document, read it back, delete it."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import Annotated, Final

from fastapi import APIRouter, Header, Path, Query
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from fakecloud import documents, errors
from fakecloud.api import replies, schemas
from fakecloud.api.context import CHECKED, Caller, Cloud, CloudParts
from fakecloud.load_balancers import Expectation, Outcome, Wish
from fakecloud.model import LoadBalancer, Protocol, Spec, State

router = APIRouter(
    prefix="/load-balancers",
    tags=["load balancers"],
    dependencies=CHECKED,
    responses=replies.ANY_PROBLEM,
)

MAX_WAIT_S: Final = 60.0
_SETTLED: Final = frozenset({State.ACTIVE, State.ERROR, State.DELETING, State.DELETED})
_OFFERED: Final[tuple[Protocol, ...]] = ("tcp",)

# Without "_", which every id has: a name is never another load balancer's id.
NewName = Annotated[str, Path(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
Name = Annotated[str, Path(pattern=r"^[a-z0-9._-]{1,63}$", description="name or id")]
IfMatch = Annotated[str | None, Header(description="an ETag; its generation is compared")]
IfNoneMatch = Annotated[str | None, Header(description="`*`: create only")]
Wait = Annotated[str | None, Query(description="wait for the result, e.g. 25s; at most 60s")]


@router.put(
    "/{name}",
    response_model=schemas.LoadBalancer,
    responses={
        201: {"description": "created", "model": schemas.LoadBalancer},
        202: {"description": "accepted", "model": schemas.LoadBalancer},
    },
)
async def put(
    name: NewName,
    body: schemas.PutLoadBalancer,
    cloud: CloudParts,
    caller: Caller,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
    wait: Wait = None,
) -> Response:
    """Create or replace a load balancer by its whole document.

    201 created; 200 nothing or only labels changed, or ACTIVE was reached within `wait`;
    202 accepted, the cloud works on it.
    """
    wait_s = replies.seconds(wait, "wait", MAX_WAIT_S)
    wish = Wish(labels=body.labels, annotations=body.annotations, spec=_offered(body))
    expected = _expectation(if_match, if_none_match)
    lb, outcome = await run_in_threadpool(
        cloud.load_balancers.put, caller.project, name, wish, expected
    )
    if wait_s and outcome in (Outcome.CREATED, Outcome.ACCEPTED):
        lb = await _settled(cloud, lb, wait_s)
    if lb.state is State.ACTIVE and lb.observed_generation == lb.generation:
        return replies.load_balancer(lb, 200)
    if outcome is Outcome.CREATED:
        return replies.load_balancer(lb, 201)
    return replies.load_balancer(lb, 202 if outcome is Outcome.ACCEPTED else 200)


@router.get("", response_model=schemas.LoadBalancerList)
def list_all(
    cloud: CloudParts,
    caller: Caller,
    page_size: replies.PageSize = 100,
    page_token: replies.PageToken = None,
) -> Response:
    """Return load balancers in the order of their creation, a page at a time."""
    after = replies.decode_token(page_token, 0)
    version, found = cloud.load_balancers.page(caller.project, after, page_size + 1)
    items = [documents.load_balancer(lb) for lb in found[:page_size]]
    more = found[page_size - 1].pk if len(found) > page_size else None
    return replies.page(items, more, version)


@router.get("/{name}", response_model=schemas.LoadBalancer)
def get(
    name: Name, cloud: CloudParts, caller: Caller, if_none_match: IfNoneMatch = None
) -> Response:
    """Return one load balancer by name or id; 304 when `If-None-Match` has its ETag."""
    lb = cloud.load_balancers.find(caller.project, name)
    known = (if_none_match or "").strip()
    if known == "*" or documents.etag(lb) in known:
        return Response(status_code=304, headers={"etag": documents.etag(lb)})
    return replies.load_balancer(lb)


@router.delete(
    "/{name}",
    status_code=202,
    response_model=schemas.Operation,
)
def delete(name: Name, cloud: CloudParts, caller: Caller, if_match: IfMatch = None) -> Response:
    """Begin to delete; again while it lasts answers with the same operation, then 404."""
    expected = _expectation(if_match, None)
    _, operation = cloud.load_balancers.delete(caller.project, name, expected)
    return replies.operation(operation, 202)


async def _settled(cloud: Cloud, lb: LoadBalancer, wait_s: float) -> LoadBalancer:
    """Return the load balancer once it is active or failed, or as it is after `wait_s`."""
    with cloud.hub.changes_of(lb.id) as changed, suppress(TimeoutError, errors.NotFound):
        async with asyncio.timeout(wait_s):
            while True:
                changed.clear()  # before the look: a change during it is seen next
                lb = await run_in_threadpool(cloud.load_balancers.find, lb.project, lb.id)
                if lb.state in _SETTLED:
                    break
                await changed.wait()
    return lb


def _expectation(if_match: str | None, if_none_match: str | None) -> Expectation:
    absent = if_none_match is not None and if_none_match.strip() == "*"
    if if_match is None:
        return Expectation(absent=absent)
    if if_match.strip() == "*":
        return Expectation(any_existing=True, absent=absent)
    generations = re.findall(r'"(\d{1,15})(?:\.\d{1,15})?"', if_match)
    return Expectation(generations=frozenset(map(int, generations)), absent=absent)


def _offered(body: schemas.PutLoadBalancer) -> Spec:
    """Return the spec if this cloud can run all of it. Raises: NotYetOffered."""
    spec = schemas.to_model(body)
    wishes = [
        (f"/spec/listeners/{i}/{field}", value)
        for i, one in enumerate(spec.listeners)
        for field, value, offered in (
            ("protocol", one.protocol, one.protocol in _OFFERED),
            ("tls", one.tls, one.tls is None),
            ("routes", "rules", not one.routes),
            ("redirect_https", True, not one.redirect_https),
        )
        if not offered
    ] + [
        (f"/spec/target_groups/{i}/{field}", value)
        for i, group in enumerate(spec.target_groups)
        for field, value, offered in (
            ("affinity/kind", group.affinity.kind, group.affinity.kind != "cookie"),
            ("weights_from", group.weights_from, group.weights_from == "none"),
            ("preserve_client_ip", True, not group.preserve_client_ip),
        )
        if not offered
    ]
    if wishes:
        raise errors.NotYetOffered(
            "; ".join(
                f"{pointer}: {value!r} is not offered by this cloud"
                for pointer, value in wishes[:3]
            ),
            errors=tuple(
                errors.FieldError(p, "unsupported", f"{v!r} is not offered") for p, v in wishes
            ),
        )
    return spec
