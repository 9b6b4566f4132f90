"""What an administrator does: check every promise, empty a project, export it, copy the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Path
from starlette.responses import Response, StreamingResponse

from fakecloud import errors
from fakecloud.api import replies, resource_schemas
from fakecloud.api.context import CHECKED, Caller, Cloud, CloudParts, needs
from fakecloud.api.mutations import Change
from fakecloud.clock import rfc3339
from fakecloud.domain import documents, invariants
from fakecloud.model import LoadBalancer, State
from fakecloud.requests.snapshots import Snapshot
from fakecloud.requests.wishes import Wish
from fakecloud.store import (
    census,
    certificates,
    instances,
    listings,
    load_balancers,
    networks,
    operations,
    reservations,
    routes,
)
from fakecloud.store.database import Connection

router = APIRouter(
    tags=["admin"], dependencies=[*CHECKED, needs("admin")], responses=replies.ANY_PROBLEM
)

LINES: Final = "application/x-ndjson"
_PAGE: Final = 500
SnapshotId = Annotated[str, Path(pattern=r"^snap_[0-9a-f]{1,40}$")]


@router.post("/admin:check", summary="Check every promise", response_model=resource_schemas.Check)
def check(cloud: CloudParts, caller: Caller) -> Response:
    """Return which of the invariants I1 to I15 don't hold, for what, and why; of all projects."""
    before = cloud.inspector.running()
    with cloud.database.read() as connection:
        rows = census.take(connection, cloud.clock.wall())
    # Running before and after: neither being made nor being ended meanwhile.
    after = cloud.inspector.running()
    rows = msgspec.structs.replace(
        rows, serving=before & after, glimpsed=before | after, host=cloud.host
    )
    violations = invariants.check(rows)
    return replies.json(
        {
            "ok": not violations,
            "checked": list(invariants.CHECKS),
            "violations": [msgspec.to_builtins(one) for one in violations],
        }
    )


@router.post(
    "/admin:reset",
    summary="Delete everything of the project",
    status_code=202,
    response_model=resource_schemas.Reset,
)
def reset(cloud: CloudParts, caller: Caller, change: Change) -> Response:
    """Delete every load balancer, address, instance, network…, also protected ones.

    Load balancers go by the normal path: ask for the operations until they have ended.
    """
    return change.run(lambda: replies.json(_emptied(cloud, caller.project), 202))


@router.post(
    "/admin:export",
    summary="Export the project",
    response_class=StreamingResponse,
    responses={200: {"description": 'lines of {"kind", "object"}', "content": {LINES: {}}}},
)
def export(cloud: CloudParts, caller: Caller) -> Response:
    """Stream every load balancer, operation, address, instance, network…, one a line."""
    return StreamingResponse(_lines(cloud, caller.project), media_type=LINES)


@router.post(
    "/snapshots",
    summary="Copy the database",
    status_code=201,
    response_model=resource_schemas.Snapshot,
)
def create_snapshot(cloud: CloudParts, caller: Caller, change: Change) -> Response:
    """Copy the embedded database while it serves; 422 unsupported on PostgreSQL."""

    def act() -> Response:
        made = cloud.snapshots.create()
        return replies.json(_snapshot(made), 201, {"location": f"/v1/snapshots/{made.id}"})

    return change.run_outside(act)


@router.get("/snapshots", summary="List snapshots", response_model=resource_schemas.SnapshotList)
def list_snapshots(cloud: CloudParts, caller: Caller) -> Response:
    """Return every snapshot, newest first."""
    return replies.json({"items": [_snapshot(one) for one in cloud.snapshots.all()]})


@router.get("/snapshots/{id}", summary="Read a snapshot", response_model=resource_schemas.Snapshot)
def get_snapshot(id: SnapshotId, cloud: CloudParts, caller: Caller) -> Response:
    """Return where a snapshot is and how large."""
    return replies.json(_snapshot(cloud.snapshots.find(id)))


