"""What handlers may use, and who is calling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Protocol

import msgspec
from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.convertors import StringConvertor, register_url_convertor

from fakecloud.access.quotas import Quotas
from fakecloud.access.rate_limits import GET, LIST, MUTATE, WATCH, RateLimiter
from fakecloud.access.tokens import Authority
from fakecloud.accounting.costs import Costs
from fakecloud.accounting.invoices import Invoices
from fakecloud.accounting.spending import Spending
from fakecloud.api.writer import Writer
from fakecloud.chaos.engine import Chaos
from fakecloud.domain import scopes
from fakecloud.domain.business_time import BusinessClock
from fakecloud.errors import NotFound, RateLimited, ScopeMissing, Unauthenticated, UnknownParameter
from fakecloud.insight import Insight
from fakecloud.metrics import Metrics
from fakecloud.requests.actions import Actions
from fakecloud.requests.certificates import Certificates
from fakecloud.requests.instances import Instances
from fakecloud.requests.load_balancers import LoadBalancers
from fakecloud.requests.networks import Networks, Routes
from fakecloud.requests.reservations import Reservations
from fakecloud.requests.snapshots import Snapshots
from fakecloud.resources import Token
from fakecloud.store.database import Database
from fakecloud.store.readiness import Readiness
from fakecloud.timekeeper import Timekeeper
from fakecloud.watch.hub import Hub


class _NoColon(StringConvertor):
    """No parameter of a path has a colon: `web:drain` is an action on `web`, never a name.

    Otherwise GET of an action would be a look for a strange name, and not a wrong method.
    """

    regex = "[^/:]+"


register_url_convertor("str", _NoColon())  # before any route is made: every router imports this

BEARER: Final = HTTPBearer(auto_error=False, description="A token of 64 letters and digits")


class Inspector(Protocol):
    """A look at the data plane of this host."""

    def running(self) -> frozenset[str]:
        """Return the ids of the load balancers that this host runs now."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """The parts of the cloud that the API shows; built in app.py."""

    database: Database
    writer: Writer
    load_balancers: LoadBalancers
    hub: Hub
    authority: Authority
    costs: Costs
    invoices: Invoices
    spending: Spending
    metrics: Metrics
    clock: BusinessClock
    timekeeper: Timekeeper
    profile: str
    host: str
    loopback_only: bool
    chaos: Chaos
    actions: Actions
    reservations: Reservations
    instances: Instances
    networks: Networks
    routes: Routes
    certificates: Certificates
    snapshots: Snapshots
    inspector: Inspector
    insight: Insight
    readiness: Readiness
    stopped_loops: Callable[[], list[str]] = list
    quotas: Quotas = field(default_factory=Quotas)
    rate_limiter: RateLimiter | None = None


async def cloud(request: Request) -> Cloud:
    """Return the cloud behind this request. Not a plain `def`, which would cost a thread."""
    return _parts(request)


def _parts(request: Request) -> Cloud:
    parts: Cloud = request.app.state.cloud
    return parts


async def caller(request: Request, _doc: Annotated[object, Depends(BEARER)]) -> Token:
    """Return whose token the request carries, in the project of `X-Project` if it may say that.

    Raises: Unauthenticated, TokenExpired, TokenRevoked, NotFound (project), RateLimited.
    """
    parts = _parts(request)
    token = await _identified(request, parts.authority)
    project = request.headers.get("x-project", token.project)
    if project != token.project:
        token = await _elsewhere(token, project, parts.authority)
    request.state.caller = token
    if parts.rate_limiter is not None:
        try:
            request.state.allowance = parts.rate_limiter.spend(token.id, _cost(request))
        except RateLimited:
            request.state.allowance = parts.rate_limiter.left(token.id)
            raise
    return token


async def _identified(request: Request, authority: Authority) -> Token:
    given = request.headers.getlist("authorization")
    if len(given) > 1:
        raise Unauthenticated("send one header 'Authorization', not several: whose wish is it?")
    scheme, _, secret = "".join(given).partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise Unauthenticated(
            "send the header 'Authorization: Bearer TOKEN'; the first token is in the file "
            "admin.token of the state directory"
        )
    token = authority.remembered(secret)
    if token is None:
        token = await asyncio.to_thread(authority.find, secret)
    if token is None:
        raise Unauthenticated("this token is not known here; was it made by another server?")
    return token


async def _elsewhere(token: Token, project: str, authority: Authority) -> Token:
    """Return the token as one of another project. A project that it may not see isn't there."""
    known = token.may(scopes.ADMIN) and (
        authority.knows_project(project) or await asyncio.to_thread(authority.has_project, project)
    )
    if not known:
        raise NotFound(f"X-Project: there is no project {project[:100]!r}")
    return msgspec.structs.replace(token, project=project)


def _cost(request: Request) -> int:
    if request.method not in ("GET", "HEAD"):
        return MUTATE
    route: APIRoute = request.scope["route"]
    if route.path.endswith("/watch"):
        return WATCH
    return LIST if "page_size" in _names(route.dependant) else GET


class Needs:
    """A dependency that refuses tokens without `scope`. Raises: ScopeMissing."""

    def __init__(self, scope: str) -> None:
        """Refuse all but tokens with `scope`, one of `scopes.ALL`."""
        assert scope in scopes.ALL, scope
        self.scope = scope

    async def __call__(self, caller: Caller) -> None:
        """Check whose token the request carries."""
        if not caller.may(self.scope):
            raise ScopeMissing(
                f"this needs the scope {self.scope!r}; the token has "
                f"{', '.join(sorted(caller.scopes))}"
            )


def needs(scope: str) -> Any:
    """Return what stands among a route's `dependencies`: only tokens with `scope` may call it."""
    return Depends(Needs(scope))


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
