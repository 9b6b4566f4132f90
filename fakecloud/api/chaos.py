"""Faults on demand: make them, see what they did, remove them. No fault disturbs these paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from fakecloud import errors
from fakecloud.api import fault_schemas, replies
from fakecloud.api.context import CHECKED, Caller, Cloud, CloudParts, needs
from fakecloud.api.mutations import Change, Mutation
from fakecloud.domain import scenarios
from fakecloud.resources import Token
from fakecloud.store import events

router = APIRouter(
    tags=["faults"], dependencies=[*CHECKED, needs("chaos")], responses=replies.ANY_PROBLEM
)

Id = Annotated[str, Path(pattern=r"^[a-z0-9_]{1,63}$")]
NEWEST: Final = (1 << 63) - 1


@router.get("/chaos/faults", response_model=fault_schemas.FaultList, summary="List faults")
def list_all(
    cloud: CloudParts,
    caller: Caller,
    page_size: replies.PageSize = 100,
    page_token: replies.PageToken = None,
) -> Response:
    """Return faults in the order of their ids, a page at a time; expired ones are gone."""
    after = replies.decode_token(page_token, "")
    found = cloud.chaos.page(caller.project, after, page_size + 1)
    items = [fault_schemas.fault(rule) for rule in found[:page_size]]
    more = found[page_size - 1].id if len(found) > page_size else None
    return replies.page(items, more, _version(cloud))


@router.post(
    "/chaos/faults", status_code=201, response_model=fault_schemas.Fault, summary="Inject a fault"
)
def create(
    body: fault_schemas.CreateFault, cloud: CloudParts, caller: Caller, change: Change
) -> Response:
    """Make a fault. It removes itself after `expires_in_s`, 600 s unless said otherwise."""
    _may_disturb(caller, body.match.project)
    _can_disturb(cloud, body.action.type)

    def act() -> Response:
        rule = cloud.chaos.create(caller.project, fault_schemas.draft(body))
        where = {"location": f"/v1/chaos/faults/{rule.id}"}
        return replies.json(fault_schemas.fault(rule), 201, where)

    return _done(cloud, change, act)


@router.get("/chaos/faults/{id}", response_model=fault_schemas.Fault, summary="Read a fault")
def get(id: Id, cloud: CloudParts, caller: Caller) -> Response:
    """Return one fault with its counts."""
    return replies.json(fault_schemas.fault(cloud.chaos.find(caller.project, id)))


@router.patch(
    "/chaos/faults/{id}", response_model=fault_schemas.Fault, summary="Switch a fault on or off"
)
def switch(
    id: Id,
    body: fault_schemas.PatchFault,
    cloud: CloudParts,
    caller: Caller,
    change: Change,
) -> Response:
    """Switch a fault on or off; its counts go on."""

    def act() -> Response:
        rule = cloud.chaos.enable(caller.project, id, body.enabled)
        return replies.json(fault_schemas.fault(rule))

    return _done(cloud, change, act)


@router.delete("/chaos/faults/{id}", status_code=204, summary="Remove a fault")
def remove(id: Id, cloud: CloudParts, caller: Caller, change: Change) -> Response:
    """Remove a fault; what it held up goes on within a second. The log keeps its hits."""

    def act() -> Response:
        cloud.chaos.remove(caller.project, id)
        return Response(status_code=204)

    return _done(cloud, change, act)


@router.get("/chaos/log", response_model=fault_schemas.HitList, summary="List hits")
def log(
    cloud: CloudParts,
    caller: Caller,
    fault: Annotated[str | None, Query(max_length=63, description="of this fault only")] = None,
    page_size: replies.PageSize = 100,
    page_token: replies.PageToken = None,
) -> Response:
    """Return what faults did, newest first; the log holds the newest 10,000 hits."""
    before = replies.decode_token(page_token, 0) or NEWEST
    found = cloud.chaos.log(caller.project, before=before, limit=page_size + 1, fault_id=fault)
    items = [fault_schemas.hit(record) for record in found[:page_size]]
    more = found[page_size - 1].seq if len(found) > page_size else None
    return replies.page(items, more, _version(cloud))


@router.post("/chaos:reset", response_model=fault_schemas.Reset, summary="Remove all faults")
def reset(cloud: CloudParts, caller: Caller, change: Change) -> Response:
    """Remove every fault of the project, and the log."""

    def act() -> Response:
        removed, forgotten = cloud.chaos.reset(caller.project)
        return replies.json({"faults": removed, "hits": forgotten})

    return _done(cloud, change, act)


@router.get(
    "/chaos/actions", response_model=fault_schemas.ActionKindList, summary="List fault actions"
)
def list_actions(cloud: CloudParts, caller: Caller) -> Response:
    """Return what faults can do, with an example of each."""
    return replies.json({"items": fault_schemas.action_kinds()})


@router.get("/chaos/scenarios", response_model=fault_schemas.ScenarioList, summary="List scenarios")
def list_scenarios(cloud: CloudParts, caller: Caller) -> Response:
    """Return the named sets of faults."""
    items = [
        {
            "name": name,
            "description": one.description,
            "expires_in_s": one.expires_in_s,
            "faults": len(one.faults),
        }
        for name, one in scenarios.SCENARIOS.items()
    ]
    return replies.json({"items": items})


@router.post(
    "/chaos/scenarios/{name}",
    status_code=201,
    response_model=fault_schemas.FaultList,
    summary="Start a scenario",
)
def start(
    name: Annotated[str, Path(pattern=r"^[a-z0-9-]{1,63}$")],
    cloud: CloudParts,
    caller: Caller,
    change: Change,
    body: fault_schemas.StartScenario | None = None,
) -> Response:
    """Make the faults of a scenario; they carry its name and remove themselves."""
    how = body or fault_schemas.StartScenario()

    def act() -> Response:
        made = cloud.chaos.start(caller.project, name, seed=how.seed, expires_in_s=how.expires_in_s)
        items = [fault_schemas.fault(rule) for rule in made]
        version = str(_version(cloud))
        return replies.json(
            {"items": items, "next_page_token": None, "resource_version": version}, 201
        )

    return _done(cloud, change, act)


def _done(cloud: Cloud, change: Mutation, act: Callable[[], Response]) -> Response:
    """Return the answer; the copy of the rules in memory is renewed once they are committed."""
    answer = change.run(act)
    cloud.chaos.refresh()
    return answer


def _version(cloud: Cloud) -> int:
    with cloud.database.read() as connection:
        return events.current_version(connection)


def _can_disturb(cloud: Cloud, action: str) -> None:
    """Refuse what this host can't do. Raises: ValidationFailed."""
    message = ""
    if action == "host_down" and any(use.pool.interface for use in cloud.reservations.pools()):
        message = "host_down would leave addresses of interface pools on this host"
    if message:
        raise errors.ValidationFailed(
            f"/action/type: {message}",
            errors=(errors.FieldError("/action/type", "unsupported", message),),
        )


def _may_disturb(caller: Token, project: str) -> None:
    """Let only an administrator disturb other projects. Raises: ValidationFailed."""
    if project in ("", caller.project) or caller.may("admin"):
        return
    message = "only a token with scope admin may disturb another project"
    raise errors.ValidationFailed(
        f"/match/project: {message}",
        errors=(errors.FieldError("/match/project", "forbidden", message),),
    )