@router.delete("/snapshots/{id}", summary="Delete a snapshot", status_code=204)
def delete_snapshot(id: SnapshotId, cloud: CloudParts, caller: Caller, change: Change) -> Response:
    """Remove a snapshot's file."""

    def act() -> Response:
        cloud.snapshots.delete(id)
        return Response(status_code=204)

    return change.run_outside(act)


@router.post(
    "/snapshots/{id}:restore",
    summary="How to restore a snapshot",
    response_model=resource_schemas.Snapshot,
    responses=replies.refused(422),
)
def restore_snapshot(id: SnapshotId, cloud: CloudParts, caller: Caller) -> Response:
    """422 unsupported: a running server can't replace its own database; the detail says how."""
    cloud.snapshots.restore(id)
    raise AssertionError("restore always refuses")


def _emptied(cloud: Cloud, project: str) -> dict[str, Any]:
    """Begin to delete everything; return how much, and the operations to wait for."""
    with cloud.database.write() as connection:
        ended = []
        living = load_balancers.living(connection, project)
        for lb in living:
            if lb.spec.deletion_protection and lb.state is not State.DELETING:
                cloud.load_balancers.change(project, lb.id, _unprotected)
            ended.append(cloud.load_balancers.delete(project, lb.id)[1].id)
        kept = _all(lambda page: reservations.listing(connection, project, page))
        for address in kept:
            cloud.reservations.give_up(project, address.id, force=True)
        machines = instances.living(connection, project)
        for machine in machines:
            cloud.instances.delete(project, machine.id)
        ways = routes.living(connection, project)
        for way in ways:
            cloud.routes.delete(project, way.id)
        ranges = networks.living(connection, project)
        for one in ranges:
            cloud.networks.delete(project, one.id)
        brought = certificates.living(connection, project)
        for certificate in brought:
            cloud.certificates.delete(project, certificate.id, force=True)
    return {
        "load_balancers": len(living),
        "addresses": len(kept),
        "instances": len(machines),
        "networks": len(ranges),
        "routes": len(ways),
        "certificates": len(brought),
        "operations": ended,
    }


def _unprotected(lb: LoadBalancer) -> Wish:
    spec = msgspec.structs.replace(lb.spec, deletion_protection=False)
    return Wish(labels=lb.labels, annotations=lb.annotations, spec=spec)


def _lines(cloud: Cloud, project: str) -> Iterator[bytes]:
    kinds: tuple[tuple[str, Callable[[Connection, str, listings.Page], Any], Any], ...] = (
        ("load_balancer", load_balancers.listing, documents.load_balancer),
        ("operation", operations.listing, documents.operation),
        ("address", reservations.listing, documents.reserved_address),
        ("certificate", certificates.listing, documents.certificate),
        ("instance", instances.listing, documents.instance),
        ("network", networks.listing, documents.network),
        ("route", routes.listing, documents.route),
    )
    for kind, listing, document in kinds:
        after: listings.Key | None = None
        while True:
            page = listings.Page(order="created_at", after=after, limit=_PAGE)
            try:
                with cloud.database.read() as connection:
                    found = listing(connection, project, page)
            except errors.Unavailable:
                return  # the head is sent: a cut stream is all that can be said
            for _, one in found:
                yield msgspec.json.encode({"kind": kind, "object": document(one)}) + b"\n"
            if len(found) < _PAGE:
                break
            after = found[-1][0]


def _all(listing: Callable[[listings.Page], list[tuple[listings.Key, Any]]]) -> list[Any]:
    found: list[Any] = []
    after: listings.Key | None = None
    while True:
        page = listing(listings.Page(order="created_at", after=after, limit=_PAGE))
        found.extend(one for _, one in page)
        if len(page) < _PAGE:
            return found
        after = page[-1][0]


def _snapshot(one: Snapshot) -> dict[str, Any]:
    return {
        "id": one.id,
        "file": str(one.file),
        "bytes": one.bytes,
        "created_at": rfc3339(one.created_at),
    }
