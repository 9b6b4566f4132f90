"""Load balancers: put the whole document, read it back, delete it."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Body, Depends, Header, Path, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.responses import Response

from fakecloud import errors
from fakecloud.api import lists, replies, schemas, waiting
from fakecloud.api.context import CHECKED, Caller, Cloud, CloudParts, needs
from fakecloud.api.mutations import Change, Mutation
from fakecloud.api.preferences import Preferences, Preferred
from fakecloud.domain import documents, filters, merge_patch, rules
from fakecloud.model import LoadBalancer, Spec, State
from fakecloud.requests.wishes import Expectation, Outcome, Put, Wish
from fakecloud.store import events, listings
from fakecloud.store import load_balancers as rows
from fakecloud.tables import cloud as tables

router = APIRouter(
    prefix="/load-balancers",
    tags=["load balancers"],
    dependencies=CHECKED,
    responses=replies.ANY_PROBLEM,
)

MERGE_PATCH: Final = "application/merge-patch+json"
MAX_WAIT_S: Final = 60.0
DEFAULT_WAIT_S: Final = 25.0
_SETTLED: Final = frozenset({State.ACTIVE, State.ERROR, State.DELETING, State.DELETED})
# Without "_", which every id has: a name is never another load balancer's id.
NAME: Final = r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"
NewName = Annotated[str, Path(pattern=NAME)]
Name = Annotated[str, Path(pattern=r"^[a-z0-9._-]{1,63}$", description="name or id")]
IfMatch = Annotated[str | None, Header(description="an ETag; its generation is compared")]
IfNoneMatch = Annotated[str | None, Header(description="`*`: create only")]
Wait = Annotated[
    str | None,
    Query(
        description="wait for the result, e.g. 25s; at most 60s",
        json_schema_extra=replies.TIME,
    ),
]
WaitFor = Annotated[
    str | None,
    Query(
        max_length=100,
        description="until it is in one of `state:ACTIVE,ERROR`",
        json_schema_extra={"pattern": "^state:[A-Z]+(,[A-Z]+)*$"},
    ),
]
RvGt = Annotated[
    int | None, Query(ge=0, lt=1 << 63, description="until it is newer than this resource version")
]
ListAsked = Annotated[lists.Asked, Depends(lists.asking(lists.LOAD_BALANCERS))]


@router.put(
    "/{name}",
    summary="Create or replace a load balancer",
    dependencies=[needs("lb:write")],
    response_model=schemas.LoadBalancer,
    responses={
        201: {"description": "created", "model": schemas.LoadBalancer},
        202: {"description": "accepted", "model": schemas.LoadBalancer},
        **replies.refused(402, 507),
    },
)
async def put(
    name: NewName,
    body: schemas.PutLoadBalancer,
    cloud: CloudParts,
    caller: Caller,
    change: Change,
    preferred: Preferred,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
    wait: Wait = None,
) -> Response:
    """Create or replace a load balancer by its whole document.

    201 created; 200 nothing or only labels changed, or ACTIVE was reached within `wait`;
    202 accepted, the cloud works on it.
    """
    preferred.check(if_match, if_none_match)
    wait_s = _wait_s(wait, preferred)
    wish = Wish(labels=body.labels, annotations=body.annotations, spec=offered(body))
    expected = expectation(if_match, if_none_match)
    act = partial(cloud.load_balancers.put, caller.project, name, wish, expected)
    return preferred.told(await changed(cloud, change, act, wait_s))


@router.patch(
    "/{name}",
    summary="Change parts of a load balancer",
    dependencies=[needs("lb:write")],
    response_model=schemas.LoadBalancer,
    responses={
        202: {"description": "accepted", "model": schemas.LoadBalancer},
        **replies.refused(507),
    },
)
async def patch(
    name: Name,
    body: Annotated[dict[str, Any], Body(media_type=MERGE_PATCH)],
    cloud: CloudParts,
    caller: Caller,
    change: Change,
    preferred: Preferred,
    content_type: Annotated[str, Header(include_in_schema=False)] = MERGE_PATCH,
    if_match: IfMatch = None,
    wait: Wait = None,
) -> Response:
    """Merge a patch (RFC 7396) into labels, annotations and spec: null removes, lists are replaced.

    200 nothing or only labels changed, or ACTIVE was reached within `wait`; 202 accepted.
    """
    if content_type.partition(";")[0].strip().lower() != MERGE_PATCH:
        raise errors.UnsupportedMediaType(f"PATCH takes {MERGE_PATCH}, not {content_type!r}")
    preferred.check(if_match)
    wait_s = _wait_s(wait, preferred)
    act = partial(
        cloud.load_balancers.change,
        caller.project,
        name,
        partial(_patched, patch=body),
        expectation(if_match, None),
    )
    return preferred.told(await changed(cloud, change, act, wait_s))


@router.get(
    "",
    summary="List load balancers",
    dependencies=[needs("lb:read")],
    response_model=schemas.LoadBalancerList | schemas.PartialList,
)
def list_all(
    cloud: CloudParts, caller: Caller, asked: ListAsked, view: lists.View = None
) -> Response:
    """Return a page of load balancers: filtered, sorted, and only the parts that are asked for."""
    if view == "basic" and asked.mask is None:
        asked = msgspec.structs.replace(asked, mask=lists.BASIC)
    needed = None if asked.paths is None else documents.columns(asked.paths)
    with cloud.database.read() as connection:
        version = events.current_version(connection)

        def whole(page: listings.Page) -> lists.Found:
            found = rows.listing(connection, caller.project, page)
            return [(key, documents.load_balancer(lb)) for key, lb in found]

        def parts(page: listings.Page) -> lists.Found:
            assert needed is not None
            names = tuple(needed.values())
            found = listings.find(connection, tables.load_balancer, caller.project, page, names)
            return [(key, documents.parts(zip(needed, row, strict=True))) for key, row in found]

        items, last = asked.collect(whole if needed is None else parts)
    return asked.answer(items, last, version)


@router.get(
    "/{name}",
    summary="Read a load balancer, or wait for a change of it",
    dependencies=[needs("lb:read")],
    response_model=schemas.LoadBalancer | schemas.Partial,
    responses={304: {"description": "still the one of `If-None-Match`"}},
)
async def get(
    name: Name,
    cloud: CloudParts,
    caller: Caller,
    if_none_match: IfNoneMatch = None,
    wait_for: WaitFor = None,
    rv_gt: RvGt = None,
    wait: Wait = None,
    fields: lists.FieldsText = None,
    min_rv: lists.MinVersion = None,
) -> Response:
    """Return one load balancer by name or id; 304 when `If-None-Match` has its ETag.

    With `wait_for` or `rv_gt` the answer comes when that holds, or after `wait` (default 25 s) as
    it is then. One that is gone meanwhile is 404.
    """
    mask = filters.parse_fields(fields, lists.LOAD_BALANCERS.roots)
    wait_s = replies.seconds(wait, "wait", MAX_WAIT_S)
    done = _awaited(wait_for, rv_gt)
    if done is not None and wait is None:
        wait_s = DEFAULT_WAIT_S
    if min_rv is not None:
        await waiting.for_version(cloud, min_rv)
    lb = await run_in_threadpool(cloud.load_balancers.find, caller.project, name)
    if done is not None:
        find = partial(cloud.load_balancers.find, caller.project, lb.id)
        lb = await waiting.until(cloud, lb.id, find, done, wait_s)
    known = (if_none_match or "").strip()
    if known == "*" or documents.etag(lb) in known:
        return Response(status_code=304, headers={"etag": documents.etag(lb)})
    if mask is not None:
        shown = mask.apply(documents.load_balancer(lb))
        return replies.json(shown, headers={"etag": documents.etag(lb)})
    return replies.load_balancer(lb)


@router.delete(
    "/{name}",
    summary="Delete a load balancer",
    dependencies=[needs("lb:write")],
    status_code=202,
    response_model=schemas.Operation,
    responses={202: {"description": "begun"}},
)
def delete(
    name: Name,
    cloud: CloudParts,
    caller: Caller,
    change: Change,
    preferred: Preferred,
    if_match: IfMatch = None,
) -> Response:
    """Begin to delete; again while it lasts answers with the same operation, then 404."""
    preferred.check(if_match)
    expected = expectation(if_match, None)

    def act() -> Response:
        _, operation = cloud.load_balancers.delete(caller.project, name, expected)
        return replies.operation(operation, 202)

    return preferred.told(change.run(act))


async def changed(
    cloud: Cloud,
    change: Mutation,
    act: Callable[[], tuple[LoadBalancer, Outcome]],
    wait_s: float = 0.0,
    put: Put | None = None,
) -> Response:
    """Return the answer to a change of a load balancer: once it is settled, or after `wait_s`.

    put: all that `act` does, if nobody waits for it.
    """
    done: list[tuple[LoadBalancer, Outcome]] = []

    def acting() -> Response:
        lb, outcome = act()
        done.append((lb, outcome))
        return answering(lb, outcome)

    def answering(lb: LoadBalancer, outcome: Outcome) -> Response:
        if outcome is Outcome.UNCHANGED:
            change.unchanged()
        return _answer(lb, outcome)

    answer = await change.soon(acting, put, lambda what: answering(what.lb, what.outcome))
    if not (wait_s and done and done[0][1] in (Outcome.CREATED, Outcome.ACCEPTED)):
        return answer
    lb, outcome = done[0]
    with suppress(errors.NotFound):
        find = partial(cloud.load_balancers.find, lb.project, lb.id)
        lb = await waiting.until(cloud, lb.id, find, _is_settled, wait_s)
    return _answer(lb, outcome)


def _wait_s(wait: str | None, preferred: Preferences) -> float:
    """Return how long to wait: by the parameter, else as the caller would like."""
    if wait is None and preferred.wait_s is not None:
        return min(preferred.wait_s, MAX_WAIT_S)
    return replies.seconds(wait, "wait", MAX_WAIT_S)


def _answer(lb: LoadBalancer, outcome: Outcome) -> Response:
    if lb.state is State.ACTIVE and lb.observed_generation == lb.generation:
        return replies.load_balancer(lb, 200)
    if outcome is Outcome.CREATED:
        return replies.load_balancer(lb, 201)
    return replies.load_balancer(lb, 202 if outcome is Outcome.ACCEPTED else 200)


def _patched(lb: LoadBalancer, *, patch: dict[str, Any]) -> Wish:
    """Return the wish that a patch makes of what is there. Raises: as a PUT of it would."""
    before = {"labels": lb.labels, "annotations": lb.annotations}
    whole = before | {"spec": msgspec.json.decode(msgspec.json.encode(lb.spec))}
    try:
        body = schemas.PutLoadBalancer.model_validate(merge_patch.merge(whole, patch))
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(found) from None
    except ValueError as error:
        raise errors.ValidationFailed(str(error)) from None
    return Wish(labels=body.labels, annotations=body.annotations, spec=offered(body))


def _is_settled(lb: LoadBalancer) -> bool:
    return lb.state in _SETTLED


def _awaited(wait_for: str | None, rv_gt: int | None) -> Callable[[LoadBalancer], bool] | None:
    """Return what ends the wait, None if nothing is waited for. Raises: InvalidParameter."""
    if wait_for is None and rv_gt is None:
        return None
    states: frozenset[str] | None = None
    if wait_for is not None:
        kind, _, listed = wait_for.partition(":")
        states = frozenset(listed.split(","))
        if kind != "state" or not states <= set(State):
            raise errors.InvalidParameter(
                f"wait_for={wait_for[:100]!r} is not of the form state:ACTIVE,ERROR; states are "
                f"{', '.join(State)}"
            )

    def done(lb: LoadBalancer) -> bool:
        newer = rv_gt is None or lb.resource_version > rv_gt
        return newer and (states is None or lb.state in states)

    return done


def expectation(if_match: str | None, if_none_match: str | None) -> Expectation:
    absent = if_none_match is not None and if_none_match.strip() == "*"
    if if_match is None:
        return Expectation(absent=absent)
    if if_match.strip() == "*":
        return Expectation(any_existing=True, absent=absent)
    generations = re.findall(r'"(\d{1,15})(?:\.\d{1,15})?"', if_match)
    return Expectation(generations=frozenset(map(int, generations)), absent=absent)


def offered(body: schemas.PutLoadBalancer) -> Spec:
    """Return the spec if it is consistent and this cloud can run all of it.

    Raises: ValidationFailed, NotYetOffered.
    """
    spec = schemas.to_model(body)
    wrong = rules.mistakes(spec)
    if not wrong:
        return spec
    unsupported = all(one.code == "unsupported" for one in wrong)
    kind = errors.NotYetOffered if unsupported else errors.ValidationFailed
    said = "; ".join(f"{one.pointer}: {one.message}" for one in wrong[:3])
    raise kind(said, errors=tuple(wrong))
