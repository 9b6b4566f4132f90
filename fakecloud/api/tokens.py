"""Tokens: made, shown without their secret, revoked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import Response

from fakecloud import errors
from fakecloud.api import replies, schemas
from fakecloud.api.context import CHECKED, Caller, CloudParts, needs
from fakecloud.api.mutations import Change
from fakecloud.clock import rfc3339
from fakecloud.domain import scopes
from fakecloud.resources import Token
from fakecloud.store import events
from fakecloud.store import tokens as rows

router = APIRouter(
    prefix="/tokens",
    tags=["projects and tokens"],
    dependencies=[*CHECKED, needs("token:admin")],
    responses=replies.ANY_PROBLEM,
)

Id = Annotated[str, Path(pattern=r"^[a-z0-9_]{1,63}$")]


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range") from None


class NewToken(BaseModel):
    """What makes a token: presets and scopes, and until when it is good (business time)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    scopes: list[str] = Field(
        min_length=1, max_length=20, examples=[["ccm"]], description="scopes and presets"
    )
    description: schemas.Words = ""
    expires_at: Annotated[AwareDatetime, Field(strict=False), AfterValidator(_utc)] | None = None


class ShownToken(BaseModel):
    """A token, without its secret."""

    id: str
    prefix: str
    description: str
    scopes: list[str]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class MadeToken(ShownToken):
    """A token with its secret, which is seen only this once."""

    secret: str | None


class TokenList(BaseModel):
    """One page of tokens."""

    items: list[ShownToken]
    next_page_token: str | None
    resource_version: str


def _document(token: Token) -> dict[str, Any]:
    moments = ("created_at", "expires_at", "revoked_at", "last_used_at")
    shown = {name: getattr(token, name) for name in moments}
    return {
        "id": token.id,
        "prefix": token.prefix,
        "description": token.description,
        "scopes": sorted(token.scopes),
        **{name: None if at is None else rfc3339(at) for name, at in shown.items()},
    }


@router.get("", summary="List tokens", response_model=TokenList)
def list_all(
    cloud: CloudParts,
    caller: Caller,
    page_size: replies.PageSize = 100,
    page_token: replies.PageToken = None,
) -> Response:
    """Return the project's tokens that aren't revoked; `last_used_at` lags up to a minute."""
    after = replies.decode_token(page_token, "")
    with cloud.database.read() as connection:
        version = events.current_version(connection)
        found = rows.page(connection, caller.project, after=after, limit=page_size + 1)
    more = found[page_size - 1].id if len(found) > page_size else None
    return replies.page([_document(one) for one in found[:page_size]], more, version)


@router.post("", summary="Make a token", status_code=201, response_model=MadeToken)
def create(body: NewToken, cloud: CloudParts, caller: Caller, change: Change) -> Response:
    """Make a token for the project and show its secret, this once.

    It gets no scope that the caller lacks. A repetition with the same Idempotency-Key shows the
    token with `secret` null: where the first answer was lost, revoke it and make another.
    """
    granted = _granted(body, caller)
    if body.expires_at is not None and body.expires_at <= cloud.clock.now():
        raise errors.ValidationFailed(
            "/expires_at: is in the past",
            errors=(errors.FieldError("/expires_at", "in_the_past", "is in the past"),),
        )

    def act() -> Response:
        token, secret = cloud.authority.create(
            caller.project, body.description, granted, body.expires_at
        )
        shown = _document(token) | {"secret": secret}
        headers = {"location": f"/v1/tokens/{token.id}", "cache-control": "no-store"}
        return replies.json(shown, 201, headers)

    def without_secret(answer: Response) -> bytes:
        return msgspec.json.encode(msgspec.json.decode(answer.body) | {"secret": None})

    return change.run(act, kept=without_secret)


@router.get("/{id}", summary="Read a token", response_model=ShownToken)
def get(id: Id, cloud: CloudParts, caller: Caller) -> Response:
    """Return one token, also after it was revoked."""
    with cloud.database.read() as connection:
        token = rows.get(connection, caller.project, id)
    if token is None:
        raise errors.NotFound(f"there is no token {id!r}")
    return replies.json(_document(token))


@router.delete("/{id}", summary="Revoke a token", status_code=204)
def revoke(id: Id, cloud: CloudParts, caller: Caller, change: Change) -> Response:
    """Let a token open nothing any more, on every server within a second."""

    def act() -> Response:
        cloud.authority.revoke(caller.project, id)
        return Response(status_code=204)

    answer = change.run(act)
    cloud.authority.forget()
    return answer


def _granted(body: NewToken, caller: Token) -> frozenset[str]:
    try:
        granted = scopes.expand(body.scopes)
    except ValueError as error:
        raise errors.ValidationFailed(
            f"/scopes: {error}",
            errors=(errors.FieldError("/scopes", "unknown_scope", str(error)),),
        ) from None
    more = sorted(scope for scope in granted if not caller.may(scope))
    if more:
        raise errors.ScopeMissing(
            f"a token can't give what it hasn't: yours lacks {', '.join(more)}"
        )
    return granted
