"""What handlers may use, and who is calling."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.security import HTTPBearer

from fakecloud.billing.prices import PriceBook
from fakecloud.clock import Clock
from fakecloud.errors import Unauthenticated, UnknownParameter
from fakecloud.load_balancers import LoadBalancers
from fakecloud.metrics import Metrics
from fakecloud.model import Token
from fakecloud.store.database import Database
from fakecloud.tokens import Authority
from fakecloud.watch import Hub

BEARER: Final = HTTPBearer(auto_error=False, description="A token of 64 letters and digits")


@dataclass(frozen=True, slots=True)
class Cloud:
    """The parts of the cloud that the API shows; built in app.py."""

    database: Database
    load_balancers: LoadBalancers
    hub: Hub
    authority: Authority
    price_book: PriceBook
    metrics: Metrics
    clock: Clock
    loopback_only: bool


def cloud(request: Request) -> Cloud:
    """Return the cloud behind this request."""
    parts: Cloud = request.app.state.cloud
    return parts


async def caller(request: Request, _doc: Annotated[object, Depends(BEARER)]) -> Token:
    """Return whose token the request carries. Raises: Unauthenticated."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise Unauthenticated(
            "send the header 'Authorization: Bearer TOKEN'; the first token is in the file "
            "admin.token of the state directory"
        )
    authority = cloud(request).authority
    token = authority.remembered(secret)
    if token is None:
        token = await asyncio.to_thread(authority.find, secret)
    if token is None:
        raise Unauthenticated("this token is not known here; was it made by another server?")
    return token


async def known_parameters(request: Request) -> None:
    """Refuse query parameters that the endpoint doesn't have. Raises: UnknownParameter.

    Ignoring a misspelt parameter is how people come to trust a filter that never filtered.
    """
    if not request.query_params:
        return
    known = set(_names(request.scope["route"].dependant))
    for name in request.query_params:
        if name not in known:
            has = f"has {', '.join(sorted(known))}" if known else "takes none"
            raise UnknownParameter(f"query parameter {name!r} is not known; this endpoint {has}")


def _names(dependant: Dependant) -> Iterator[str]:
    yield from (parameter.alias for parameter in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _names(inner)


CloudParts = Annotated[Cloud, Depends(cloud)]
Caller = Annotated[Token, Depends(caller)]
CHECKED: Final = [Depends(known_parameters)]
