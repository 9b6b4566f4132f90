"""Projects: the tenants of the cloud."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from fakecloud.access.projects import Projects
from fakecloud.api import replies, schemas
from fakecloud.api.context import CHECKED, CloudParts, needs
from fakecloud.api.mutations import Change
from fakecloud.clock import rfc3339
from fakecloud.resources import Project
from fakecloud.store import events

_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"

router = APIRouter(
    prefix="/projects",
    tags=["projects and tokens"],
    dependencies=[*CHECKED, needs("project:admin")],
    responses=replies.ANY_PROBLEM,
)

Id = Annotated[str, Path(pattern=_PATTERN)]


class NewProject(BaseModel):
    """What makes a project."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field(pattern=_PATTERN)
    description: schemas.Words = ""


class ShownProject(BaseModel):
    """A project."""

    id: str
    description: str
    created_at: str


class ProjectList(BaseModel):
    """One page of projects."""

    items: list[ShownProject]
    next_page_token: str | None
    resource_version: str


def _document(project: Project) -> dict[str, Any]:
    return {
        "id": project.id,
        "description": project.description,
        "created_at": rfc3339(project.created_at),
    }


@router.get("", summary="List projects", response_model=ProjectList)
def list_all(
    cloud: CloudParts, page_size: replies.PageSize = 100, page_token: replies.PageToken = None
) -> Response:
    """Return every project, a page at a time."""
    after = replies.decode_token(page_token, "")
    with cloud.database.read() as connection:
        version = events.current_version(connection)
    found = Projects(cloud.database, cloud.clock).page(after, page_size + 1)
    more = found[page_size - 1].id if len(found) > page_size else None
    return replies.page([_document(one) for one in found[:page_size]], more, version)


@router.post("", summary="Make a project", status_code=201, response_model=ShownProject)
def create(body: NewProject, cloud: CloudParts, change: Change) -> Response:
    """Make a project; an administrator's token with `X-Project` works in it, and makes tokens."""

    def act() -> Response:
        made = Projects(cloud.database, cloud.clock).create(body.id, body.description)
        return replies.json(_document(made), 201, {"location": f"/v1/projects/{made.id}"})

    return change.run(act)


@router.get("/{id}", summary="Read a project", response_model=ShownProject)
def get(id: Id, cloud: CloudParts) -> Response:
    """Return one project."""
    return replies.json(_document(Projects(cloud.database, cloud.clock).find(id)))


@router.delete("/{id}", summary="Delete an empty project", status_code=204)
def delete(id: Id, cloud: CloudParts, change: Change) -> Response:
    """Delete a project that has nothing; 409 `in_use` while it has."""

    def act() -> Response:
        Projects(cloud.database, cloud.clock).delete(id)
        return Response(status_code=204)

    answer = change.run(act)
    cloud.authority.forget()
    return answer
