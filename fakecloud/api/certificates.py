"""Certificates: chains and keys that listeners use; keys come in and never go out."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from fakecloud.api import lists, replies, resource_schemas, schemas
from fakecloud.api.context import CHECKED, Caller, CloudParts, needs
from fakecloud.api.mutations import Change
from fakecloud.domain import documents, pem
from fakecloud.requests.certificates import Kept

router = APIRouter(
    prefix="/certificates",
    tags=["certificates"],
    dependencies=CHECKED,
    responses=replies.ANY_PROBLEM,
)

_PLAIN = ("name", "id", "fingerprint", "not_after")
KIND = lists.Kind(
    table="certificate",
    fields={**lists.fields_of(_PLAIN), "labels.": ("labels",)},
    roots=(
        *_PLAIN,
        "certificate",
        "hosts",
        "labels",
        "not_before",
        "resource_version",
        "created_at",
        "updated_at",
    ),
    columns={(name,): name for name in ("name", "id", "fingerprint")},
)
Name = Annotated[str, Path(pattern=r"^[a-z0-9._-]{1,63}$", description="name or id")]
NewName = Annotated[str, Path(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
ListAsked = Annotated[lists.Asked, Depends(lists.asking(KIND))]


@router.get(
    "",
    summary="List certificates",
    response_model=resource_schemas.CertificateList | schemas.PartialList,
    dependencies=[needs("cert:read")],
)
def list_all(cloud: CloudParts, caller: Caller, asked: ListAsked) -> Response:
    """Return a page of certificates."""
    return asked.read(partial(cloud.certificates.page, caller.project), documents.certificate)


@router.post(
    "",
    summary="Create a certificate",
    status_code=201,
    response_model=resource_schemas.UsedCertificate,
    dependencies=[needs("cert:write")],
)
def create(
    body: resource_schemas.PostCertificate, cloud: CloudParts, caller: Caller, change: Change
) -> Response:
    """Create a certificate; the same again gives the same one, another of that name is 409."""
    brought = pem.read(body.certificate, body.private_key)

    def act() -> Response:
        made = cloud.certificates.create(caller.project, body.name, brought, body.labels)
        return _reply(made, 201)

    return change.run(act)


@router.put(
    "/{name}",
    summary="Create or renew a certificate",
    response_model=resource_schemas.UsedCertificate,
    responses={201: {"description": "created", "model": resource_schemas.UsedCertificate}},
    dependencies=[needs("cert:write")],
)
def put(
    name: NewName,
    body: resource_schemas.PutCertificate,
    cloud: CloudParts,
    caller: Caller,
    change: Change,
) -> Response:
    """Create a certificate or renew it: load balancers that use it get it without a cut."""
    brought = pem.read(body.certificate, body.private_key)

    def act() -> Response:
        made = cloud.certificates.put(caller.project, name, brought, body.labels)
        return _reply(made, 201 if made.is_new else 200)

    return change.run(act)


@router.get(
    "/{name}",
    summary="Read a certificate",
    response_model=resource_schemas.UsedCertificate,
    dependencies=[needs("cert:read")],
)
def get(name: Name, cloud: CloudParts, caller: Caller) -> Response:
    """Return one certificate by name or id, without its key, and who uses it."""
    return _reply(cloud.certificates.find(caller.project, name), 200)


@router.delete(
    "/{name}",
    summary="Delete a certificate",
    status_code=204,
    dependencies=[needs("cert:write")],
)
def delete(name: Name, cloud: CloudParts, caller: Caller, change: Change) -> Response:
    """Delete a certificate; 409 in_use while a load balancer names it."""

    def act() -> Response:
        cloud.certificates.delete(caller.project, name)
        return Response(status_code=204)

    return change.run(act)


def _reply(kept: Kept, status_code: int) -> Response:
    made = kept.certificate
    headers = {"location": f"/v1/certificates/{made.name}"} if status_code == 201 else {}
    document = {**documents.certificate(made), "used_by": kept.used_by}
    return replies.json(document, status_code, headers)
