"""Budgets, and the webhooks that hear of them."""

from __future__ import annotations

import base64
from binascii import Error as NotBase64
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.responses import Response

from fakecloud.accounting.webhooks import PREFIX
from fakecloud.api import replies
from fakecloud.api.context import CHECKED, Caller, CloudParts, needs
from fakecloud.api.mutations import Change
from fakecloud.billing.budgets import Budget
from fakecloud.billing.money import PICO
from fakecloud.clock import rfc3339
from fakecloud.store import events
from fakecloud.store.webhooks import Delivery, Webhook

router = APIRouter(tags=["billing"], dependencies=[*CHECKED], responses=replies.ANY_PROBLEM)

Name = Annotated[str, Path(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Label = Annotated[str, Field(min_length=1, max_length=317)]
READ: Final = [needs("billing:read")]
WRITE: Final = [needs("billing:admin")]
LEAST_SECRET: Final = 24
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


class BudgetBody(BaseModel):
    """What may be spent in each period on what has all the labels of `scope`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    scope: dict[Label, Label] = Field(default_factory=dict, max_length=10)
    amount: str = Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6})?$", description="more than nothing")
    currency: str = Field(default="USD", pattern="^[A-Z]{3}$")
    period: Literal["day", "week", "month"] = "month"
    thresholds: list[Annotated[int, Field(ge=1, le=1000)]] = Field(
        default=[50, 80, 100], min_length=1, max_length=10, description="percent"
    )
    basis: Literal["actual", "forecast"] = "actual"
    kind: Literal["soft", "hard"] = Field(
        default="soft",
        description="hard: used up, it refuses new load balancers of its scope; without a scope "
        "it suspends the project: nothing is made or changed, and listeners stop",
    )

    @field_validator("amount")
    @classmethod
    def _is_something(cls, value: str) -> str:
        if not Decimal(value):
            raise ValueError("is nothing")
        return value


class WebhookBody(BaseModel):
    """Where news go. Without a secret one is made, and shown once."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: str = Field(max_length=2000, pattern="^https?://[!-~]+$")
    enabled: bool = True
    secret: str | None = Field(
        default=None,
        min_length=6 + 32,
        max_length=6 + 88,
        pattern=r"^whsec_[A-Za-z0-9+/]+={0,2}$",
        description="whsec_ and 24 to 64 bytes in base64; null keeps the one there is",
    )

    @field_validator("url")
    @classmethod
    def _has_a_host(cls, value: str) -> str:
        parts = urlsplit(value)
        if not parts.hostname or parts.username is not None:
            raise ValueError("needs a host, and no user or password")
        _ = parts.port  # raises ValueError for one that isn't a number
        return value

    @field_validator("secret")
    @classmethod
    def _is_long_enough(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                key = base64.b64decode(value.removeprefix(PREFIX), validate=True)
            except NotBase64:
                raise ValueError("is not base64 after whsec_") from None
            if len(key) < LEAST_SECRET:
                raise ValueError(f"has less than {LEAST_SECRET} bytes")
        return value


@router.get("/budgets", summary="List budgets", dependencies=READ)
def budgets(
    cloud: CloudParts,
    caller: Caller,
    page_size: replies.PageSize = 100,
    page_token: replies.PageToken = None,
) -> Response:
    """Return the project's budgets and how far each is used up."""
    after = replies.decode_token(page_token, "")
    with cloud.database.read() as connection:
        version = events.current_version(connection)
    desk = cloud.spending.budgets
    found = desk.page(caller.project, after, page_size + 1)
    more = found[page_size - 1].name if len(found) > page_size else None
    return replies.page([desk.document(one) for one in found[:page_size]], more, version)


@router.get("/budgets/{name}", summary="Read a budget", dependencies=READ)
def budget(cloud: CloudParts, caller: Caller, name: Name) -> Response:
    """Return a budget and how far it is used up in its present period."""
    desk = cloud.spending.budgets
    return replies.json(desk.document(desk.find(caller.project, name)))


@router.put(
    "/budgets/{name}",
    summary="Create or replace a budget",
    dependencies=WRITE,
    responses={201: {"description": "created"}},
)
def put_budget(
    cloud: CloudParts, caller: Caller, change: Change, name: Name, body: BudgetBody
) -> Response:
    """Set what may be spent. Each threshold is told once in a period."""
    wanted = Budget(
        project=caller.project,
        name=name,
        labels=body.scope,
        amount_pico=int(Decimal(body.amount) * PICO),
        currency=body.currency,
        period=body.period,
        thresholds=tuple(sorted(set(body.thresholds))),
        basis=body.basis,
        kind=body.kind,
        created_at=_NEVER,
        updated_at=_NEVER,
    )

    def act() -> Response:
        desk = cloud.spending.budgets
        made, new = desk.put(wanted)
        return replies.json(made, 201 if new else 200)

    return change.run(act)


@router.delete("/budgets/{name}", summary="Delete a budget", status_code=204, dependencies=WRITE)
def delete_budget(cloud: CloudParts, caller: Caller, change: Change, name: Name) -> Response:
    """Forget a budget: it tells and refuses nothing any more."""

    def act() -> Response:
        cloud.spending.budgets.delete(caller.project, name)
        return Response(status_code=204)

    return change.run(act)


@router.get("/webhooks", summary="List webhooks", dependencies=WRITE)
def webhooks(cloud: CloudParts, caller: Caller) -> Response:
    """Return where news of the project go; at most 100."""
    found = cloud.spending.webhooks.all(caller.project)
    return replies.json({"items": [_webhook(one) for one in found]})


@router.get("/webhooks/{name}", summary="Read a webhook", dependencies=WRITE)
def webhook(cloud: CloudParts, caller: Caller, name: Name) -> Response:
    """Return a webhook and its latest 20 deliveries."""
    found, sent = cloud.spending.webhooks.find(caller.project, name)
    return replies.json(_webhook(found) | {"deliveries": [_delivery(one) for one in sent]})


@router.put(
    "/webhooks/{name}",
    summary="Create or replace a webhook",
    dependencies=WRITE,
    responses={201: {"description": "created"}},
)
def put_webhook(
    cloud: CloudParts, caller: Caller, change: Change, name: Name, body: WebhookBody
) -> Response:
    """Send news there, signed; a secret that is new is in this answer and in no other."""

    def act() -> Response:
        made, secret, new = cloud.spending.webhooks.put(
            caller.project, name, body.url, enabled=body.enabled, secret=body.secret
        )
        headers = {"cache-control": "no-store"}
        return replies.json(_webhook(made) | {"secret": secret}, 201 if new else 200, headers)

    def without_secret(answer: Response) -> bytes:
        return msgspec.json.encode(msgspec.json.decode(answer.body) | {"secret": None})

    return change.run(act, kept=without_secret)


@router.delete("/webhooks/{name}", summary="Delete a webhook", status_code=204, dependencies=WRITE)
def delete_webhook(cloud: CloudParts, caller: Caller, change: Change, name: Name) -> Response:
    """Send nothing there any more, also not what is still to be delivered."""

    def act() -> Response:
        cloud.spending.webhooks.delete(caller.project, name)
        return Response(status_code=204)

    return change.run(act)


def _webhook(one: Webhook) -> dict[str, Any]:
    return {
        "name": one.name,
        "url": one.url,
        "enabled": one.enabled,
        "created_at": rfc3339(one.created_at),
    }


def _delivery(one: Delivery) -> dict[str, Any]:
    return {
        "id": one.id,
        "type": one.type,
        "status": one.status,
        "attempts": one.attempts,
        "answer": one.answer,
        "created_at": rfc3339(one.created_at),
    }
