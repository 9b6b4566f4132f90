"""Latency profiles: how long the simulated cloud takes."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from fakecloud import errors
from fakecloud.api import replies
from fakecloud.api.context import CHECKED, Caller, CloudParts
from fakecloud.domain import profiles

router = APIRouter(
    prefix="/profiles", tags=["profiles"], dependencies=CHECKED, responses=replies.ANY_PROBLEM
)


class Delay(BaseModel):
    """A lognormal distribution of seconds."""

    median_s: float
    sigma: float
    min_s: float
    max_s: float


class Profile(BaseModel):
    """How long operations take at least; null: as long as the work."""

    name: str
    aliases: list[str]
    default: bool
    description: str
    grade: profiles.Grade
    source: str
    create: Delay | None
    update: Delay | None
    delete: Delay | None


class ProfileList(BaseModel):
    """All profiles."""

    items: list[Profile]
    next_page_token: None
    resource_version: str


@router.get("", response_model=ProfileList, summary="List latency profiles")
def list_all(cloud: CloudParts, caller: Caller) -> Response:
    """Return every profile; `default` marks the one that load balancers have unless they say."""
    return replies.page(
        [_document(one, cloud.profile) for one in profiles.CATALOGUE.values()], None, 0
    )


@router.get("/{name}", response_model=Profile, summary="Show a latency profile")
def get(name: str, cloud: CloudParts, caller: Caller) -> Response:
    """Return a profile by name or alias."""
    try:
        return replies.json(_document(profiles.find(name), cloud.profile))
    except profiles.UnknownProfile as error:
        raise errors.NotFound(str(error)) from None


def _document(profile: profiles.Profile, default: str) -> dict[str, Any]:
    aliases = [alias for alias, name in profiles.ALIASES.items() if name == profile.name]
    document: dict[str, Any] = msgspec.to_builtins(profile)
    return document | {"aliases": aliases, "default": profile is profiles.find(default)}
